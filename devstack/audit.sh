#!/bin/sh
# What `make audit` does: asks the services that know of vulnerabilities about every pinned package and crate. It needs
# the network: PyPI's JSON API for Python, RustSec's database (github.com) for Rust. What could not be asked is said, and
# counts as a failure, since silence would look like a clean bill.
#
# Exit: 0 all were asked and nothing is known; 1 something is known; 3 something could not be asked.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'audit: %s\n' "$*"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
known=0 unasked=0

python_packages() {
    python3 -m venv "$work/venv"
    if ! "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit; then
        say "NOT CHECKED, Python: pip-audit cannot be installed"
        return 3
    fi
    # Its exit status does not tell "nothing is known" from "nobody knows these packages"; its report does.
    "$work/venv/bin/pip-audit" --requirement constraints.txt --requirement constraints-infra.txt --no-deps --disable-pip --progress-spinner off \
        --format json --output "$work/report.json" 2>"$work/said" || true
    "$work/venv/bin/python" - "$work/report.json" "$work/said" <<'PY'
import json, pathlib, sys
report, said = map(pathlib.Path, sys.argv[1:])
try:
    found = json.loads(report.read_text())["dependencies"]
except (OSError, ValueError, KeyError):
    last = said.read_text().strip().splitlines()[-1:] or ["it said nothing"]
    sys.exit(print(f"audit: NOT CHECKED, Python: no report from pip-audit: {last[0]}") or 3)
bad = [(each, flaw) for each in found for flaw in each.get("vulns", ())]
unknown = [each["name"] for each in found if "skip_reason" in each]
for package, flaw in bad:
    fixed = ", ".join(flaw["fix_versions"]) or "no release"
    print(f"audit: {package['name']} {package['version']}: {flaw['id']} {' '.join(flaw.get('aliases', []))}, mended in {fixed}")
if unknown or not found:
    print(f"audit: NOT CHECKED, Python: {len(unknown)} of {len(found)} packages are unknown to the service that was reached")
else:
    print(f"audit: Python: {len(found)} packages asked about, {len(bad)} vulnerabilities known")
sys.exit(1 if bad else 3 if unknown or not found else 0)
PY
}

crates() {
    if ! command -v cargo-deny >/dev/null 2>&1; then
        say "NOT CHECKED, Rust: cargo-deny is not installed (cargo install --locked cargo-deny)"
        return 3
    fi
    if ! cargo deny fetch db >"$work/fetched" 2>&1; then
        say "NOT CHECKED, Rust: RustSec's database cannot be fetched: $(grep -i "error\|failed\|resolve" "$work/fetched" | tail -n 1)"
        return 3
    fi
    cargo deny --offline check advisories || return 1
    cargo deny --offline --manifest-path core_rs/fuzz/Cargo.toml --config deny.toml check advisories || return 1
    say "Rust: nothing known"
}

for part in python_packages crates; do
    status=0
    $part || status=$?
    case $status in
    0) ;;
    3) unasked=1 ;;
    *) known=1 ;;
    esac
done
[ $known -eq 0 ] || exit 1
[ $unasked -eq 0 ] || exit 3
