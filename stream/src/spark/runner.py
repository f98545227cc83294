"""Runs a job of flume-rs-stream on Spark's Structured Streaming: `spark-submit runner.py JOB.json`."""

import json
import os
import sqlite3
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

TYPES = {"Utf8View": "string", "Int32": "int", "Int64": "bigint", "Float64": "double", "Float32": "float",
         "Boolean": "boolean", "Timestamp(ms)": "timestamp", "Date32": "date"}


def spark_type(name):
    if name.startswith("Decimal128"):
        return "decimal" + name[len("Decimal128"):]
    return TYPES[name]


def fail(what, error):
    """Ends with the part of the job that Spark has something against."""
    message = str(error).splitlines()
    print(f"{what}: {message[0] if message else error}", file=sys.stderr)
    sys.exit(1)


def records(spark, source):
    """The stream of a source's records: a column `value`, and those that the source adds."""
    options = source["source"]
    reader = spark.readStream.format(options["format"])
    for key, value in options["options"].items():
        reader = reader.option(key, value)
    frame = reader.load(options["path"]) if "path" in options else reader.load()
    if options["format"] == "kafka":
        frame = frame.withColumn("value", F.col("value").cast("string"))
    return frame


def rows(frame, form):
    """Rows with the format's columns, and the records that do not fit."""
    kind, columns = form["kind"], form["columns"]
    if kind == "none":
        return frame, None
    if kind == "lines":
        return frame.select(F.col("value").alias(columns[0]["name"])), None
    if kind == "delimited":
        pattern = "".join(c if c.isalnum() or c == " " else "\\" + c for c in form["delimiter"])
        frame = frame.withColumn("_parts", F.split("value", pattern, -1))
        fits = F.size("_parts") == len(columns)
        for index, column in enumerate(columns):
            part = F.try_element_at("_parts", F.lit(index + 1))
            frame = frame.withColumn(f"_{index}", part.try_cast(spark_type(column["type"])))
            fits = fits & F.coalesce(F.col(f"_{index}").isNotNull(), F.lit(False))
    else:
        schema = ", ".join(f"`{c['name']}` {spark_type(c['type'])}" for c in columns)
        parsed = F.from_json("value", f"{schema}, _wrong string", {"columnNameOfCorruptRecord": "_wrong"})
        frame = frame.withColumn("_object", parsed)
        fits = F.col("_object").isNotNull() & F.col("_object._wrong").isNull()
        for index, column in enumerate(columns):
            frame = frame.withColumn(f"_{index}", F.col("_object").getField(column["name"]))
    right = frame.where(fits).select(*[F.col(f"_{i}").alias(c["name"]) for i, c in enumerate(columns)])
    wrong = frame.where(~fits).select(F.current_timestamp().alias("time"), F.lit("it does not fit the columns").alias("reason"),
                                      F.col("value").alias("record"))
    return right, wrong


def print_rows(options, frame):
    limit = options.get("rows", 10)
    found = frame.limit(limit + 1).collect()
    rule = "-" * 43
    lines = [rule, f"Time: {int(time.time() * 1000)} ms", rule]
    for row in found[:limit]:
        text = ",".join("null" if value is None else str(value) for value in row)
        lines.append(text if len(row) == 1 else f"({text})")
    print("\n".join(lines + (["..."] if len(found) > limit else []) + [""]), flush=True)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def write_sqlite(options, frame, checkpoint):
    """Into the job's database, on the machine of the driver."""
    os.makedirs(checkpoint, exist_ok=True)
    database = sqlite3.connect(os.path.join(checkpoint, "job.db"))
    numbers = {"bigint": "INTEGER", "int": "INTEGER", "boolean": "INTEGER", "double": "REAL", "float": "REAL"}
    columns = [f"{quoted(name)} {numbers.get(kind, 'TEXT')}" for name, kind in frame.dtypes]
    key = ", ".join(quoted(name) for name in options["key"])
    if key:
        columns.append(f"PRIMARY KEY ({key})")
    with database:
        table = quoted(options["table"])
        database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)})")
        verb = "INSERT OR REPLACE" if key else "INSERT"
        marks = ", ".join("?" * len(frame.columns))
        plain = (int, float, str, type(None))
        values = ([v if isinstance(v, plain) else str(v) for v in row] for row in frame.toLocalIterator())
        database.executemany(f"{verb} INTO {table} VALUES ({marks})", values)
    database.close()


def write(sink, frame, checkpoint):
    options = sink["sink"]
    if options["type"] == "print":
        print_rows(options, frame)
    elif options["type"] == "sqlite":
        write_sqlite(options, frame, checkpoint)
    else:
        fail(f"sink {sink['name']}", f"there is no {options['type']} on Spark")


def start(job, name, frame, mode, sinks, registered):
    """One query, which gives each batch to the sinks."""

    def batch(found, number):
        found.persist()
        found.createOrReplaceTempView(registered)
        for sink in sinks:
            result = found.sparkSession.sql(sink["sql"]) if sink["sql"] else found
            write(sink, result, job["checkpoint"] or ".")
        found.unpersist()

    writer = frame.writeStream.queryName(name).outputMode(mode).foreachBatch(batch)
    if job["checkpoint"]:
        writer = writer.option("checkpointLocation", os.path.join(job["checkpoint"], "spark", name))
    if job["once"]:
        writer = writer.trigger(availableNow=True)
    elif job["interval"]:
        writer = writer.trigger(processingTime=f"{job['interval']} milliseconds")
    return writer.start()


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    spark = SparkSession.builder.appName(job["name"]).getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    # As the other engine does: what cannot be worked out is an error, unless try_cast and its like say otherwise.
    spark.conf.set("spark.sql.ansi.enabled", "true")
    if job["time_zone"]:
        spark.conf.set("spark.sql.session.timeZone", job["time_zone"])
    for source in job["sources"]:
        try:
            right, wrong = rows(records(spark, source), source["format"])
            right.createOrReplaceTempView(source["name"])
            if wrong is not None:
                wrong.createOrReplaceTempView(source["name"] + "_rejects")
        except Exception as error:
            fail(f"source {source['name']}", error)
    tables = {}
    for relation in job["relations"]:
        try:
            frame = spark.sql(relation["sql"])
            frame.createOrReplaceTempView(relation["name"])
        except Exception as error:
            fail(relation["name"], error)
        if relation["is_table"]:
            tables[relation["name"]] = frame
    queries = []
    by_table = {}
    for sink in job["sinks"]:
        read = [name for name in sink["reads"] if name in tables]
        if len(read) > 1 or (read and len(sink["reads"]) > 1):
            fail(f"sink {sink['name']}", "on Spark a sink reads one table, and nothing else with it")
        try:
            if read:
                whole = sink["all"] or sink["sql"] is not None
                by_table.setdefault((read[0], whole), []).append(sink)
            else:
                frame = spark.sql(sink["sql"]) if sink["sql"] else spark.table(sink["from"])
                queries.append(start(job, f"sink_{sink['name']}", frame, "append", [dict(sink, sql=None)], f"batch_of_{sink['name']}"))
        except Exception as error:
            fail(f"sink {sink['name']}", error)
    for (table, whole), sinks in by_table.items():
        mode = "complete" if whole else "update"
        try:
            queries.append(start(job, f"table_{table}_{mode}", tables[table], mode, sinks, table))
        except Exception as error:
            fail(table, error)
    try:
        for query in queries:
            if job["once"]:
                query.awaitTermination()
        if not job["once"]:
            spark.streams.awaitAnyTermination()
    except Exception as error:
        fail("Spark", error)


main()
