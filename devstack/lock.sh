#!/bin/sh
# Writes constraints.txt: everything that pyproject.toml and client/pyproject.toml name, pinned with hashes for every
# platform, and without the address of any index; constraints-infra.txt: what the group `infra` needs on top of it; and
# constraints-image.txt: of the first, what smtp-proxy itself needs, for the image (devstack/Dockerfile).
# Uses uv's resolver, in a virtual environment that is thrown away.
#
#   devstack/lock.sh          all of them
#   devstack/lock.sh infra    only constraints-infra.txt, beside constraints.txt as it is
#   devstack/lock.sh image    only constraints-image.txt, from constraints.txt as it is
#   devstack/lock.sh checkov  only constraints-checkov.txt, which agrees with none of the others
#   devstack/lock.sh policy   only constraints-policy.txt, which agrees with none of the others either
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

compile() { # compile WHAT...: pins with hashes, and nothing that says where they were found
    "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --emit-build-options "$@"
}

publish() { # publish FILE: into the checkout, unless it says where packages came from
    if grep -nE '[a-z]+://' "$work/$1"; then
        echo "lock: an address was written; $1 is left as it was" >&2
        exit 1
    fi
    mv "$work/$1" "$1"
    echo "lock: wrote $1"
}

if [ -z "${1:-}" ]; then
    cat >"$work/constraints.txt" <<'END'
# Every Python package of a development checkout, pinned with hashes. Made by `make lock` from pyproject.toml and
# client/pyproject.toml; do not edit. `make setup` installs exactly these, from whatever index pip is configured for.
END
    compile --extra dev --group dev --group client/pyproject.toml:dev \
        pyproject.toml client/pyproject.toml >>"$work/constraints.txt"
    publish constraints.txt
fi

# uv reads versions, not hashes, from the other file; what is pinned there is not pinned otherwise.
sed -E 's/ *\\$//; /^ *--hash/d' constraints.txt >"$work/known.txt"

if [ "${1:-image}" = image ]; then
    cat >"$work/constraints-image.txt" <<'END'
# Of constraints.txt, what smtp-proxy needs to run, with hashes. Made by `make lock` from pyproject.toml; do not edit.
# devstack/Dockerfile installs exactly these.
END
    compile --constraint "$work/known.txt" --no-annotate pyproject.toml >>"$work/constraints-image.txt"
    publish constraints-image.txt
fi
if [ "${1:-checkov}" = checkov ]; then
    cat >"$work/constraints-checkov.txt" <<'END'
# Checkov and what it needs, pinned with hashes. Made by `make lock` from the group `checkov` of pyproject.toml; do not
# edit. `make setup-checkov` installs exactly these into .venv-checkov, apart from everything else.
END
    compile --group checkov --no-annotate >>"$work/constraints-checkov.txt"
    publish constraints-checkov.txt
fi
if [ "${1:-policy}" = policy ]; then
    cat >"$work/constraints-policy.txt" <<'END'
# What runs pulumi/policy, pinned with hashes. Made by `make lock` from the group `policy` of pyproject.toml; do not
# edit. `make setup-policy` installs exactly these into .venv-policy, apart from everything else.
END
    compile --group policy --no-annotate >>"$work/constraints-policy.txt"
    publish constraints-policy.txt
fi
[ "${1:-infra}" = infra ] || exit 0

cat >"$work/constraints-infra.txt" <<'END'
# What the AWS stack in pulumi/ needs beyond constraints.txt, pinned with hashes. Made by `make lock` from the group
# `infra` of pyproject.toml; do not edit. `make setup-infra` installs exactly these beside those of constraints.txt.
END
compile --constraint "$work/known.txt" --group infra --no-annotate >"$work/whole.txt"
"$python" - "$work/known.txt" "$work/whole.txt" >>"$work/constraints-infra.txt" <<'PY'
import pathlib, re, sys
known, whole = (pathlib.Path(name).read_text() for name in sys.argv[1:])
there = set(re.findall(r"(?m)^([a-z0-9-]+)==", known))
for entry in re.split(r"(?m)^(?=[a-z0-9-]+==)", whole):
    if entry.strip() and entry.split("==")[0] not in there:
        print(entry.rstrip())
PY
publish constraints-infra.txt
