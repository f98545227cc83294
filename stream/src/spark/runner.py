"""Runs a job of flume-rs-stream on Spark's Structured Streaming: `spark-submit runner.py JOB.json`."""

import datetime
import decimal
import json
import os
import sqlite3
import sys
import time
import uuid
import zoneinfo

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

TYPES = {"Utf8View": "string", "Int32": "int", "Int64": "bigint", "Float64": "double", "Float32": "float",
         "Boolean": "boolean", "Timestamp(ms)": "timestamp_ntz", "Date32": "date"}

# What is a value for the other engine, where Spark is more generous.
WHOLE, REAL = r"^\s*[+-]?\d+\s*$", r"^\s*[+-]?(\d|\.\d|(?i:inf|nan)).*(?<![dDfF])\s*$"
PATTERNS = {"int": WHOLE, "bigint": WHOLE, "double": REAL, "float": REAL, "date": r"^\d{4}-\d{2}-\d{2}$",
            "timestamp_ntz": r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"}
BOOLEANS = {True: ["t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"],
            False: ["f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"]}
WITH_ZONE = r"[T ]\d{2}:\d{2}.*(Z|[+-]\d{2}:?\d{2})$"


def spark_type(name):
    if name.startswith("Decimal128"):
        return "decimal" + name[len("Decimal128"):]
    return TYPES[name]


def fail(what, error):
    """Ends with the part of the job that Spark has something against."""
    message = str(error).splitlines()
    print(f"{what}: {message[0] if message else error}", file=sys.stderr)
    sys.exit(1)


def records(spark, job, source):
    """The stream of a source's records: a column `value`, and those that the source adds."""
    options = source["source"]
    reader = spark.readStream.format(options["format"])
    for key, value in options["options"].items():
        reader = reader.option(key, value)
    if options["format"] == "kafka":
        reader = reader.option("maxOffsetsPerTrigger", job["max_rows"])
    frame = reader.load(options["path"]) if "path" in options else reader.load()
    if options["format"] == "kafka":
        frame = frame.withColumn("value", F.coalesce(F.col("value").cast("string"), F.lit("")))
        frame = frame.withColumn("key", F.col("key").cast("string"))
    if options["format"] == "text":
        frame = frame.withColumn("value", F.regexp_replace("value", r"\r\z", ""))
    # The zone of the session is UTC.
    for name, kind in frame.dtypes:
        if kind == "timestamp":
            frame = frame.withColumn(name, F.col(name).cast("timestamp_ntz"))
    return frame


def value_of(text, kind):
    """A text as a value of this type, null when it is none."""
    if kind == "string":
        return text
    if kind == "boolean":
        word = F.lower(F.trim(text))
        return F.when(word.isin(BOOLEANS[True]), True).when(word.isin(BOOLEANS[False]), False)
    value = text.try_cast(kind)
    if kind == "timestamp_ntz":
        value = F.when(text.rlike(WITH_ZONE), text.try_cast("timestamp_ltz").cast(kind)).otherwise(value)
        value = F.date_trunc("millisecond", value).cast(kind)
    return F.when(text.rlike(PATTERNS[kind]), value) if kind in PATTERNS else value


def parsed(frame, source):
    """Records with the columns of rows, and what is wrong with those that do not fit: `_time`, `_reason`, `_record`."""
    form, extra = source["format"], [F.col(f"`{name}`") for name in source["source"].get("columns", [])]
    nothing = F.lit(None).cast("string")
    if form["kind"] == "none":
        return frame.select(*extra, F.current_timestamp().cast("timestamp_ntz").alias("_time"),
                            nothing.alias("_reason"), nothing.alias("_record"))
    columns = [(column["name"], column["type"], spark_type(column["type"])) for column in form["columns"]]
    reasons = [F.when(~F.is_valid_utf8("value"), F.lit("it is no UTF-8 text"))]
    if form["kind"] == "lines":
        texts, values = [], [F.col("value")]
    elif form["kind"] == "delimited":
        pattern = "".join(c if c.isalnum() or c == " " else "\\" + c for c in form["delimiter"])
        frame = frame.withColumn("_parts", F.split("value", pattern, -1))
        found = F.size("_parts")
        reason = F.concat(F.lit("it has "), found.cast("string"), F.lit(f" fields, not {len(columns)}"))
        reasons.append(F.when(found != len(columns), reason))
        texts = [F.try_element_at("_parts", F.lit(index + 1)) for index in range(len(columns))]
        values = [value_of(text, kind) for text, (_, _, kind) in zip(texts, columns)]
    else:
        by_text = ("timestamp_ntz", "date")
        schema = ", ".join(f"`{name}` {'string' if kind in by_text else kind}" for name, _, kind in columns)
        read = F.from_json("value", f"{schema}, `_wrong` string", {"columnNameOfCorruptRecord": "_wrong"})
        frame = frame.withColumn("_object", read)
        reasons.append(F.when(F.col("_object").isNull() | F.col("_object._wrong").isNotNull(),
                              F.lit("it is no object of these columns")))
        texts = [F.col("_object").getField(name) for name, _, _ in columns]
        values = [value_of(text, kind) if kind in by_text else text for text, (_, _, kind) in zip(texts, columns)]
    for text, value, (name, ours, kind) in zip(texts, values, columns):
        if kind != "string":
            reason = F.concat(F.lit("`"), text.cast("string"), F.lit(f"` is no {ours} for {name}"))
            reasons.append(F.when(text.isNotNull() & value.isNull(), reason))
    return frame.select(*[value.alias(name) for value, (name, _, _) in zip(values, columns)], *extra,
                        F.current_timestamp().cast("timestamp_ntz").alias("_time"),
                        F.coalesce(*reasons).alias("_reason"), F.make_valid_utf8("value").alias("_record"))


def register(source, frame):
    """Makes a source's rows and rejected records known to SQL."""
    rows = frame.where(F.col("_reason").isNull()).drop("_time", "_reason", "_record")
    rows.createOrReplaceTempView(source["name"])
    wrong = frame.where(F.col("_reason").isNotNull())
    wrong = wrong.select(F.col("_time").alias("time"), F.col("_reason").alias("reason"), F.col("_record").alias("record"))
    wrong.createOrReplaceTempView(source["name"] + "_rejects")


def plain(frame):
    """The same with times that Python leaves as they are."""
    kinds = dict(frame.dtypes)
    local = {name: F.col(f"`{name}`").cast("timestamp_ntz") for name, kind in kinds.items() if kind == "timestamp"}
    return frame.withColumns(local) if local else frame


def shown(value):
    """A value as text, as the other engine writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        unit = "seconds" if not value.microsecond else "microseconds" if value.microsecond % 1000 else "milliseconds"
        return value.isoformat(timespec=unit)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(one) for one in value) + "]"
    return str(value)


def line(row, style, delimiter=","):
    if style == "json":
        return json.dumps(row.asDict(), ensure_ascii=False, separators=(",", ":"), default=shown)
    text = delimiter.join(shown(value) for value in row)
    return f"({text})" if style == "tuple" and len(row) > 1 else text


def table_lines(names, rows):
    cells = [names] + [["" if value is None else shown(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    rule = "+" + "".join("-" * (width + 2) + "+" for width in widths)
    lines = ["|" + "".join(f" {cell.ljust(width)} |" for cell, width in zip(row, widths)) for row in cells]
    return [rule, lines[0], rule, *lines[1:], rule]


def print_rows(job, options, frame, millis):
    limit = options["rows"]
    found = frame.take(limit + 1)
    moment = f"{millis} ms"
    if options["is_local"]:
        local = datetime.datetime.fromtimestamp(millis / 1000, zoneinfo.ZoneInfo(job["time_zone"])).replace(tzinfo=None)
        moment = shown(local).replace("T", " ")
    rule = "-" * 43
    shown_rows = found[:limit]
    if options["style"] == "table":
        rows = table_lines(frame.columns, shown_rows)
    else:
        rows = [line(row, options["style"]) for row in shown_rows]
    print("\n".join([rule, f"Time: {moment}", rule, *rows, *(["..."] if len(found) > limit else []), ""]), flush=True)


def write_text(options, frame, millis):
    """A file that appears whole."""
    rows = [line(row, options["style"], options["delimiter"]) + "\n" for row in frame.toLocalIterator()]
    if not rows:
        return
    os.makedirs(options["folder"], exist_ok=True)
    name = f"{options['prefix']}-{millis}" + (f".{options['suffix']}" if options["suffix"] is not None else "")
    beside = os.path.join(options["folder"], f".{name}.tmp")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        file.writelines(rows)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, os.path.join(options["folder"], name))


def write_kafka(options, frame):
    def text(name, kind):
        column = F.col(f"`{name}`")
        if kind.startswith("timestamp"):
            return F.regexp_replace(column.cast("timestamp_ntz").cast("string"), " ", "T")
        return column

    columns = {name: text(name, kind) for name, kind in frame.dtypes}
    if options["value"]:
        value = columns[options["value"]].cast("string")
    else:
        value = F.to_json(F.struct(*[column.alias(name) for name, column in columns.items()]))
    message = [value.alias("value")]
    if options["key"]:
        message.append(columns[options["key"]].cast("string").alias("key"))
    writer = frame.select(*message).write.format("kafka").option("topic", options["topic"])
    for key, option in options["options"].items():
        writer = writer.option(key, option)
    writer.save()


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


NUMBERS = {"tinyint": "INTEGER", "smallint": "INTEGER", "int": "INTEGER", "bigint": "INTEGER", "boolean": "INTEGER",
           "double": "REAL", "float": "REAL", "binary": "BLOB"}


def database_of(job, options):
    return options["path"] or os.path.join(job["checkpoint"], "job.db")


def write_sqlite(job, sink, frame, batch):
    """Into a database on the machine of the driver, together with the number of the batch: each is there once."""
    options = sink["sink"]
    database = sqlite3.connect(database_of(job, options), timeout=60)
    columns = [f"{quoted(name)} {NUMBERS.get(kind, 'TEXT')}" for name, kind in frame.dtypes]
    key = ", ".join(quoted(name) for name in options["key"])
    if key:
        columns.append(f"PRIMARY KEY ({key})")
    table, owner = quoted(options["table"]), f"{job['name']}.{sink['name']}"
    verb = "INSERT OR REPLACE" if key else "INSERT"
    names, marks = ", ".join(quoted(name) for name in frame.columns), ", ".join("?" * len(frame.columns))
    stored = (int, float, str, bytes, bytearray, type(None))
    # Spark works them out before anybody else has to wait for the database.
    rows = [[value if isinstance(value, stored) else shown(value) for value in row] for row in frame.toLocalIterator()]
    try:
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE IF NOT EXISTS flume_rs_spark (sink TEXT PRIMARY KEY, batch TEXT NOT NULL)")
            if database.execute("SELECT 1 FROM flume_rs_spark WHERE (sink, batch) = (?, ?)", (owner, batch)).fetchone():
                return
            database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)})")
            if sink["whole"] and key:
                database.execute(f"DELETE FROM {table}")
            database.executemany(f"{verb} INTO {table} ({names}) VALUES ({marks})", rows)
            database.execute("REPLACE INTO flume_rs_spark VALUES (?, ?)", (owner, batch))
    finally:
        database.close()


def read_json(path, row):
    """A row of one of the small files that Spark keeps in the checkpoint."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.loads(file.read().splitlines()[row])
    except (OSError, IndexError, ValueError):
        return {}


def write(job, sink, rows, millis, batch):
    options = sink["sink"]
    if options["type"] == "print":
        print_rows(job, options, rows, millis)
    elif options["type"] == "text":
        write_text(options, rows, millis)
    elif options["type"] == "kafka":
        write_kafka(options, rows)
    else:
        write_sqlite(job, sink, rows, batch)


# What sinks have failed with, which Spark buries in its own message.
failures = []


def start(job, query, frame, make_known):
    """A query, which gives each batch to its sinks."""
    home = job["checkpoint"] and os.path.join(job["checkpoint"], "spark", query["name"])
    of_run = uuid.uuid4().hex

    def batch(found, number):
        # The time of a batch is the same when it is worked on again.
        noted = read_json(os.path.join(home, "offsets", str(number)), 1) if home else {}
        millis = noted.get("batchTimestampMs") or int(time.time() * 1000)
        query_id = read_json(os.path.join(home, "metadata"), 0).get("id", of_run) if home else of_run
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=millis)
        session, arguments = found.sparkSession, {"batch_time": moment.isoformat(" ")}
        found.persist()
        try:
            make_known(found)
            for view in query["views"]:
                session.sql(view["sql"], arguments).createOrReplaceTempView(view["name"])
            for sink in query["sinks"]:
                try:
                    result = plain(session.sql(sink["sql"], arguments) if sink["sql"] else session.table(sink["from"]))
                    write(job, sink, result, millis, f"{query_id} {number}")
                except Exception as error:
                    failures.append((f"sink {sink['name']}", error))
                    raise
        finally:
            found.unpersist()

    writer = frame.writeStream.queryName(query["name"]).outputMode(query["mode"]).foreachBatch(batch)
    if home:
        writer = writer.option("checkpointLocation", home)
    if job["once"]:
        writer = writer.trigger(availableNow=True)
    elif job["interval"]:
        writer = writer.trigger(processingTime=f"{job['interval']} milliseconds")
    return writer.start()


def table_of(spark, table):
    """The frame of a table."""
    for view in table["views"]:
        spark.sql(view["sql"]).createOrReplaceTempView(view["name"])
    event = table["event"]
    if not event:
        return spark.sql(table["sql"])
    over = spark.table(event["over"])
    # A watermark is of a time with a zone only.
    windowed = over.withColumn("_event", F.col(f"`{event['time']}`").cast("timestamp_ltz"))
    window = F.window("_event", f"{event['window']} milliseconds", f"{event['slide']} milliseconds")
    windowed = windowed.withWatermark("_event", f"{event['delay']} milliseconds").withColumn("_window", window)
    bounds = {f"window_{bound}": F.col(f"_window.{bound}").cast("timestamp_ntz") for bound in ("start", "end")}
    windowed = windowed.withColumns(bounds)
    windowed.createOrReplaceTempView(event["over"])
    found = spark.sql(table["sql"])
    over.createOrReplaceTempView(event["over"])
    return found


def prepare(job):
    """Makes the folder of the checkpoint, unless it is the other engine's."""
    if not job["checkpoint"]:
        return
    os.makedirs(job["checkpoint"], exist_ok=True)
    path = os.path.join(job["checkpoint"], "job.db")
    if os.path.exists(path):
        database = sqlite3.connect(path)
        theirs = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'flume_rs_job'").fetchone()
        database.close()
        if theirs:
            fail(f"the checkpoint {job['checkpoint']}", "is of the embedded engine; choose another folder")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    prepare(job)
    spark = SparkSession.builder.appName(job["name"]).getOrCreate()
    settings = {
        # As the other engine does: what cannot be worked out is an error, unless try_cast and its like say otherwise.
        "spark.sql.ansi.enabled": "true",
        "spark.sql.ansi.doubleQuotedIdentifiers": "true",
        "spark.sql.timestampType": "TIMESTAMP_NTZ",
        # Times without a zone and those of UTC are the same then.
        "spark.sql.session.timeZone": "UTC",
        # Streams cannot have it.
        "spark.sql.adaptive.enabled": "false",
    }
    if not spark.sparkContext.getConf().contains("spark.sql.shuffle.partitions"):
        settings["spark.sql.shuffle.partitions"] = str(spark.sparkContext.defaultParallelism)
    for key, value in settings.items():
        spark.conf.set(key, value)
    sources = {}
    for source in job["sources"]:
        try:
            frame = parsed(records(spark, job, source), source)
            register(source, frame)
        except Exception as error:
            fail(f"source {source['name']}", error)
        sources[source["name"]] = (source, frame)
    tables = {}
    for table in job["tables"]:
        try:
            tables[table["name"]] = table_of(spark, table)
        except Exception as error:
            fail(f"table {table['name']}", error)
    queries = []
    for query in job["queries"]:
        of = query["of"]
        if query["kind"] == "source":
            source, frame = sources[of]
            make_known = lambda found, source=source: register(source, found)
        else:
            frame = tables[of]
            make_known = lambda found, of=of: found.createOrReplaceTempView(of)
        try:
            queries.append(start(job, query, frame, make_known))
        except Exception as error:
            fail(query["name"], error)
    try:
        if job["once"]:
            for query in queries:
                query.awaitTermination()
        else:
            spark.streams.awaitAnyTermination()
    except Exception as error:
        fail(*(failures[0] if failures else ("Spark", error)))


main()
