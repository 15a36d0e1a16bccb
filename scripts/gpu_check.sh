#!/usr/bin/env bash
# On a GPU host, in the folder that gpu_pack.sh made: everything that is to be known of this card. Checks come first, what
# matters most next. Raw results go to RESULTS (default ./gpu-results), a table to the terminal.
#
#   ./check.sh                     all stages
#   ./check.sh tests speed ...     these, in this order
#
#   tests      the kernels, decoder and engine against their references
#   speed      prefill and decode with random weights in the shapes of Llama-3.1-8B and GLM-4-9B, as shares of this card's limits
#   judge      the judge's workload, and the same calls on transformers (needs data/, see gpu_pack.sh; python3 with torch)
#   cascade    common contexts read once for all, and once for each
#   memory     ten replies to each of several prompts of 64k; a pool too small for its job; a request that can't fit
#   same       what the same bits in every batch cost
#   eight      weights, and keys and values, of 8 bits
#   profile    where the time of prefill and decode goes, by operation
#   overlap    what it brings that a kernel begins while the one before it ends, and that groups of warps multiply in turns
#   quality    SmolLM2's real weights against f32 on the processor (needs model/)
#   kernels    each kernel against this card's limits
#   disk       loading a checkpoint of 16 GB
#   sanitizer  memcheck and racecheck
#
# MINUTES=N stops beginning new stages after so long. A stage that fails does not keep others from running.
set -uo pipefail
cd "$(dirname "$0")"
results=${RESULTS:-$PWD/gpu-results}
mkdir -p "$results"
minutes=${MINUTES:-60}
device=${DEVICE:-cuda}
shapes=${SHAPES:-"llama-3.1-8b glm-4-9b"}

# cuBLASLt of PyTorch's packages, where the loader has none.
if [ -z "${LONGREWARD_CUBLASLT:-}" ] && ! grep -q 'libcublasLt.so.1[23]' <(ldconfig -p); then
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

# limited SECONDS NAME COMMAND...: what it prints goes to NAME.out, what it reports to NAME.err.
limited() {
    local seconds=$1 name=${2//\//_}
    shift 2
    timeout "$seconds" "$@" >"$results/$name.out" 2>"$results/$name.err" && return 0
    local code=$?
    echo "  ended with $code: $name: $(grep -v '^ *$' "$results/$name.err" | tail -1)"
    return $code
}

# ---- tests ----

# What can be left out (kernels/cuda/runtime.cuh), for when a test fails: what is likeliest first.
switches=(LONGREWARD_GPU_WGMMA LONGREWARD_GPU_NARROW LONGREWARD_GPU_OVERLAP LONGREWARD_GPU_TURNS)

# one_test SECONDS LABEL PROGRAM NAME
one_test() {
    limited "$1" "test.$2.${4//::/.}" "./$3" --exact "$4" >/dev/null
}

# All of a program in one process. What that did not find good runs again, each by itself, as a fault ends the context of all
# others; "PROGRAM NAME" of those that fail then go to the file `failing`.
tests_of() {
    local program=$1 filter=$2
    local names good left=()
    names=$("./$program" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E "$filter")
    # shellcheck disable=SC2086
    if limited 90 "tests.$program" "./$program" --test-threads 4 --exact $names >/dev/null; then
        echo "  ok      all $(wc -w <<<"$names") of $program"
        return
    fi
    good=$(sed -n 's/^test \(.*\) \.\.\. ok$/\1/p' "$results/tests.$program.out")
    for name in $names; do
        if grep -qxF "$name" <<<"$good"; then continue; fi
        if one_test 20 alone "$program" "$name"; then
            echo "  ok      $name (by itself)"
        else
            echo "  FAILED  $name"
            grep -hE "panicked|GPU:|error|at [0-9]+:" -A2 "$results/test.alone.${name//::/.}".* | head -6
            left+=("$program $name")
        fi
    done
    [ ${#left[@]} -eq 0 ] || printf '%s\n' "${left[@]}" >>"$failing"
}

# Which part has to be left out for the tests to pass (of those that fail the first three, as they may hang): each alone, then
# all. What helps most holds for the stages that follow.
leave_out() {
    local count best best_left=() left candidate tried
    tried=$(head -3 "$failing")
    best=$(wc -l <<<"$tried")
    for candidate in "${switches[@]}" "${switches[*]}"; do
        count=0
        left=()
        for name in $candidate; do left+=("$name=0"); done
        while read -r program name; do
            (export "${left[@]}"; one_test 20 "without.${candidate// /.}" "$program" "$name") || count=$((count + 1))
        done <<<"$tried"
        echo "  with ${left[*]}: $count of $(wc -l <<<"$tried") still fail"
        [ "$count" -lt "$best" ] || continue
        best=$count
        best_left=("${left[@]}")
        [ "$count" -gt 0 ] || break
    done
    if [ ${#best_left[@]} -gt 0 ]; then
        export "${best_left[@]}"
        echo "  the stages that follow run with ${best_left[*]}" | tee "$results/left-out.out"
    fi
}

tests() {
    failing=$results/failing.out
    : >"$failing"
    tests_of kernel_tests .
    if [ -x ./decoder_tests ]; then
        export LONGREWARD_GOLDENS=$PWD/tests/goldens
        tests_of decoder_tests '^gpu::'
        tests_of engine_tests '^engine::tests::.*gpu'
    fi
    [ -s "$failing" ] || return 0
    leave_out
    return 1
}

# ---- the program ----

# sizes NAME ARGS...: one run of the bench, whose table is shown; each line as soon as it is there.
sizes() {
    local name=${1//\//_}
    shift
    echo "  $name: $*"
    limited 170 "$name" ./longreward bench --device "$device" --json --repeats 3 "$@"
    grep -hE '^(phase|prefill|decode| .* us = )' "$results/$name.err" | sed 's/^/    /'
}

# Shortens everything for a try on an emulated GPU, on which figures mean nothing.
small=${SMALL:+yes}
long() { [ -n "$small" ] && echo "$2" || echo "$1"; }

speed() {
    for shape in $shapes; do
        sizes "speed.$shape" --dummy "$shape" --context "$(long 4096 64)" --decode "$(long 1,16,64,96,128 1,2)" --prefill "$(long 4096,32768,65536 64)"
    done
}

judge() {
    [ -d data ] || { echo "  no data/"; return 0; }
    local given=(--model text.gguf --data data/sft.jsonl --responses data/sampled_responses.jsonl --embedder bm25)
    for shape in $shapes; do
        local name=${shape//\//_}
        echo "  judge $shape"
        limited 120 "judge.$name" ./longreward bench --device "$device" --json --dummy "$shape" "${given[@]}" --calls "$results/calls.jsonl" &&
            sed 's/^/    /' "$results/judge.$name.out"
        [ -n "$small" ] && continue
        if [ "$shape" = "${shapes%% *}" ]; then
            echo "  judge $shape with 128 sequences at a time, of 256"
            limited 120 "judge.$name.128" ./longreward bench --device "$device" --json --dummy "$shape" "${given[@]}" --max-sequences 128 &&
                sed 's/^/    /' "$results/judge.$name.128.out"
        fi
        echo "  transformers $shape"
        limited 200 "transformers.$name" python3 bench/peers/transformers_gpu.py --shape "$shape" --calls "$results/calls.jsonl" \
            --responses 10 --most-tokens 131072 && sed 's/^/    /' "$results/transformers.$name.out"
    done
}

cascade() {
    for shape in $shapes; do
        for way in "" --no-cascade; do
            sizes "cascade.$shape.document$way" --dummy "$shape" --shared --context "$(long 32768 96)" --decode "$(long 16 2)" --prefill 512 $way
            sizes "cascade.$shape.few-shot$way" --dummy "$shape" --shared --context "$(long 4096 96)" --own "$(long 1024 32)" --decode "$(long 64 2)" --prefill 512 $way
        done
    done
}

# requests NAME PROMPTS REPLIES PROMPT_TOKENS NEW_TOKENS: so many replies to each of so many prompts.
requests() {
    python3 - "$results/$1.jsonl" "$2" "$3" "$4" "$5" <<'PY'
import json, random, sys
path, prompts, replies, length, new = sys.argv[1], *map(int, sys.argv[2:])
with open(path, "w") as file:
    for seed in range(prompts):
        numbers = random.Random(seed)
        line = json.dumps({"prompt": [numbers.randrange(2400) for _ in range(length)], "new_tokens": new})
        file.write((line + "\n") * replies)
PY
}

memory() {
    local shape=${shapes%% *}
    requests long.prompts "$(long 4 2)" "$(long 10 2)" "$(long 65536 64)" "$(long 64 4)"
    requests many.prompts "$(long 100 6)" 1 "$(long 1500 40)" "$(long 600 40)"
    local run=(./longreward bench --device "$device" --json --dummy "$shape" --requests)
    echo "  ten replies to each of four prompts of 64k; the same with memory for little more than one; a hundred sequences with memory for thirty"
    limited 150 memory.long "${run[@]}" "$results/long.prompts.jsonl" && sed 's/^/    /' "$results/memory.long.out"
    limited 150 memory.tight "${run[@]}" "$results/long.prompts.jsonl" --kv-memory "$(long 10GiB 150KB)" && sed 's/^/    /' "$results/memory.tight.out"
    limited 150 memory.preempted "${run[@]}" "$results/many.prompts.jsonl" --kv-memory "$(long 8GiB 60KB)" && sed 's/^/    /' "$results/memory.preempted.out"
    echo "  a request that can't fit:"
    ! limited 60 memory.refused "${run[@]}" "$results/long.prompts.jsonl" --kv-memory "$(long 4GiB 20KB)"
    rm -f "$results"/{long,many}.prompts.jsonl
}

same() {
    local shape=${shapes%% *}
    sizes "same.$shape" --dummy "$shape" --deterministic --context "$(long 4096 64)" --decode "$(long 1,16,64 1,2)" --prefill "$(long 4096,32768 64)"
}

eight() {
    local shape=${shapes%% *}
    local common=(--dummy "$shape" --context "$(long 4096 64)")
    sizes "eight.$shape.kv" "${common[@]}" --kv-dtype e4m3 --decode "$(long 64,128 2)" --prefill "$(long 32768 64)"
    sizes "eight.$shape.both" "${common[@]}" --dtype e4m3 --kv-dtype e4m3 --decode "$(long 1,64,128 2)" --prefill "$(long 4096 64)"
}

profile() {
    local shape=${shapes%% *}
    sizes "profile.$shape" --dummy "$shape" --profile --context "$(long 4096 64)" --new-tokens 4 --decode "$(long 1,16,64 1)" --prefill "$(long 4096,32768 64)"
}

overlap() {
    local shape=${shapes%% *}
    LONGREWARD_GPU_OVERLAP=0 sizes "overlap.$shape.off" --dummy "$shape" --context "$(long 4096 64)" --decode "$(long 1,16 1)" --prefill 512
    LONGREWARD_GPU_TURNS=0 sizes "turns.$shape.off" --dummy "$shape" --context "$(long 4096 64)" --decode 1 --prefill "$(long 4096,16384,65536 64)"
    sizes "turns.$shape.on" --dummy "$shape" --context "$(long 4096 64)" --decode 1 --prefill "$(long 4096,16384,65536 64)"
    sizes "overlap.$shape.on" --dummy "$shape" --context "$(long 4096 64)" --decode "$(long 1,16 1)" --prefill 512
}

quality() {
    local model
    model=$(ls model/*.gguf 2>/dev/null | head -1)
    [ -n "$model" ] || { echo "  no model/"; return 0; }
    for options in "" "--kv-dtype e4m3" "--dtype e4m3" "--dtype e4m3 --kv-dtype e4m3"; do
        echo "  quality ${options:-bf16}"
        # shellcheck disable=SC2086
        limited 120 "quality${options// /}" ./longreward bench --device "$device" --model "$model" --quality texts/* \
            --quality-tokens "$(long 2048 100)" --quality-replies "$(long 32 0)" $options && sed 's/^/    /' "$results/quality${options// /}.out"
    done
}

kernels() {
    GPU_BENCH_JSON="$results/kernels.jsonl" GPU_BENCH_PLANS=1 limited 240 kernels ./kernel_bench
    sed 's/^/  /' "$results/kernels.out"
}

disk() {
    local file=$results/dummy.gguf
    limited 120 disk.write ./longreward dummy llama-3.1-8b --gguf "$file" --type bf16 --factor "$(long 1 0.05)" || return 1
    sync
    for turn in first again; do
        local start=$SECONDS
        limited 120 "disk.$turn" ./longreward bench --device "$device" --model "$file" --prefill 16 --decode 1 --context 16 --repeats 1 -v
        echo "  $(stat -c %s "$file") bytes loaded and run in $((SECONDS - start)) s ($turn)"
    done
    rm -f "$file"
}

sanitizer() {
    for tool in memcheck racecheck; do
        for name in attention::chunks_cut_anywhere attention::single_tokens_at_any_length operations::products_equal_the_reference; do
            limited 120 "$tool.${name//::/.}" compute-sanitizer --tool "$tool" --error-exitcode 9 ./kernel_tests --exact "$name"
            echo "  $tool $name: $(grep -hE 'ERROR SUMMARY|RACECHECK SUMMARY' "$results/$tool.${name//::/.}".*)"
        done
    done
}

# ---- stages ----

stages=("$@")
[ $# -gt 0 ] || stages=(tests speed judge cascade memory same eight profile overlap quality kernels disk sanitizer)
if [ ! -x ./longreward ]; then
    [ $# -gt 0 ] || stages=(tests kernels sanitizer)
fi
failed=0
for stage in "${stages[@]}"; do
    if [ $SECONDS -ge $((60 * minutes)) ]; then
        echo "$stage: not begun, $minutes minutes are over"
        continue
    fi
    echo "$stage (after $SECONDS s)"
    "$stage" || failed=1
done
echo "done after $SECONDS s; raw results in $results"
exit $failed
