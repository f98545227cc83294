"use strict";
// Values over time, drawn as SVG: lines, and on request a histogram of the values beside them.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// Round steps that divide a range into a few parts.
function steps(max, parts) {
  const rough = max / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
  const found = [];
  for (let n = 0; n <= max * 1.0001; n += step) found.push(n);
  return found;
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

class Plot {
  // `format` writes a value, `clock` a time; `histogram` asks for one; `label` is for those who do not see it.
  constructor(parent, { format, clock, histogram = false, label }) {
    this.format = format;
    this.clock = clock;
    this.histogram = histogram;
    this.box = document.createElement("div");
    this.box.className = "plot";
    this.svg = element("svg", { role: "img", "aria-label": label }, this.box);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.box.append(this.tip);
    parent.append(this.box);
    this.data = { times: [], series: [] };
    this.pointer = null;
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.box.addEventListener("pointermove", (event) => {
      this.pointer = event.clientX - this.box.getBoundingClientRect().left;
      this.point();
    });
    this.box.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.point();
    });
  }

  // `series`: [{ name, color, values }], each value a number or null; `guide`: a value to mark; `marks`: indices of
  // times to mark in the first series.
  set(data) {
    this.data = data;
    this.draw();
  }

  draw() {
    const { width, height } = this.box.getBoundingClientRect();
    if (width < 50) return;
    const { times, series, guide, marks = [] } = this.data;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    let max = 0;
    for (const { values } of series) for (const value of values) if (value > max) max = value;
    if (guide !== undefined && guide < max * 4) max = Math.max(max, guide);
    const ticks = max > 0 ? steps(max, 4) : [0];
    max = max > 0 ? max * 1.05 : 1;
    const widest = Math.max(...ticks.map((tick) => this.format(tick).length));
    const area = { left: 10 + widest * 6.6, right: width - (this.histogram ? Math.min(110, width * 0.22) + 14 : 8), top: 6, bottom: height - 20 };
    this.area = area;
    const first = times[0] ?? 0;
    const span = Math.max(1, (times[times.length - 1] ?? 0) - first);
    const x = (time) => area.left + ((time - first) / span) * (area.right - area.left);
    const y = (value) => area.bottom - (value / max) * (area.bottom - area.top);
    this.x = x;
    for (const tick of ticks) {
      element("line", { class: "grid", x1: area.left, x2: area.right, y1: y(tick), y2: y(tick) }, this.svg);
      element("text", { x: area.left - 6, y: y(tick) + 4, "text-anchor": "end" }, this.svg, this.format(tick));
    }
    if (times.length > 1) {
      element("text", { x: area.left, y: height - 4 }, this.svg, this.clock(first));
      element("text", { x: area.right, y: height - 4, "text-anchor": "end" }, this.svg, this.clock(times[times.length - 1]));
    }
    if (guide !== undefined && guide <= max) {
      element("line", { class: "guide", x1: area.left, x2: area.right, y1: y(guide), y2: y(guide) }, this.svg);
    }
    series.forEach(({ values, color }) => {
      let path = "";
      let pen = "M";
      let count = 0;
      values.forEach((value, index) => {
        if (value === null || value === undefined) return;
        path += `${pen}${x(times[index]).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        count += 1;
      });
      if (count === 1) {
        const index = values.findIndex((value) => value !== null && value !== undefined);
        element("circle", { cx: x(times[index]), cy: y(values[index]), r: 3, fill: color }, this.svg);
      } else if (count > 1) {
        element("path", { class: "series", d: path, stroke: color }, this.svg);
      }
    });
    for (const index of marks) {
      element("circle", { class: "late", cx: x(times[index]), cy: y(series[0].values[index]), r: 2.5 }, this.svg);
    }
    if (this.histogram && times.length > 0) this.drawHistogram(series[0], max, area, width, y);
    this.cross = element("line", { class: "cross", y1: area.top, y2: area.bottom, visibility: "hidden" }, this.svg);
    this.point();
  }

  // How often each range of values occurs, on the same scale.
  drawHistogram({ values, color }, max, area, width, y) {
    const bins = new Array(12).fill(0);
    for (const value of values) bins[Math.min(11, Math.floor((value / max) * 12))] += 1;
    const most = Math.max(...bins);
    const left = area.right + 14;
    const room = width - left - 2;
    bins.forEach((count, index) => {
      if (count === 0) return;
      const top = y(((index + 1) / 12) * max) + 1;
      const bottom = y((index / 12) * max);
      element("rect", { x: left, y: top, width: Math.max(1, (count / most) * room), height: Math.max(1, bottom - top), rx: 2, fill: color, opacity: 0.55 }, this.svg);
    });
    element("line", { class: "grid", x1: left, x2: left, y1: area.top, y2: area.bottom }, this.svg);
    element("text", { x: left + room, y: area.bottom + 16, "text-anchor": "end" }, this.svg, `${most} batches`);
  }

  // Shows the values under the pointer.
  point() {
    const { times, series } = this.data;
    const shown = this.pointer !== null && times.length > 0 && this.area && this.pointer <= this.area.right + 4;
    this.tip.hidden = !shown;
    this.cross?.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    let nearest = 0;
    times.forEach((time, index) => {
      if (Math.abs(this.x(time) - this.pointer) < Math.abs(this.x(times[nearest]) - this.pointer)) nearest = index;
    });
    const at = this.x(times[nearest]);
    this.cross.setAttribute("x1", at);
    this.cross.setAttribute("x2", at);
    const lines = series
      .filter(({ values }) => values[nearest] !== null && values[nearest] !== undefined)
      .map(({ name, values }) => `${name ? `${name}: ` : ""}${this.format(values[nearest])}`);
    this.tip.textContent = [this.clock(times[nearest]), ...lines].join("\n");
    const half = this.box.clientWidth / 2;
    this.tip.style.left = at < half ? `${at + 10}px` : "auto";
    this.tip.style.right = at < half ? "auto" : `${this.box.clientWidth - at + 10}px`;
  }
}
