#!/usr/bin/env bash
# spark-submit of a real Spark 4 with Kafka, for --spark-submit.
exec "$(dirname "$0")/spark-connect.sh" submit "$@"
