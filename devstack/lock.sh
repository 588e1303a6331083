#!/bin/sh
# Writes constraints.txt: everything that pyproject.toml and client/pyproject.toml name, pinned with hashes for every
# platform, and without the address of any index. Uses uv's resolver, in a virtual environment that is thrown away.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
python=$work/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check uv

# uv does not read pip's settings. What pip installs must be what was resolved, so it asks the same index.
pip_setting() { # pip_setting NAME: from the environment, else from pip's files; empty if it is in neither
    "$python" -m pip config get ":env:.$1" 2>/dev/null || "$python" -m pip config get "global.$1" 2>/dev/null || true
}
index=$(pip_setting index-url)
certificates=$(pip_setting cert)
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
[ -z "$certificates" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"

cat >"$work/constraints.txt" <<'END'
# Every Python package of a development checkout, pinned with hashes. Made by `make lock` from pyproject.toml and
# client/pyproject.toml; do not edit. `make setup` installs exactly these, from whatever index pip is configured for.
END
"$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url --no-emit-find-links --emit-build-options \
    --extra dev --group dev --group client/pyproject.toml:dev \
    pyproject.toml client/pyproject.toml >>"$work/constraints.txt"
if grep -nE '[a-z]+://' "$work/constraints.txt"; then
    echo 'lock: an address was written; constraints.txt is left as it was' >&2
    exit 1
fi
mv "$work/constraints.txt" constraints.txt
echo "lock: wrote constraints.txt"
