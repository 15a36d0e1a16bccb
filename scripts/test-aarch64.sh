#!/usr/bin/env bash
# Runs the tests of the crate `kernels` for aarch64 in an emulator, once for each way it has of
# multiplying bytes. Wants: the Rust target aarch64-unknown-linux-gnu, a cross linker
# (aarch64-linux-gnu-gcc) with the target's C library, and qemu-aarch64 (QEMU's user mode).
#
#     scripts/test-aarch64.sh            a quarter of an hour, most of it one test of attention
#     scripts/test-aarch64.sh --quick    the tests of bits only
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER:-qemu-aarch64}
export QEMU_LD_PREFIX=${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}

# usdot; sdot; neither.
for cpu in max cortex-a76 cortex-a72; do
    echo "== $cpu"
    export QEMU_CPU=$cpu
    cargo test --release -p kernels --target "$target" --test bits
    if [ "${1:-}" != --quick ]; then
        # candle's own quantised products, which that test measures ours against, take sdot as given.
        skip=()
        [ "$cpu" = cortex-a72 ] && skip=(--skip portable_products)
        cargo test --release -p kernels --target "$target" --lib -- "${skip[@]}"
    fi
done
