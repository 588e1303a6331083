#!/bin/sh
# What `make setup` does: a virtual environment in .venv with the pinned packages, the Rust extension built into it, and
# both command line tools. Each step is skipped while what it is made of has not changed, so running it again is quick.
#
#   devstack/setup.sh              all of it
#   devstack/setup.sh packages     only the virtual environment and the pinned packages
#   devstack/setup.sh infra        the virtual environment, its packages, and those of the AWS stack (constraints-infra.txt)
#   devstack/setup.sh checkov      the virtual environment, and another (.venv-checkov) with what looks over terraform/
#   devstack/setup.sh policy       the virtual environment, and another (.venv-policy) with what runs pulumi/policy
#
# PYTHON chooses the interpreter. SETUP_PROFILE=dev builds the extension unoptimised.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*"; }

missing=0
need() { # need WHAT HOW: one clear line for each thing that is missing; all of them are named before we give up
    printf '%s\n' "setup: missing: $1. $2" >&2
    missing=1
}

# ---- what must be there beforehand

right_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if right_python "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

check_python() {
    python=$(find_python)
    if [ -z "$python" ]; then
        need "Python 3.11 or newer${PYTHON:+ ($PYTHON is not)}" \
            "Debian 12+, Ubuntu 24.04+: sudo apt install python3 python3-venv; macOS: brew install python@3.13; elsewhere: python.org"
    elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        need "the venv module of $python" "Debian, Ubuntu: sudo apt install python3-venv"
    fi
}

check_compiler() {
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 ||
        need "a C compiler (cc)" "Debian, Ubuntu: sudo apt install build-essential; Fedora: sudo dnf install gcc; macOS: xcode-select --install"
}

check_cargo() {
    if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
    how="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh (or, if you have rustup: rustup update stable)"
    version=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    if [ -z "$version" ]; then
        need "Rust 1.85 or newer (cargo)" "$how"
    elif [ "${version% *}" -eq 1 ] && [ "${version#* }" -lt 85 ]; then
        need "Rust 1.85 or newer (cargo is $(cargo --version | cut -d' ' -f2))" "$how"
    fi
}

# ---- stamps: a step is done when its stamp holds the digest of what the step is made of

digest() { # digest TEXT FILE...: of the text and of each file's name and content
    .venv/bin/python - "$@" <<'PY'
import hashlib, pathlib, sys
whole = hashlib.sha256(sys.argv[1].encode())
for name in sorted(sys.argv[2:]):
    whole.update(f"\0{name}\0".encode() + pathlib.Path(name).read_bytes())
print(whole.hexdigest())
PY
}

is_done() { [ "$(cat ".venv/.stamp-$1" 2>/dev/null)" = "$2" ]; }
done_with() { printf '%s\n' "$2" >".venv/.stamp-$1"; }

# ---- pip, whatever this machine's environment says

# Where packages come from and how to reach it is the machine's business, so these stay. Everything else that PIP_*
# can say (PIP_USER, PIP_TARGET, PIP_CONSTRAINT, PIP_NO_BINARY, PIP_REQUIRE_VIRTUALENV, ...) would change what is installed.
PIP_KEPT='INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|TIMEOUT|DEFAULT_TIMEOUT|RETRIES'
PIP_KEPT="$PIP_KEPT|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|KEYRING_PROVIDER"
clean_environment() {
    for name in $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do
        printf '%s\n' "$name" | grep -Eqx "PIP_($PIP_KEPT)" || unset "$name"
    done
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0
    export PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT PIP_USER
    unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
}

pip() { .venv/bin/python -m pip --quiet "$@"; }

# ---- the steps

make_venv() {
    # Scripts in a virtual environment name it by its full path: in a checkout that was moved they are dead.
    if right_python .venv/bin/python && [ "$(cat .venv/.stamp-venv 2>/dev/null)" = "$PWD" ]; then
        return
    fi
    say "making .venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear .venv
    done_with venv "$PWD"
}

install_packages() {
    wanted=$(digest "$(.venv/bin/python -V)" constraints.txt)
    if is_done packages "$wanted"; then return; fi
    say "installing the pinned packages"
    pip install --require-hashes -r constraints.txt
    done_with packages "$wanted"
}

install_infra() {
    wanted=$(digest "$(.venv/bin/python -V)" constraints.txt constraints-infra.txt)
    if is_done infra "$wanted"; then return; fi
    say "installing what the AWS stack needs: Pulumi and its AWS provider's classes"
    # What they need besides is in constraints.txt and installed already.
    pip install --no-deps --require-hashes -r constraints-infra.txt
    done_with infra "$wanted"
}

# What it was made of, and what was made: `maturin develop` by hand puts another one in its place.
# shellcheck disable=SC2046 # no file name here has a blank in it
built_core() { digest "$1" $(find pyapp/smtp_proxy -name '_core*.so'); }

install_apart() { # install_apart NAME: constraints-NAME.txt into .venv-NAME, which shares nothing with .venv
    wanted=$(digest "$PWD $(.venv/bin/python -V)" "constraints-$1.txt")
    if is_done "$1" "$wanted" && [ -x ".venv-$1/bin/python" ]; then return; fi
    say "installing what constraints-$1.txt pins into .venv-$1"
    "$python" -m venv --clear ".venv-$1"
    ".venv-$1/bin/python" -m pip --quiet install --require-hashes -r "constraints-$1.txt"
    done_with "$1" "$wanted"
}

build_core() {
    profile=${SETUP_PROFILE:-release}
    # shellcheck disable=SC2046 # no file name here has a blank in it
    wanted=$(digest "$profile $(cargo --version) $(.venv/bin/python -V)" Cargo.toml Cargo.lock pyproject.toml \
        $(find core_rs/proto core_rs/server core_rs/python -name target -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print))
    if is_done core "$(built_core "$wanted")" && .venv/bin/python -c 'import smtp_proxy._core' 2>/dev/null; then return; fi
    say "building the Rust core ($profile); a minute or two the first time"
    # Its packages are here already; without an index maturin's pip can only say so, not fetch others.
    # What it and cargo have to say is shown when they fail.
    if ! said=$(VIRTUAL_ENV="$PWD/.venv" PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0 \
        .venv/bin/maturin develop --quiet --profile "$profile" ${CI:+--locked} 2>&1); then
        printf '%s\n' "$said" >&2
        exit 1
    fi
    done_with core "$(built_core "$wanted")"
}

install_client() {
    wanted=$(digest "" client/pyproject.toml client/README.md)
    if is_done client "$wanted"; then return; fi
    say "installing smtp-proxy-client"
    pip install --no-build-isolation --no-deps --no-index -e client
    done_with client "$wanted"
}

check_python
case ${1:-} in
packages | infra | checkov | policy) core= ;;
*)
    core=yes
    check_compiler
    check_cargo
    ;;
esac
[ "$missing" -eq 0 ] || exit 1
clean_environment
make_venv
install_packages
if [ "${1:-}" = infra ]; then
    install_infra
elif [ "${1:-}" = checkov ] || [ "${1:-}" = policy ]; then
    install_apart "$1"
fi
if [ -n "$core" ]; then
    build_core
    install_client
    say "ready: .venv/bin/smtp-proxy, .venv/bin/smtp-proxy-client"
fi
