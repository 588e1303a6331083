#!/bin/sh
# What `make fuzz` does, with the stable compiler: libFuzzer's instrumentation is a pass of LLVM's that any rustc can run,
# so neither nightly nor cargo-fuzz is needed, only a C++ compiler. No address sanitizer: what is fuzzed is safe code.
#
#   run.sh [TARGET...]            each for FUZZ_SECONDS (60), FUZZ_JOBS (the number of cores) side by side
#   run.sh --replay TARGET FILE   one input again, with a backtrace
#   run.sh --grow                 as without, then takes what covers more into the corpus
set -eu
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-60}
jobs=${FUZZ_JOBS:-$(getconf _NPROCESSORS_ONLN)}
cargo=$(command -v cargo || echo "${CARGO_HOME:-$HOME/.cargo}/bin/cargo")
host=$("$(dirname "$cargo")/rustc" -vV 2>/dev/null || rustc -vV)
host=$(printf '%s\n' "$host" | sed -n 's/^host: //p')
programs=target/$host/release

say() { printf 'fuzz: %s\n' "$*"; }

build() {
    unset CARGO_ENCODED_RUSTFLAGS
    # With --target the build scripts are left alone.
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
        "$cargo" build --release --locked --quiet --features libfuzzer --bins --target "$host"
}

# A target `x_split` looks at what `x` looks at.
corpus_of() { printf 'corpus/%s' "${1%_split}"; }

how_it_ended() { # how_it_ended TARGET LOG: the input that did it, as text, since a CI machine is soon gone
    tail -n 40 "$2"
    for input in "target/crashes/$1/"*; do
        [ -e "$input" ] || continue
        say "$1: the input, $(wc -c <"$input") bytes, base64:"
        base64 "$input"
        say "replay: base64 -d >core_rs/fuzz/target/input, then core_rs/fuzz/run.sh --replay $1 target/input"
        say "once mended, it goes to core_rs/fuzz/regressions/$1/ under a name that says what it was"
    done
}

run_one() { # run_one TARGET: finds go to target/found, so that the corpus stays as committed
    mkdir -p "target/found/$1" target/logs
    rm -rf "target/crashes/$1"
    mkdir -p "target/crashes/$1"
    log=target/logs/$1.log
    if "$programs/$1" "target/found/$1" "$(corpus_of "$1")" "-max_total_time=$seconds" -max_len=4096 -timeout=10 \
        -rss_limit_mb=1024 -dict=smtp.dict -print_final_stats=1 "-artifact_prefix=target/crashes/$1/" >"$log" 2>&1; then
        say "$1: nothing found, $(sed -n 's/^Done \(.*\)/\1/p' "$log")"
    else
        say "$1: FAILED, its last words:"
        how_it_ended "$1" "$log"
        return 1
    fi
}

grow() { # grow TARGET: what reaches new code joins the corpus; how often it does so makes no difference, or it grows fast
    "$programs/$1" -set_cover_merge=1 -use_counters=0 -max_len=4096 "$(corpus_of "$1")" "target/found/$1" >>"target/logs/$1.log" 2>&1
}

case ${1:-} in
--one) run_one "$2" && exit 0 || exit 1 ;;
--replay)
    build
    RUST_BACKTRACE=1 exec "$programs/$2" "$3"
    ;;
esac
growing=no
[ "${1:-}" != --grow ] || { growing=yes && shift; }
[ $# -gt 0 ] || set -- $(for file in fuzz_targets/*.rs; do basename "$file" .rs; done)
say "building $# targets"
build
say "$seconds s each, $jobs side by side"
printf '%s\n' "$@" | xargs -n 1 -P "$jobs" "$PWD/run.sh" --one || exit 1
[ $growing = no ] || for target; do grow "$target"; done
