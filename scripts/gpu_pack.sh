#!/usr/bin/env bash
# Packs what a GPU host without Rust needs into target/gpu-pack and target/gpu-pack.tar.xz: the program, the test programs
# of kernels, decoder and engine, the bench of kernels, and the script that runs them. The host has to have a driver (580 or newer) and cuBLAS.
#
#   scripts/gpu_pack.sh                     CUDA_COMPUTE_CAPS chooses the devices (90a builds fastest)
#   scripts/gpu_pack.sh --kernels           tests and bench of the kernels alone
#   DATA=folder TEXT=model.gguf scripts/gpu_pack.sh
#                                           with sft.jsonl and sampled_responses.jsonl of a folder, and a GGUF file's vocabulary, to
#                                           measure the judge's workload; `quality` wants the file itself in gpu-pack/model
set -euo pipefail
cd "$(dirname "$0")/.."

pack=target/gpu-pack
rm -rf "$pack"
mkdir -p "$pack"

# The newest executable of a target, by cargo's own account.
executable() {
    cargo "$@" --features cuda --message-format=json |
        python3 -c '
import json, sys
found = [m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")]
print(found[-1])'
}

cp "$(executable test --release -p kernels --test gpu --no-run)" "$pack/kernel_tests"
cp "$(executable bench -p kernels --bench gpu --no-run)" "$pack/kernel_bench"
if [ "${1:-}" != --kernels ]; then
    cargo build --release --features cuda
    cp target/release/longreward "$pack/longreward"
    cp "$(executable test --release -p models --test decoder --no-run)" "$pack/decoder_tests"
    cp "$(executable test --release --lib --no-run)" "$pack/engine_tests"
    mkdir -p "$pack/tests/goldens"
    cp -r tests/goldens/{llama31,llama31_tied,llama2,chatglm,glm,glm4} "$pack/tests/goldens"
    mkdir -p "$pack"/{bench/peers,models/src/dummy,texts}
    cp bench/peers/transformers_gpu.py "$pack/bench/peers"
    cp models/src/dummy/*.json "$pack/models/src/dummy"
    cp README.md kernels/NOTES.md "$pack/texts"
    if [ -n "${DATA:-}" ]; then
        mkdir "$pack/data" && cp "$DATA"/{sft,sampled_responses}.jsonl "$pack/data"
        python3 scripts/gguf_text.py "${TEXT:?names a GGUF file with a vocabulary}" "$pack/text.gguf"
    fi
fi
cp scripts/gpu_check.sh "$pack/check.sh"
strip "$pack"/kernel_tests "$pack"/kernel_bench "$pack"/{longreward,decoder_tests,engine_tests} 2>/dev/null || true
tar -C target -c gpu-pack | xz -T0 -3 >"$pack.tar.xz"
du -sh "$pack" "$pack.tar.xz"
