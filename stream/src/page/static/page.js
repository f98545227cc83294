"use strict";
// What the job tells becomes the page. Everything that comes from data goes in as text, never as markup.

const KEPT = 1000;
const POINTS = 600;
const ROWS = 20;
const LINE_COLORS = 8;
const TIMELINES_EVERY = 200; // ms

const $ = (id) => document.getElementById(id);

function make(name, { text, className, parent, ...attributes } = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

// Writes only what is different, so that a reader's selection stays.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const some = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

function seconds(value) {
  if (value === 0) return "0";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${+(value * 1000).toPrecision(3)} ms`;
  if (value < 120) return `${+value.toPrecision(3)} s`;
  if (value < 7200) return `${+(value / 60).toPrecision(3)} min`;
  return `${+(value / 3600).toPrecision(3)} h`;
}

const number = (value) => (value === null ? "–" : Number.isInteger(value) ? whole.format(value) : some.format(value));
const axis = (value) => (Math.abs(value) < 1000 ? String(+value.toPrecision(3)) : short.format(value));

let zone;
let clockFormat;
let dayFormat;
function setZone(name) {
  try {
    zone = name ?? undefined;
    clockFormat = new Intl.DateTimeFormat("en-GB", { ...CLOCK, timeZone: zone });
  } catch {
    zone = undefined;
    clockFormat = new Intl.DateTimeFormat("en-GB", CLOCK);
  }
  dayFormat = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeZone: zone });
}
setZone();
const clock = (time) => clockFormat.format(time);
const exact = (time) => `${dayFormat.format(time)} ${clock(time)}.${String(((time % 1000) + 1000) % 1000).padStart(3, "0")}`;

let job = null;
let batches = [];
let news = null;
let paused = false;
const charts = new Map();

// The totals.

const figures = new Map();
function figure(key, label) {
  const box = make("div", { parent: $("figures") });
  make("dt", { text: label, parent: box });
  figures.set(key, { box, value: make("dd", { text: "–", parent: box, "data-figure": key }) });
}
for (const [key, label] of [
  ["rows", "Rows"], ["rate", "Rows a second"], ["batches", "Batches"], ["processing", "Processing time"],
  ["delay", "Total delay"], ["late", "Late batches"], ["rejects", "Rejected"], ["uptime", "Up for"],
]) figure(key, label);

function setFigure(key, value, text, bad = false) {
  const { box, value: node } = figures.get(key);
  node.dataset.value = value;
  write(node, text);
  box.classList.toggle("bad", bad);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

// Rows a second of the batches of the last few seconds.
function rate() {
  if (batches.length === 0) return 0;
  const last = batches[batches.length - 1].time;
  let from = batches.length - 1;
  while (from > 0 && last - batches[from].time < 3000) from -= 1;
  const span = span_of(from, batches.length - 1);
  let rows = 0;
  for (let index = from + 1; index < batches.length; index += 1) rows += batches[index].rows;
  return span > 0 ? rows / span : rate_of(batches.length - 1);
}
const span_of = (from, to) => (batches[to].time - batches[from].time) / 1000;
function rate_of(index) {
  const span = index > 0 ? span_of(index - 1, index) : job?.interval ?? 0;
  return span > 0 ? batches[index].rows / span : 0;
}

function showFigures() {
  const { totals } = news;
  setFigure("rows", totals.rows, totals.rows < 1e7 ? whole.format(totals.rows) : short.format(totals.rows));
  setFigure("batches", totals.batches, whole.format(totals.batches));
  setFigure("late", totals.late, whole.format(totals.late), totals.late > 0);
  setFigure("rejects", totals.rejects, whole.format(totals.rejects), totals.rejects > 0);
  const last = batches.slice(-50);
  if (last.length > 0) {
    const processing = median(last.map((batch) => batch.processing_time));
    const delay = median(last.map((batch) => batch.processing_time + batch.scheduling_delay));
    setFigure("processing", processing, seconds(processing));
    setFigure("delay", delay, seconds(delay));
    setFigure("rate", rate(), short.format(rate()));
  }
  if (job) setFigure("uptime", job.started, seconds(Math.max(0, Math.round((Date.now() - job.started) / 1000))));
}

// Charts of results.

let regions;
try {
  regions = new Intl.DisplayNames(["en"], { type: "region" });
} catch {
  regions = { of: (code) => code };
}

// The code and the name of a country. Flags are left out: many systems have none.
function country(code) {
  if (!/^[A-Za-z]{2}$/.test(code)) return ["–", code];
  const upper = code.toUpperCase();
  return [upper, regions.of(upper)];
}

// Where what all labels begin with ends, at a place where a word or a part of a time ends. Something is left of each.
function common(labels) {
  const shortest = Math.min(...labels.map((label) => label.length));
  let end = 0;
  while (end < shortest && labels.every((label) => label[end] === labels[0][end])) end += 1;
  while (end > 0 && (!/[ T/:.-]/.test(labels[0][end - 1]) || shortest - end < 5)) end -= 1;
  return end < 5 ? 0 : end;
}

class Bars {
  constructor(card, kind) {
    this.kind = kind;
    this.list = make("ul", { className: "bars", parent: card });
    this.list.hidden = true;
    this.empty = make("p", { className: "empty", text: "No rows yet.", parent: card });
  }

  update({ rows }) {
    const most = Math.max(0, ...rows.map(([, value]) => value ?? 0));
    while (this.list.children.length > rows.length) this.list.lastChild.remove();
    this.empty.hidden = rows.length > 0;
    this.list.hidden = rows.length === 0;
    rows.forEach(([label, value], index) => {
      const item = this.list.children[index] ?? this.item();
      const [name, bar, amount] = item.children;
      if (item.dataset.x !== label) {
        item.dataset.x = label;
        if (this.kind === "countries") {
          const [code, text] = country(label);
          name.replaceChildren();
          make("abbr", { text: code, parent: name });
          name.append(text);
        } else {
          name.textContent = label;
        }
      }
      item.dataset.y = value;
      item.title = `${label}: ${number(value)}`;
      write(amount, number(value));
      bar.style.width = `${most > 0 ? (Math.max(0, value ?? 0) / most) * 100 : 0}%`;
    });
  }

  item() {
    const item = make("li", { parent: this.list });
    for (const part of ["label", "bar", "value"]) make("span", { className: part, parent: item });
    return item;
  }
}

class Columns {
  constructor(card) {
    this.list = make("ul", { className: "columns", parent: card });
    this.list.hidden = true;
    this.empty = make("p", { className: "empty", text: "No rows yet.", parent: card });
  }

  update({ rows }) {
    const most = Math.max(0, ...rows.map(([, value]) => value ?? 0));
    while (this.list.children.length > rows.length) this.list.lastChild.remove();
    this.empty.hidden = rows.length > 0;
    this.list.hidden = rows.length === 0;
    const dense = rows.length > 8;
    this.list.classList.toggle("dense", dense);
    const cut = dense ? common(rows.map(([label]) => label)) : 0;
    const longest = Math.max(0, ...rows.map(([label]) => label.length - cut));
    this.list.style.setProperty("--room", `${Math.min(6, longest * 0.5 + 0.5)}rem`);
    // Labels that would stand on each other are left out.
    const step = Math.ceil((rows.length * 14) / Math.max(14, this.list.clientWidth));
    rows.forEach(([label, value], index) => {
      const item = this.list.children[index] ?? this.item();
      const [track, name] = item.children;
      item.dataset.x = label;
      item.dataset.y = value;
      item.title = `${label}: ${number(value)}`;
      write(name, (rows.length - 1 - index) % step === 0 ? label.slice(cut) : "");
      write(track.firstChild.firstChild, value !== null && Math.abs(value) >= 1e5 ? short.format(value) : number(value));
      track.firstChild.style.height = `${most > 0 ? (Math.max(0, value ?? 0) / most) * 100 : 0}%`;
    });
  }

  item() {
    const item = make("li", { parent: this.list });
    const track = make("span", { className: "track", parent: item });
    make("span", { className: "value", parent: make("span", { className: "bar", parent: track }) });
    make("span", { className: "label", parent: item });
    return item;
  }
}

class Lines {
  constructor(card, title) {
    this.legend = make("ul", { className: "legend", parent: card });
    this.plot = new Plot(card, { format: axis, clock, label: title });
    this.points = [];
    this.slots = new Map();
  }

  update({ points }) {
    for (const point of points) {
      const last = this.points[this.points.length - 1];
      if (last && Math.floor(last.time / 1000) === Math.floor(point.time / 1000)) this.points.pop();
      this.points.push(point);
    }
    this.points.splice(0, this.points.length - POINTS);
    const names = new Set();
    for (const { values } of this.points) for (const [name] of values) names.add(name);
    for (const name of [...this.slots.keys()]) if (!names.has(name)) this.slots.delete(name);
    for (const name of names) {
      // A line keeps its colour while it is there.
      if (!this.slots.has(name)) {
        const used = new Set(this.slots.values());
        let slot = 0;
        while (used.has(slot) && slot < LINE_COLORS - 1) slot += 1;
        this.slots.set(name, slot);
      }
    }
    const times = this.points.map(({ time }) => time);
    const series = [...this.slots].slice(0, LINE_COLORS).map(([name, slot]) => ({
      name,
      color: `var(--s${slot})`,
      values: this.points.map(({ values }) => values.find(([one]) => one === name)?.[1] ?? null),
    }));
    while (this.legend.children.length > series.length) this.legend.lastChild.remove();
    series.forEach(({ name, color, values }, index) => {
      let item = this.legend.children[index];
      if (!item) {
        item = make("li", { parent: this.legend });
        make("i", { parent: item });
        make("span", { parent: item });
        make("b", { parent: item });
      }
      const last = values[values.length - 1];
      item.dataset.x = name;
      item.dataset.y = last;
      item.children[0].style.background = color;
      write(item.children[1], name);
      write(item.children[2], number(last));
    });
    this.plot.set({ times, series });
  }
}

const VIEWS = {
  bar: (card) => new Columns(card),
  line: (card, title) => new Lines(card, title),
  top: (card) => new Bars(card, "top"),
  countries: (card) => new Bars(card, "countries"),
};

function makeCharts() {
  charts.clear();
  $("charts").replaceChildren();
  $("charts").hidden = job.charts.length === 0;
  for (const { name, title, kind } of job.charts) {
    const card = make("section", { className: "card", parent: $("charts"), "aria-label": title, "data-chart": name });
    make("h2", { text: title, parent: card });
    const error = make("p", { className: "error", parent: card, role: "status" });
    charts.set(name, { card, error, view: VIEWS[kind](card, title), waiting: null });
  }
}

function showChart(chart, update) {
  chart.card.classList.toggle("failed", update.error !== undefined);
  write(chart.error, update.error ?? "");
  if (update.error === undefined) chart.view.update(update);
}

// Batches over time.

const timelines = [
  ["Input rate", (batch, index) => rate_of(index), (value) => `${axis(value)}/s`],
  ["Scheduling delay", (batch) => batch.scheduling_delay, seconds],
  ["Processing time", (batch) => batch.processing_time, seconds],
  ["Total delay", (batch) => batch.scheduling_delay + batch.processing_time, seconds],
].map(([title, value, format], index) => {
  const card = make("div", { className: "card", parent: $("timelines") });
  const head = make("h3", { text: title, parent: card });
  const average = make("span", { parent: head });
  const plot = new Plot(card, { format, clock, histogram: true, label: `${title} of the last batches, with a histogram` });
  return { title, value, format, average, plot, color: `var(--s${[0, 3, 2, 6][index]})` };
});

function showTimelines() {
  const times = batches.map((batch) => batch.time);
  const late = batches.flatMap((batch, index) => (batch.is_late ? [index] : []));
  for (const { title, value, format, average, plot, color } of timelines) {
    const values = batches.map(value);
    const guide = title === "Processing time" && job?.interval ? job.interval : undefined;
    plot.set({ times, series: [{ name: "", color, values }], guide, marks: title === "Processing time" ? late : [] });
    const mean = values.reduce((sum, one) => sum + one, 0) / Math.max(1, values.length);
    write(average, `average ${format(mean)}${guide ? `, interval ${seconds(guide)}` : ""}`);
  }
}

function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach(({ cells, className = "", batch }, index) => {
    const row = body.rows[index] ?? body.insertRow();
    row.className = className;
    if (batch !== undefined) row.dataset.batch = batch;
    cells.forEach((text, column) => {
      const cell = row.cells[column] ?? row.insertCell();
      write(cell, text);
    });
  });
}

function showTables() {
  const rows = batches.slice(-ROWS).reverse().map((batch) => ({
    batch: batch.number,
    className: batch.is_late ? "late" : "",
    cells: [
      whole.format(batch.number), exact(batch.time), whole.format(batch.rows), whole.format(batch.rejects),
      seconds(batch.scheduling_delay), seconds(batch.processing_time),
      seconds(batch.scheduling_delay + batch.processing_time), batch.is_late ? "late" : "done",
    ],
  }));
  const { active, tables, rejects } = news;
  if (active) {
    const { number: name, time, rows: count, processing_time: took } = active;
    const cells = [whole.format(name), exact(time), whole.format(count), "", "", seconds(took), "", "active"];
    rows.unshift({ batch: name, className: "active", cells });
  }
  fill($("batches").tBodies[0], rows);
  for (const row of $("batches").tBodies[0].rows) row.cells[7].className = "text";
  $("tables").hidden = tables.length === 0;
  const body = $("tables").querySelector("tbody");
  fill(body, tables.map(({ name, keys }) => ({ cells: [name, whole.format(keys)] })));
  tables.forEach(({ name, keys }, index) => {
    body.rows[index].dataset.table = name;
    body.rows[index].dataset.keys = keys;
    body.rows[index].cells[0].className = "text";
  });
  if (rejects) {
    $("rejects").querySelector(".empty").hidden = rejects.length > 0;
    $("rejects").querySelector(".scroll").hidden = rejects.length === 0;
    fill($("rejects").querySelector("tbody"), rejects.map((one) => ({ cells: [exact(one.time), one.source, one.reason, one.record] })));
  }
}

// How it hangs together: counts at once, what stands for minutes a few times a second.

let timer = null;
function show() {
  if (!news || paused) return;
  for (const chart of charts.values()) {
    if (!chart.waiting) continue;
    showChart(chart, chart.waiting);
    chart.waiting = null;
  }
  showFigures();
  timer ??= setTimeout(() => {
    timer = null;
    if (paused || !news) return;
    showTimelines();
    showTables();
  }, TIMELINES_EVERY);
}

function take(message) {
  const rejects = message.rejects ?? news?.rejects;
  news = { ...message, rejects };
  batches.push(...message.batches);
  batches.splice(0, batches.length - KEPT);
  for (const update of message.charts) {
    const chart = charts.get(update.name);
    if (!chart) continue;
    const earlier = chart.waiting?.points;
    chart.waiting = update.points && earlier ? { ...update, points: [...earlier, ...update.points].slice(-POINTS) } : update;
  }
  show();
}

function setState(state, text) {
  $("state").dataset.state = state;
  write($("state"), text);
}

let events = null;
let retry = null;

function leave() {
  clearTimeout(retry);
  events?.close();
  events = null;
}

function again() {
  leave();
  setState("lost", "the job does not answer");
  retry = setTimeout(follow, 1000);
}

async function follow() {
  leave();
  let told;
  try {
    const answer = await fetch("api/job");
    if (!answer.ok) throw new Error(answer.statusText);
    told = await answer.json();
  } catch {
    again();
    return;
  }
  if (events || document.hidden) return;
  job = told;
  setZone(job.time_zone);
  document.title = `${job.name} – flume-rs-stream`;
  write($("name"), job.name);
  const sources = job.sources.map(({ name, kind }) => `${name} (${kind})`).join(", ");
  const sinks = job.sinks.map(({ name, kind }) => `${name} (${kind})`).join(", ");
  write($("facts"), [`batches ${job.batch}`, `from ${sources}`, sinks && `to ${sinks}`, `version ${job.version}`].filter(Boolean).join(" · "));
  batches = [];
  news = null;
  makeCharts();
  events = new EventSource("api/events");
  events.onopen = () => setState("running", "running");
  events.onmessage = (event) => take(JSON.parse(event.data));
  events.onerror = again;
}

// Nobody looks at a page in the background; browsers allow few connections, and the job works less.
document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  write($("pause"), paused ? "Go on" : "Pause");
  show();
});
follow();
