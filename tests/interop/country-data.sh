#!/usr/bin/env bash
# Prints the path of a database of IP addresses and countries, fetched by npm if it is not there: the CC0 data of
# @ip-location-db/geo-whois-asn-country-mmdb.
set -euo pipefail
home=${INTEROP_HOME:-$HOME/.cache/flume-interop}/country-data
file=geo-whois-asn-country-ipv4.mmdb
if [ ! -s "$home/$file" ]; then
  mkdir -p "$home"
  work=$(mktemp -d "$home/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && npm pack --silent @ip-location-db/geo-whois-asn-country-mmdb >/dev/null && tar -xzf ./*.tgz "package/$file")
  mv "$work/package/$file" "$home/$file"
fi
echo "$home/$file"
