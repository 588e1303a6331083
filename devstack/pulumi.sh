#!/bin/sh
# Builds Pulumi's command line into .venv/bin, for `make infra-full`. The version is pinned, and Go checks what it
# downloads against its checksum database. About 10 minutes of one core the first time; nothing when it is there.
#
# `go install` refuses the module, because it replaces its own SDK by a folder beside it: so it is built as a dependency.
set -eu
cd "$(dirname "$0")/.."

version=v3.274.1
stamp=.venv/.stamp-pulumi
[ -x .venv/bin/pulumi ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ] && exit 0

go=$(command -v go || true)
[ -n "$go" ] || { [ -x /usr/local/go/bin/go ] && go=/usr/local/go/bin/go; } || {
    echo 'pulumi: missing: Go 1.26.6 or newer (https://go.dev/dl/); the tests with the real command line need it' >&2
    exit 1
}
echo "pulumi: building $version"
target=$PWD/.venv/bin/pulumi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(
    cd "$work"
    # A hundred lines of what was added are of interest only where something could not be.
    { "$go" mod init pulumi-cli && "$go" get "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi@$version"; } >said 2>&1 || {
        cat said >&2
        exit 1
    }
    "$go" build -mod=mod -ldflags "-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$version" \
        -o "$target" github.com/pulumi/pulumi/pkg/v3/cmd/pulumi
)
printf '%s\n' "$version" >"$stamp"
