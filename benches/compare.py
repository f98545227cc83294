#!/usr/bin/env python3
"""Measures flume-rs beside the real Flume: the same configurations, the same load, one run, and the ratios.

    benches/compare.py [--runs N] [--only SCENARIO,…] [--agent PATH]

Builds the release binary unless --agent names one, fetches Flume's jars by Maven at the first use (needs a JDK), and
runs both in turn. Prints one Markdown row a scenario with the medians, and "missed" where a target is. Exits with 1
when one is. Scenarios: netcat, netcat-ack, roll (exec to file_roll), startup, latency.
"""
import argparse, json, os, socket, statistics, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KIT = os.path.join(ROOT, "tests", "interop")
sys.path.insert(0, os.path.join(KIT, "bench"))
import bench  # noqa: E402

FLUME = [os.path.join(KIT, "flume.sh")]
# scenario: (events, least ratio of events a second, least ratio of CPU an event)
THROUGHPUT = {"netcat": (4_000_000, 6, 10), "netcat-ack": (4_000_000, 8, 15), "roll": (4_000_000, 5, 8)}
PEAK_RSS_MB, IDLE_RSS_MB, START_MS, LATENCY_MS = 16, 8, 20, 2
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


def both(scenario, events, runs, ours):
    """Runs both in turn, so that whatever else the machine does meets both."""
    results = {"flume": [], "ours": []}
    for i in range(runs):
        for name, command in (("flume", FLUME), ("ours", [ours])):
            print(f"\r{scenario}: run {i + 1} of {runs}, {name}    ", end="", file=sys.stderr, flush=True)
            results[name].append(bench.run(scenario, events, command))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return medians(results["flume"]), medians(results["ours"])


def throughput(scenario, runs, ours):
    events, least_speed, least_cpu = THROUGHPUT[scenario]
    f, o = both(scenario, events, runs, ours)
    speed, cpu = o["events_per_s"] / f["events_per_s"], f["cpu_s"] / o["cpu_s"]
    rss = o["rss_peak_kb"] / 1024
    us = lambda r: r["cpu_s"] / events * 1e6
    print(f"| {scenario}: events/s | {f['events_per_s']:,.0f} | {o['events_per_s']:,.0f} | {speed:.1f}x | at least {least_speed}x"
          f"{verdict(scenario, speed >= least_speed)} |")
    print(f"| {scenario}: CPU us/event | {us(f):.2f} | {us(o):.3f} | 1/{cpu:.0f} | at most 1/{least_cpu}{verdict(scenario + ' cpu', cpu >= least_cpu)} |")
    print(f"| {scenario}: peak RSS MB | {f['rss_peak_kb'] / 1024:.0f} | {rss:.1f} | 1/{f['rss_peak_kb'] / o['rss_peak_kb']:.0f} "
          f"| at most {PEAK_RSS_MB} MB{verdict(scenario + ' rss', rss <= PEAK_RSS_MB)} |", flush=True)


def startup(runs, ours):
    f, o = both("startup", 0, runs, ours)
    ms, idle = o["seconds"] * 1000, o["rss_idle_kb"] / 1024
    print(f"| start to port open, ms | {f['seconds'] * 1000:.0f} | {ms:.1f} | 1/{f['seconds'] / o['seconds']:.0f} | at most {START_MS} ms{verdict('start', ms <= START_MS)} |")
    print(f"| idle RSS MB | {f['rss_idle_kb'] / 1024:.0f} | {idle:.1f} | 1/{f['rss_idle_kb'] / o['rss_idle_kb']:.0f} | at most {IDLE_RSS_MB} MB{verdict('idle rss', idle <= IDLE_RSS_MB)} |")
    print(f"| CPU in 10 idle seconds, ms | {f['idle_cpu_s'] * 1000:.0f} | {o['idle_cpu_s'] * 1000:.1f} | | none to be seen{verdict('idle cpu', o['idle_cpu_s'] < 0.002)} |", flush=True)


def one_latency(command, samples):
    """Milliseconds from sending a line to reading it in the logger sink's output, one line at a time."""
    work = tempfile.mkdtemp(prefix="latency-", dir=os.path.join(bench.CACHE, "bench"))
    text = open(os.path.join(KIT, "bench", "netcat.properties")).read().replace("@PORT@", str(bench.PORT)).replace("@ACK@", "false")
    text = text.replace("a1.sinks.k1.type = null", "a1.sinks.k1.type = logger").replace("a1.sinks.k1.batchSize = 1000", "")
    config = os.path.join(work, "logger.properties")
    open(config, "w").write(text)
    process = subprocess.Popen([*command, "agent", "-n", "a1", "-f", config, "-Dflume.root.logger=INFO,console"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, arrived = threading.Semaphore(0), []

    def read():
        for line in process.stdout:
            if b"Event: {" in line:
                arrived.append(time.perf_counter())
                seen.release()

    threading.Thread(target=read, daemon=True).start()
    try:
        bench.wait_for(lambda: bench.accepts(bench.PORT))
        times = []
        with socket.create_connection(("127.0.0.1", bench.PORT)) as s:
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
        process.kill()
        process.wait()


def latency(ours):
    f50, f99 = one_latency(FLUME, 500)
    o50, o99 = one_latency([ours], 2000)
    print(f"| one event, netcat to logger, ms p50 | {f50:.2f} | {o50:.2f} | | |")
    print(f"| one event, netcat to logger, ms p99 | {f99:.2f} | {o99:.2f} | | at most {LATENCY_MS} ms{verdict('latency', o99 <= LATENCY_MS)} |", flush=True)


def main():
    scenarios = [*THROUGHPUT, "startup", "latency"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(scenarios))
    parser.add_argument("--agent")
    args = parser.parse_args()
    ours = args.agent or build()
    os.makedirs(os.path.join(bench.CACHE, "bench"), exist_ok=True)
    subprocess.check_call([*FLUME, "version"], stdout=subprocess.DEVNULL)  # fetches the jars
    print("| | Flume 1.11.0 | flume-rs | ratio | target |\n|---|---|---|---|---|", flush=True)
    for scenario in args.only.split(","):
        if scenario in THROUGHPUT:
            throughput(scenario, args.runs, ours)
        elif scenario == "startup":
            startup(args.runs, ours)
        elif scenario == "latency":
            latency(ours)
        else:
            sys.exit("scenarios: " + " ".join(scenarios))
    if missed:
        sys.exit("missed: " + ", ".join(missed))


main()
