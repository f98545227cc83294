#!/usr/bin/env python3
"""Measures flume-rs-stream beside Spark's Structured Streaming: one job file, one topic, one run, and the ratios.

    stream/benches/compare.py [--rows N] [--keys N] [--job PATH] [--agent PATH]

Starts a Kafka broker, fills a topic with lines of an access log of about 100 bytes, and has both engines count clicks by
day and product in ten batches: six products as in the log of the examples, and, for the memory, a hundred thousand keys.
Each engine also runs on a topic of one line: the difference is the work, the rest the start. Prints Markdown rows and
"missed" where a target is; exits with 1 when one is. Needs a JDK and Python's venv; fetches Kafka by Maven and Spark by
pip at the first use. Binaries: `cargo build --release` and
`cargo build --profile stream -p flume-rs-stream`, unless --agent and --job name them.
"""
import argparse, json, os, random, shutil, socket, sqlite3, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KIT = os.path.join(ROOT, "tests", "interop")
KAFKA = os.path.join(KIT, "kafka.sh")
SPARK = os.path.join(KIT, "servers", "spark-submit.sh")
# How many times the rows a second, which part of the CPU a row and of the memory, and seconds to the first result.
FASTER, CPU, MEMORY, MEMORY_MB, START, SIZE_MB = 12, 20, 8, 110, 0.5, 90
missed = []

JOB = """
batch = "arrival"
checkpoint = "state"
max-rows = {max_rows}
time-zone = "UTC"

[source.logs]
type = "kafka"
servers = "127.0.0.1:{port}"
topics = ["{topic}"]
start = "earliest"
max-waiting = 8388608
format = "delimited"
columns = ["ip text", "time timestamp", "request text", "status int", "referer text"]

[view.clean]
sql = "select cast(time as date) as day, try_cast(split_part(split_part(split_part(request, ' ', 2), '/', 3), '.', 1) as int) as product from logs where request like '%/product/%'"

[table.clicks]
sql = "select replace(cast(day as string), '-', '') as day, product, count(*) as clicks from clean where product <> 0 group by day, product"

[sink.clicks]
type = "sqlite"
from = "clicks"
table = "clicks"
key = ["day", "product"]
"""

CHAIN = """
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = exec
a1.sources.r1.command = cat {lines}
a1.sources.r1.batchSize = 1000
a1.sources.r1.channels = c1
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000
a1.sinks.k1.type = org.apache.flume.sink.kafka.KafkaSink
a1.sinks.k1.kafka.bootstrap.servers = 127.0.0.1:{port}
a1.sinks.k1.kafka.topic = {topic}
a1.sinks.k1.flumeBatchSize = 10000
a1.sinks.k1.channel = c1
"""


def verdict(name, good):
    if not good:
        missed.append(name)
    return "" if good else " (missed)"


def target():
    meta = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT)
    return json.loads(meta)["target_directory"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def write_lines(path, rows, keys):
    """Lines of an access log: six of nine are clicks on a product."""
    chance = random.Random(7)
    others = ["category/samsung-phones/505988.html", "services/geek-squad-services.html", "search?search=games.html"]
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(rows):
            page = f"product/{14000000 + chance.randrange(keys)}.html" if chance.random() < 2 / 3 else chance.choice(others)
            ip = ".".join(str(chance.randrange(1, 255)) for _ in range(4))
            day = chance.randrange(20, 30)
            referer = "-" if chance.random() < 0.8 else "https://www.bing.com/search?q=ps4"
            out.write(f'{ip}\t2020-05-{day} 15:50:25\t"GET /{page} HTTP/1.1"\t200\t{referer}\n')


def fill(agent, work, port, topic, path, rows):
    conf = os.path.join(work, topic + ".conf")
    with open(conf, "w", encoding="utf-8") as out:
        out.write(CHAIN.format(lines=path, port=port, topic=topic))
    process = subprocess.Popen([agent, "agent", "--name", "a1", "--conf-file", conf, "-Dflume.root.logger=ERROR,console"])
    end = time.time() + 300
    while in_topic(port, topic, work) < rows:
        if time.time() > end or process.poll() is not None:
            sys.exit(f"the topic {topic} does not fill")
        time.sleep(0.5)
    process.terminate()
    process.wait()


def in_topic(port, topic, work):
    env = dict(os.environ, KAFKA_PORT=str(port), KAFKA_DIR=os.path.join(work, "kafka"))
    said = subprocess.run([KAFKA, "offsets", topic], env=env, capture_output=True, text=True)
    return sum(int(line.rsplit(":", 1)[1]) for line in said.stdout.split() if line.startswith(topic + ":"))


def run(command, job, work, name, topic, port, max_rows):
    """Seconds, CPU seconds and MB at the peak of one run, and its counts."""
    folder = os.path.join(work, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    path = os.path.join(folder, "job.toml")
    with open(path, "w", encoding="utf-8") as out:
        out.write(JOB.format(port=port, topic=topic, max_rows=max_rows))
    with open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
        began = time.time()
        process = subprocess.Popen([*command, "run", "--once", path, *job], stdout=log, stderr=log, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.time() - began
    if status != 0:
        with open(os.path.join(folder, "log"), encoding="utf-8") as log:
            sys.exit(f"{name} failed:\n{log.read()[-2000:]}")
    database = sqlite3.connect(os.path.join(folder, "state", "job.db"))
    counts = sorted(database.execute("select * from clicks"))
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--keys", type=int, default=10_000, help="products where memory is measured; there are ten days")
    parser.add_argument("--job", help="the binary flume-rs-stream")
    parser.add_argument("--agent", help="the binary flume-rs, which fills the topic")
    options = parser.parse_args()
    job = options.job or os.path.join(target(), "stream", "flume-rs-stream")
    agent = options.agent or os.path.join(target(), "release", "flume-rs")
    work = tempfile.mkdtemp(prefix="flume-rs-stream-bench-")
    port = free_port()
    env = dict(os.environ, KAFKA_PORT=str(port), KAFKA_DIR=os.path.join(work, "kafka"))
    try:
        subprocess.check_call([KAFKA, "start", "1"], env=env, stdout=subprocess.DEVNULL)
        for topic, rows, keys in (("many", options.rows, 6), ("wide", options.rows, options.keys), ("one", 1, 1)):
            lines = os.path.join(work, topic + ".txt")
            write_lines(lines, rows, keys)
            fill(agent, work, port, topic, lines, rows)
        found = {}
        spark = ["--engine", "spark", "--master", "local[2]", "--spark-submit", SPARK]
        for name, arguments in (("ours", []), ("spark", spark)):
            short = run([job], arguments, work, name + "-one", "one", port, options.rows // 10)
            long = run([job], arguments, work, name + "-many", "many", port, options.rows // 10)
            wide = run([job], arguments, work, name + "-wide", "wide", port, options.rows // 10)
            work_seconds, work_cpu = long[0] - short[0], long[1] - short[1]
            found[name] = {"rate": options.rows / work_seconds, "us": work_cpu / options.rows * 1e6, "us in all": long[1] / options.rows * 1e6,
                           "start": short[0], "counts": long[3], "mb": wide[2], "wide": wide[3]}
        ours, theirs = found["ours"], found["spark"]
        print(f"| {options.rows:,} rows | ours | Spark 4.0, local[2] | ratio |")
        print("|---|---:|---:|---:|")
        ratio = ours["rate"] / theirs["rate"]
        print(f"| rows a second | {ours['rate']:,.0f} | {theirs['rate']:,.0f} | {ratio:.1f}x{verdict('rows a second', ratio >= FASTER)} |")
        ratio = theirs["us in all"] / ours["us in all"]
        print(f"| CPU a row, start and all | {ours['us in all']:.2f} us | {theirs['us in all']:.2f} us | 1/{ratio:.0f}{verdict('CPU', ratio >= CPU)} |")
        print(f"| CPU a row, without the start | {ours['us']:.2f} us | {theirs['us']:.2f} us | 1/{theirs['us'] / ours['us']:.0f} |")
        ratio = theirs["mb"] / ours["mb"]
        good = ratio >= MEMORY and ours["mb"] <= MEMORY_MB
        print(f"| memory at the peak with {len(ours['wide']):,} keys | {ours['mb']:.0f} MB | {theirs['mb']:.0f} MB | 1/{ratio:.1f}{verdict('memory', good)} |")
        size = os.path.getsize(job) / 1e6
        print(f"| the program | {size:.0f} MB | | {verdict('size', size <= SIZE_MB).strip()} |")
        print(f"| start to first result and end | {ours['start']:.2f} s | {theirs['start']:.2f} s |{verdict('start', ours['start'] <= START)} |")
        if ours["counts"] != theirs["counts"] or ours["wide"] != theirs["wide"]:
            sys.exit("the engines have different counts")
    finally:
        subprocess.run([KAFKA, "stop"], env=env, stdout=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)
    if missed:
        sys.exit("missed: " + ", ".join(missed))


main()
