#!/usr/bin/env bash
# On a GPU host, in the folder that gpu_pack.sh made: checks first, times second. Raw results go to OUT (default: ./gpu-results).
#
#   ./check.sh                     tests, then the bench
#   ./check.sh tests | bench | speed | sanitizer
#
# `bench` times the kernels, `speed` the whole decoder with random weights in the shapes of real models.
set -uo pipefail
cd "$(dirname "$0")"
out=${OUT:-gpu-results}
mkdir -p "$out"

# cuBLASLt of PyTorch's packages, where the loader has none.
if [ -z "${LONGREWARD_CUBLASLT:-}" ] && ! ldconfig -p | grep -q 'libcublasLt.so.1[23]'; then
    found=$(python3 -c '
import glob, site
for folder in site.getsitepackages():
    for path in sorted(glob.glob(folder + "/nvidia/**/libcublasLt.so.1[23]", recursive=True)):
        print(path)' 2>/dev/null | tail -1)
    if [ -n "$found" ]; then
        export LONGREWARD_CUBLASLT=$found
        # Its own companions lie beside it.
        export LD_LIBRARY_PATH="$(dirname "$found"):${LD_LIBRARY_PATH:-}"
    fi
fi

tests() {
    local failed=0
    tests_of kernel_tests '' || failed=1
    if [ -x ./decoder_tests ]; then
        LONGREWARD_GOLDENS=$PWD/tests/goldens tests_of decoder_tests '^gpu::' || failed=1
        tests_of engine_tests '^engine::tests::.*gpu' || failed=1
    fi
    return $failed
}

# One by one: a fault of one test ends the context of all others in the process.
tests_of() {
    local failed=0
    for name in $("./$1" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E "$2"); do
        if timeout 120 "./$1" --exact "$name" >"$out/test.$name.txt" 2>&1; then
            echo "ok      $name"
        else
            echo "FAILED  $name"
            grep -E "panicked|GPU:|error|at [0-9]+:" -A2 "$out/test.$name.txt" | head -6
            failed=1
        fi
    done
    return $failed
}

speed() {
    [ -x ./longreward ] || return 0
    for shape in llama-3.1-8b glm-4-9b; do
        for context in "4096 --decode 1,16,64,128 --prefill 4096,32768,65536" "32768 --shared --decode 16 --prefill 4096"; do
            # shellcheck disable=SC2086
            ./longreward bench --device cuda --dummy "$shape" --json --repeats 3 --context $context \
                >>"$out/speed.$shape.jsonl" 2>>"$out/speed.txt" || echo "FAILED  $shape, context $context: $(tail -1 "$out/speed.txt")"
        done
        echo "$shape"
        python3 -c '
import json, sys
for line in open(sys.argv[1]):
    for m in json.loads(line)["measurements"]:
        share = m.get("limit_share")
        print("  %-14s %4d x %6d %10.1f tok/s  %s" % (m["phase"], m["batch"], m["context"], m["tokens_per_second"],
              "" if share is None else "%3.0f%% of limit" % (100 * share)))' "$out/speed.$shape.jsonl"
    done
}

sanitizer() {
    for tool in memcheck racecheck; do
        for name in attention::prompts_of_any_length attention::single_tokens_at_any_length sampling::draws_follow_the_filtered_distribution; do
            timeout 300 compute-sanitizer --tool "$tool" --error-exitcode 9 ./kernel_tests --exact "$name" >"$out/$tool.$name.txt" 2>&1
            echo "$tool $name: $? $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/$tool.$name.txt")"
        done
    done
}

bench() {
    GPU_BENCH_JSON="$out/kernels.jsonl" GPU_BENCH_PLANS=1 ./kernel_bench "$@" | tee "$out/kernels.txt"
}

case "${1:-all}" in
tests) tests ;;
sanitizer) sanitizer ;;
bench) shift && bench "$@" ;;
speed) speed ;;
all) tests && bench && speed ;;
esac
