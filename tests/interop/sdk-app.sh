#!/usr/bin/env bash
# An application with Flume's client library: RpcClientFactory makes a client of several agents and sends N events
# in batches, each batch again until it is accepted:   sdk-app.sh CLIENT_TYPE N HOST:PORT…
# CLIENT_TYPE: default_failover or default_loadbalance.  SDK_VERSION: 1.11.0 (default), 1.9.0 or 1.6.0.
. "$(dirname "$0")/lib.sh"
[ $# -ge 4 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
lib=$(jars "flume-${SDK_VERSION:-1.11.0}")
foreground "$JAVA" -cp "$KIT/flume:$(classes sdk-app "$lib"):$lib/*" SendBatches "$@"
