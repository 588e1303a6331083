#!/bin/sh
# Builds Pebble, the ACME CA that tests talk to, and its DNS server, into .venv/bin. The version is pinned, and Go checks
# what it downloads against its checksum database. Does nothing when that version is there.
set -eu
cd "$(dirname "$0")/.."

version=v2.8.0
stamp=.venv/.stamp-pebble
[ -x .venv/bin/pebble ] && [ -x .venv/bin/pebble-challtestsrv ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ] && exit 0

go=$(command -v go || true)
[ -n "$go" ] || { [ -x /usr/local/go/bin/go ] && go=/usr/local/go/bin/go; } || {
    echo 'pebble: missing: Go 1.23 or newer (https://go.dev/dl/); the tests against a real CA need it' >&2
    exit 1
}
echo "pebble: building $version"
GOBIN="$PWD/.venv/bin" "$go" install "github.com/letsencrypt/pebble/v2/cmd/pebble@$version" \
    "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@$version"
printf '%s\n' "$version" >"$stamp"
