#!/usr/bin/env bash
# Runs the fuzz targets from their kept corpora, one after the other; fails if one finds something.
#
#   tests/fuzz.sh [seconds for each target, 20] [target…]
#
# HUBCAST_FUZZ_RUNS=N          N executions of each target instead, however long they take.
# HUBCAST_FUZZ_SANITIZER=NAME  with a sanitizer such as `address`, which needs a nightly toolchain.
#
# The pinned toolchain is enough otherwise: the instrumentation is LLVM's own. What a run finds beyond the kept corpus
# stays in gateway/fuzz/target/corpus until the next one, inputs that fail stay in gateway/fuzz/artifacts.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fuzz=$repo/gateway/fuzz
seconds=${1:-20}
runs=${HUBCAST_FUZZ_RUNS:-}
sanitizer=${HUBCAST_FUZZ_SANITIZER:-}
shift $(($# > 0))

skip() { echo "skipped: $*"; exit 0; }

command -v cargo >/dev/null || skip "no Rust toolchain"
command -v c++ >/dev/null || skip "no C++ compiler, which libFuzzer is built with"
cd "$fuzz" # where rustup finds the pinned toolchain
if [ -n "$sanitizer" ]; then
    export RUSTUP_TOOLCHAIN=nightly
    rustc --version >/dev/null 2>&1 || skip "no nightly toolchain"
fi
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$fuzz/target${sanitizer:+/$sanitizer}

# Only for the target: build scripts and macros stay as they are.
flags=(
    --cfg fuzzing
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 # or several comparisons in a row are one branch
)
[ -z "$sanitizer" ] || flags+=("-Zsanitizer=$sanitizer")
RUSTFLAGS="${flags[*]}" cargo build --release --bins --locked --target "$host"

bound=(-max_total_time="$seconds")
[ -z "$runs" ] || bound=(-runs="$runs")
# No input is larger than 4 KiB, so none may need much memory. Sanitizers reserve address space without using it.
[ -n "$sanitizer" ] || ulimit -v $((2 * 1024 * 1024))

passed=0 failed=0
targets=("$@")
[ $# -gt 0 ] || targets=(json messagepack handshake http websocket webpubsub)
for target in "${targets[@]}"; do
    found=$fuzz/target/corpus/$target
    log=$fuzz/target/$target.log
    rm -rf "$found"
    mkdir -p "$found" "artifacts/$target"
    options=("${bound[@]}" -max_len=4096 -timeout=20 -rss_limit_mb=1024 -print_final_stats=1)
    options+=(-artifact_prefix="artifacts/$target/")
    case $target in
        json | handshake | webpubsub) options+=(-dict=dictionaries/json.dict) ;;
        http) options+=(-dict=dictionaries/http.dict) ;;
    esac
    start=$SECONDS
    if "$CARGO_TARGET_DIR/$host/release/$target" "${options[@]}" "$found" "corpus/$target" >"$log" 2>&1; then
        passed=$((passed + 1)) result=ok
    else
        failed=$((failed + 1)) result=FAIL
    fi
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-4s %-12s %s executions in %s s\n' "$result" "$target" "${count:-0}" "$((SECONDS - start))"
    if [ "$result" = FAIL ]; then
        grep -m 1 -A 2 'panicked at' "$log" || true
        tail -n 20 "$log" | sed 's/^/     /'
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
