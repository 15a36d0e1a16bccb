#!/usr/bin/env bash
# Packs what a GPU host without Rust needs into target/gpu-pack: the program, the test program of the kernels, their bench,
# and the script that runs them. The host has to have a driver (580 or newer) and cuBLAS.
#
#   scripts/gpu_pack.sh            CUDA_COMPUTE_CAPS chooses the devices (90a builds fastest)
set -euo pipefail
cd "$(dirname "$0")/.."

pack=target/gpu-pack
rm -rf "$pack"
mkdir -p "$pack"

# The newest executable of a target, by cargo's own account.
executable() {
    cargo "$@" --release --features cuda --message-format=json 2>/dev/null |
        python3 -c '
import json, sys
found = [m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")]
print(found[-1])'
}

cp "$(executable test -p kernels --test gpu --no-run)" "$pack/kernel_tests"
cp "$(executable bench -p kernels --bench gpu --no-run)" "$pack/kernel_bench"
if [ "${1:-}" != --kernels ]; then
    cargo build --release --features cuda
    cp target/release/longreward "$pack/longreward"
fi
cp scripts/gpu_check.sh "$pack/check.sh"
strip "$pack"/kernel_tests "$pack"/kernel_bench "$pack"/longreward 2>/dev/null || true
du -sh "$pack"
