#!/usr/bin/env python3
"""Measures flume-rs beside the real Flume: the same configurations, the same load, one run, and the ratios.

    benches/compare.py [--runs N] [--only SCENARIO,…] [--agent PATH]

Builds the release binary unless --agent names one, fetches Flume's jars by Maven at the first use (needs a JDK), and
runs both in turn. Prints one Markdown row a scenario with the medians, and "missed" where a target is. Exits with 1
when one is. Scenarios: netcat, netcat-ack, roll (exec to file_roll), syslogtcp, multiport_syslogtcp, http (lists of 100
events in JSON), routing (netcat, three interceptors, multiplexing to three channels), hop-1000, hop-100, hop-deflate,
hop-tls (exec to avro sink, avro source to null; both agents added up), kafka, kafka-all (netcat to Kafka, acks 1 and
all), kafka-source (Kafka to null; these three also beside the smallest client of librdkafka), kafka-chain (Kafka to the
file channel to Kafka), kafka-transactional (flume-rs alone: transactions beside acks=all), file-1000, file-100 (exec to
the file channel to null), file-nc (64 netcat clients that send all they have and read the answers, to the file
channel), file-ack (the same, each waiting for every answer), taildir, spooldir (a file of 1 GB to the memory channel to
null), durable (CPU of the file channel beside the memory channel's), backlog (from the agent's start to the first event
when many wait in the file channel; --backlogs), startup, latency, hop-latency (netcat to avro sink, avro source to
logger), clients (1,000 avro clients that send an event a second each).
"""
import argparse, functools, itertools, json, os, shutil, socket, statistics, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KIT = os.path.join(ROOT, "tests", "interop")
sys.path.insert(0, os.path.join(KIT, "bench"))
import bench  # noqa: E402

FLUME = [os.path.join(KIT, "flume.sh")]
# scenario: (events, least ratio of events a second, least ratio of CPU an event, most CPU us an event, most MB at the peak)
THROUGHPUT = {
    "netcat": (4_000_000, 6, 10, None, 16), "netcat-ack": (4_000_000, 8, 15, None, 16), "roll": (4_000_000, 5, 8, None, 16),
    "routing": (2_000_000, 6, 8, None, 24),
    "syslogtcp": (2_000_000, 6, None, None, 16), "multiport_syslogtcp": (2_000_000, 6, None, None, 16),
    "http": (1_000_000, 5, None, None, None),
    "hop-1000": (2_000_000, 8, None, 0.6, 30), "hop-100": (1_000_000, 10, None, 1.3, 30),
    "hop-deflate": (2_000_000, 4, None, None, 30), "hop-tls": (2_000_000, 6, None, None, 30),
    "kafka": (1_000_000, 6, None, 1.5, 64), "kafka-all": (1_000_000, 6, None, 1.5, 64),
    "kafka-source": (2_000_000, 1, None, None, 64), "kafka-chain": (500_000, 10, None, None, 64),
    "file-1000": (1_000_000, 25, None, 1.5, None), "file-100": (1_000_000, 15, None, 1.5, None),
    "file-nc": (100_000, 20, None, None, None), "file-ack": (50_000, 20, None, None, None),
    "taildir": (10_000_000, 4, None, 0.13, None), "spooldir": (10_000_000, 4, None, 0.13, None),
}
# scenario: what the smallest possible client does instead, and how many times longer ours may take
CEILINGS = {"kafka": ("produce", "1", 1.25), "kafka-all": ("produce", "all", 1.25), "kafka-source": ("consume", "", 1.25)}
TRANSACTIONAL, KAFKA_RSS_MB = 0.6, 64
IDLE_RSS_MB, START_MS, LATENCY_MS, HOP_LATENCY_MS = 8, 20, 2, 5
DURABLE, OPEN_MS, OPEN_RSS_MB = 2, 50, 64
CLIENTS, CLIENTS_CPU_PERCENT, CLIENTS_RSS_MB = 1000, 5, 64
missed = []


def verdict(name, good):
    if not good:
        missed.append(name)
    return "" if good else " (missed)"


def build():
    subprocess.check_call(["cargo", "build", "--release", "--quiet"], cwd=ROOT)
    meta = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT)
    return os.path.join(json.loads(meta)["target_directory"], "release", "flume-rs")


def medians(runs):
    return {key: statistics.median(r[key] for r in runs) for key in runs[0] if key != "scenario"}


def in_turn(scenario, runs, each):
    """Runs them in turn, so that whatever else the machine does meets all, and gives the medians of each."""
    results = {name: [] for name in each}
    for i in range(runs):
        for name, run in each.items():
            print(f"\r{scenario}: run {i + 1} of {runs}, {name}    ", end="", file=sys.stderr, flush=True)
            results[name].append(run())
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return [medians(runs) for runs in results.values()]


def both(scenario, events, ours):
    return {"flume": lambda: bench.run(scenario, events, FLUME), "ours": lambda: bench.run(scenario, events, [ours])}


def throughput(scenario, runs, ours, **more):
    events, least_speed, least_cpu, most_us, most_mb = THROUGHPUT[scenario]
    f, o, *others = in_turn(scenario, runs, {**both(scenario, events, ours), **more})
    speed, cpu = o["events_per_s"] / f["events_per_s"], f["cpu_s"] / o["cpu_s"]
    rss = o["rss_peak_kb"] / 1024
    us = lambda r: r["cpu_s"] / events * 1e6
    print(f"| {scenario}: events/s | {f['events_per_s']:,.0f} | {o['events_per_s']:,.0f} | {speed:.1f}x | at least {least_speed}x"
          f"{verdict(scenario, speed >= least_speed)} |")
    target = f"at most 1/{least_cpu}{verdict(scenario + ' cpu', cpu >= least_cpu)}" if least_cpu else ""
    if most_us:
        target = f"at most {most_us} us{verdict(scenario + ' cpu', us(o) <= most_us)}"
    print(f"| {scenario}: CPU us/event | {us(f):.2f} | {us(o):.3f} | 1/{cpu:.0f} | {target} |")
    print(f"| {scenario}: peak RSS MB | {f['rss_peak_kb'] / 1024:.0f} | {rss:.1f} | 1/{f['rss_peak_kb'] / o['rss_peak_kb']:.0f} "
          f"| {f'at most {most_mb} MB' + verdict(scenario + ' rss', rss <= most_mb) if most_mb else ''} |", flush=True)
    return o, *others


class Brokers:
    """One real broker, for as long as it is needed."""
    def __enter__(self):
        os.environ["KAFKA_PORT"] = str(bench.PORT + 40)
        subprocess.check_call([os.path.join(KIT, "kafka.sh"), "start"], stdout=subprocess.DEVNULL)

    def __exit__(self, *_):
        subprocess.check_call([os.path.join(KIT, "kafka.sh"), "stop"])


def ceiling(scenario, runs, ours):
    events, (mode, acks, most) = THROUGHPUT[scenario][0], CEILINGS[scenario]
    topics = itertools.count()

    def smallest():
        topic = f"lines-{events}"
        if mode == "produce":
            topic = f"{scenario}-{next(topics)}"
            bench.new_topic(topic)
        servers = subprocess.check_output([os.path.join(KIT, "kafka.sh"), "brokers"], text=True).strip()
        out = subprocess.check_output(["cargo", "bench", "--quiet", "--bench", "kafka", "--", mode, servers, topic, str(events), acks], cwd=ROOT, text=True)
        return {"seconds": float(out.split()[0])}

    with Brokers():
        o, least = throughput(scenario, runs, ours, smallest=smallest)
    least_s, ours_s = least["seconds"], events / o["events_per_s"]
    print(f"| {scenario}: seconds, smallest client and flume-rs | {least_s:.2f} | {ours_s:.2f} | {ours_s / least_s:.2f}x "
          f"| at most {most}x{verdict(scenario + ' ceiling', ours_s <= least_s * most)} |", flush=True)


def transactional(runs, ours):
    scenarios = ["kafka-all", "kafka-transactional"]
    with Brokers():
        each = {scenario: functools.partial(bench.run, scenario, 1_000_000, [ours]) for scenario in scenarios}
        plain, transactions = in_turn("kafka-transactional", runs, each)
    ratio, rss = transactions["events_per_s"] / plain["events_per_s"], transactions["rss_peak_kb"] / 1024
    print(f"| kafka-transactional: events/s, and those of acks=all | | {transactions['events_per_s']:,.0f}, {plain['events_per_s']:,.0f} "
          f"| {ratio:.2f}x | at least {TRANSACTIONAL}x{verdict('transactional', ratio >= TRANSACTIONAL)} |")
    print(f"| kafka-transactional: peak RSS MB | | {rss:.1f} | | at most {KAFKA_RSS_MB} MB{verdict('transactional rss', rss <= KAFKA_RSS_MB)} |", flush=True)


def durable(runs, ours):
    us = {"memory-1000": [], "file-1000": []}
    for _ in range(runs):
        for scenario, spent in us.items():
            spent.append(bench.run(scenario, 2_000_000, [ours])["cpu_s"] / 2)
    memory, file = statistics.median(us["memory-1000"]), statistics.median(us["file-1000"])
    print(f"| CPU us/event of the file channel, and of the memory channel | | {file:.3f}, {memory:.3f} | {file / memory:.1f}x "
          f"| at most {DURABLE}x{verdict('durable', file <= DURABLE * memory)} |", flush=True)


def first_event(command, config, work):
    """Seconds from the agent's start to the first event that its logger sink prints, and its peak RSS in MB then."""
    begin = time.perf_counter()
    agent = agent_with("open", config, command, work)
    try:
        for line in agent.stdout:
            if b"Event: {" in line:
                seconds = time.perf_counter() - begin
                status = open(f"/proc/{agent.pid}/status").read()
                return seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024
        sys.exit("the agent ended before the first event")
    finally:
        agent.kill()
        agent.wait()


def one_backlog(command, events):
    """The same with so many events in the file channel, by an agent that was killed."""
    work = tempfile.mkdtemp(prefix="backlog-", dir=os.path.join(bench.CACHE, "bench"))
    try:
        config = os.path.join(work, "fill.properties")
        text = configuration("backlog", WORK=work, EVENTS=events, CAPACITY=events + 1000)
        open(config, "w").write(text)
        agent = bench.Agent(config, work, bench.PORT + 1, command)
        bench.wait_for(lambda: (agent.metric("CHANNEL.c1", "EventPutSuccessCount") or 0) >= events, 1800, 0.1)
        agent.stop()
        text = text.replace(f"maxTotalEvents = {events}", "maxTotalEvents = 1").replace("a1.sources = r1", "a1.sources = r1\na1.sinks = k1")
        return first_event(command, text + "a1.sinks.k1.type = logger\na1.sinks.k1.channel = c1\n", work)
    finally:
        shutil.rmtree(work)


def backlog(ours, sizes):
    empty, empty_rss = one_backlog([ours], 1)
    for events in sizes:
        flume = f"{one_backlog(FLUME, events)[0] * 1000:,.0f}" if events <= 1_000_000 else ""
        seconds, rss = one_backlog([ours], events)
        ms, more = seconds * 1000, rss - empty_rss
        print(f"| start to first event, {events:,} waiting, ms | {flume} | {ms:.0f} (one waiting: {empty * 1000:.0f}) | | at most {OPEN_MS} ms{verdict('open', ms <= OPEN_MS)} |")
        print(f"| peak RSS then, MB more than with one waiting | | {more:.1f} | | at most {OPEN_RSS_MB} MB{verdict('open rss', more <= OPEN_RSS_MB)} |", flush=True)


def startup(runs, ours):
    f, o = in_turn("startup", runs, both("startup", 0, ours))
    ms, idle = o["seconds"] * 1000, o["rss_idle_kb"] / 1024
    print(f"| start to port open, ms | {f['seconds'] * 1000:.0f} | {ms:.1f} | 1/{f['seconds'] / o['seconds']:.0f} | at most {START_MS} ms{verdict('start', ms <= START_MS)} |")
    print(f"| idle RSS MB | {f['rss_idle_kb'] / 1024:.0f} | {idle:.1f} | 1/{f['rss_idle_kb'] / o['rss_idle_kb']:.0f} | at most {IDLE_RSS_MB} MB{verdict('idle rss', idle <= IDLE_RSS_MB)} |")
    print(f"| CPU in 10 idle seconds, ms | {f['idle_cpu_s'] * 1000:.0f} | {o['idle_cpu_s'] * 1000:.1f} | | none to be seen{verdict('idle cpu', o['idle_cpu_s'] < 0.002)} |", flush=True)


def agent_with(name, text, command, work):
    config = os.path.join(work, name + ".properties")
    open(config, "w").write(text)
    return subprocess.Popen([*command, "agent", "-n", "a1", "-f", config, "-Dflume.root.logger=INFO,console"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def configuration(name, **values):
    text = open(os.path.join(KIT, "bench", name + ".properties")).read()
    for key, value in {"PORT": bench.PORT, "ACK": "false", "BATCH": 100, **bench.PLAIN, **values}.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def to_logger(text):
    return text.replace("a1.sinks.k1.type = null", "a1.sinks.k1.type = logger").replace("a1.sinks.k1.batchSize = 1000", "")


def one_latency(command, samples, hop):
    """Milliseconds from sending a line to reading it in the logger sink's output, one line at a time."""
    work = tempfile.mkdtemp(prefix="latency-", dir=os.path.join(bench.CACHE, "bench"))
    port = bench.PORT
    if hop:
        agents = [agent_with("b", to_logger(configuration("hop-b")), command, work)]
        bench.wait_for(lambda: bench.accepts(bench.PORT))
        port += 3
        netcat, sink = configuration("netcat", PORT=port), configuration("hop-a")
        netcat = [line for line in netcat.splitlines() if not line.startswith("a1.sinks")]
        sink = [line for line in sink.splitlines() if line.startswith("a1.sinks")]
        agents.append(agent_with("a", "\n".join(netcat + sink), command, work))
        threading.Thread(target=agents[1].stdout.read, daemon=True).start()
    else:
        agents = [agent_with("logger", to_logger(configuration("netcat")), command, work)]
    seen, arrived = threading.Semaphore(0), []

    def read():
        for line in agents[0].stdout:
            if b"Event: {" in line:
                arrived.append(time.perf_counter())
                seen.release()

    threading.Thread(target=read, daemon=True).start()
    try:
        bench.wait_for(lambda: bench.accepts(port))
        times = []
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(samples + 20):
                sent = time.perf_counter()
                s.sendall(b"line %d\n" % i)
                if not seen.acquire(timeout=30):
                    sys.exit("no event within 30 s")
                times.append((arrived[-1] - sent) * 1000)
                time.sleep(0.002)
        times = sorted(times[20:])
        return statistics.median(times), times[int(len(times) * 0.99)]
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()


def latency(ours, hop):
    f50, f99 = one_latency(FLUME, 30 if hop else 500, hop)
    o50, o99 = one_latency([ours], 2000, hop)
    what, most = ("one event, two agents", HOP_LATENCY_MS) if hop else ("one event, netcat to logger", LATENCY_MS)
    print(f"| {what}, ms p50 | {f50:.2f} | {o50:.2f} | | |")
    print(f"| {what}, ms p99 | {f99:.2f} | {o99:.2f} | | at most {most} ms{verdict('hop latency' if hop else 'latency', o99 <= most)} |", flush=True)


def one_crowd(command):
    """CPU percent and RSS in MB of an agent that CLIENTS avro clients are connected to, each with an event a second."""
    work = tempfile.mkdtemp(prefix="clients-", dir=os.path.join(bench.CACHE, "bench"))
    config = os.path.join(work, "b.properties")
    open(config, "w").write(configuration("hop-b"))
    agent = bench.Agent(config, work, bench.PORT + 1, command)
    hello = bytes.fromhex("86aadae2c45474c0fe93ffd0f2350a65") + b"\0" + bytes.fromhex("86aadae2c45474c0fe93ffd0f2350a65") + b"\2\0"
    append = b"\0\x0cappend\2\x08host\x08web1\0" + b"\xc8\1" + b"x" * 100
    pack = lambda serial, message: serial.to_bytes(4, "big") + (1).to_bytes(4, "big") + len(message).to_bytes(4, "big") + message
    try:
        bench.wait_for(lambda: bench.accepts(bench.PORT))
        clients = []
        for i in range(CLIENTS):
            clients.append(socket.create_connection(("127.0.0.1", bench.PORT)))
            clients[-1].sendall(pack(1, hello + append))
            clients[-1].recv(100)
        seconds, serial = 10, 1
        cpu, begin = agent.cpu(), time.monotonic()
        for second in range(seconds):
            serial += 1
            message = pack(serial, append)
            for i, client in enumerate(clients):
                client.sendall(message)
                client.recv(100)
                ahead = begin + second + i / CLIENTS - time.monotonic()
                if ahead > 0.001:
                    time.sleep(ahead)
        percent = (agent.cpu() - cpu) / (time.monotonic() - begin) * 100
        return percent, agent.rss("VmHWM") / 1024
    finally:
        agent.stop()


def clients(ours):
    f, f_rss = one_crowd(FLUME)
    o, o_rss = one_crowd([ours])
    print(f"| 1,000 avro clients, an event a second each: % of a core | {f:.1f} | {o:.1f} | 1/{f / o:.0f} | at most {CLIENTS_CPU_PERCENT} %{verdict('clients cpu', o <= CLIENTS_CPU_PERCENT)} |")
    print(f"| 1,000 avro clients: peak RSS MB | {f_rss:.0f} | {o_rss:.1f} | 1/{f_rss / o_rss:.0f} | at most {CLIENTS_RSS_MB} MB{verdict('clients rss', o_rss <= CLIENTS_RSS_MB)} |", flush=True)


def main():
    scenarios = [*THROUGHPUT, "kafka-transactional", "durable", "backlog", "startup", "latency", "hop-latency", "clients"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(scenarios))
    parser.add_argument("--agent")
    parser.add_argument("--backlogs", default="1000000,10000000,100000000")
    args = parser.parse_args()
    ours = args.agent or build()
    os.makedirs(os.path.join(bench.CACHE, "bench"), exist_ok=True)
    subprocess.check_call([*FLUME, "version"], stdout=subprocess.DEVNULL)  # fetches the jars
    print("| | Flume 1.11.0 | flume-rs | ratio | target |\n|---|---|---|---|---|", flush=True)
    for scenario in args.only.split(","):
        if scenario in CEILINGS:
            ceiling(scenario, args.runs, ours)
        elif scenario == "kafka-chain":
            with Brokers():
                throughput(scenario, args.runs, ours)
        elif scenario == "kafka-transactional":
            transactional(args.runs, ours)
        elif scenario in THROUGHPUT:
            throughput(scenario, args.runs, ours)
        elif scenario == "durable":
            durable(args.runs, ours)
        elif scenario == "backlog":
            backlog(ours, [int(events) for events in args.backlogs.split(",")])
        elif scenario == "startup":
            startup(args.runs, ours)
        elif scenario in ("latency", "hop-latency"):
            latency(ours, scenario == "hop-latency")
        elif scenario == "clients":
            clients(ours)
        else:
            sys.exit("scenarios: " + " ".join(scenarios))
    if missed:
        sys.exit("missed: " + ", ".join(missed))


main()
