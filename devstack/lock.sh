#!/bin/sh
# Writes constraints.txt: everything that pyproject.toml and client/pyproject.toml name, pinned with hashes for every
# platform, and without the address of any index. Uses uv's resolver, in a virtual environment that is thrown away.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet uv
{
    echo '# Every Python package of a development checkout, pinned with hashes. Made by `make lock` from pyproject.toml and'
    echo '# client/pyproject.toml; do not edit. `make setup` installs exactly these, from whatever index pip is configured for.'
    "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --emit-build-options --extra dev --group dev --group client/pyproject.toml:dev \
        pyproject.toml client/pyproject.toml
} >"$work/constraints.txt"
if grep -nE 'https?://' "$work/constraints.txt"; then
    echo 'lock: an address was written; constraints.txt is left as it was' >&2
    exit 1
fi
mv "$work/constraints.txt" constraints.txt
echo "lock: wrote constraints.txt"
