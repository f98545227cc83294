#!/usr/bin/env bash
# Fetches jars into the cache, so that a later start takes no longer than the program itself:
#   fetch.sh NAME…      the names of poms/, without .xml
. "$(dirname "$0")/lib.sh"
for name in "$@"; do jars "$name"; done
