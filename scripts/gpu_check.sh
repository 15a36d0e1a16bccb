#!/usr/bin/env bash
# On a GPU host, in the folder that gpu_pack.sh made: checks first, times second. Raw results go to OUT (default: ./gpu-results).
#
#   ./check.sh                     tests, then the bench
#   ./check.sh tests | bench | sanitizer
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
    # One by one: a fault of one test ends the context of all others in the process.
    local failed=0
    for name in $(./kernel_tests --list 2>/dev/null | sed -n 's/: test$//p'); do
        if timeout 120 ./kernel_tests --exact "$name" >"$out/test.$name.txt" 2>&1; then
            echo "ok      $name"
        else
            echo "FAILED  $name"
            grep -E "panicked|GPU:|error|at [0-9]+:" -A2 "$out/test.$name.txt" | head -6
            failed=1
        fi
    done
    return $failed
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
all) tests && bench ;;
esac
