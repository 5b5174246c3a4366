#!/usr/bin/env bash
# Verifies all files of tests/fixtures/families operation by operation with the CPU as reference, in f16, with 8-bit
# activations and deterministic, and their weights bit for bit. Takes minutes on the simulator.
#
#     cargo build && tests/tools/verify_families.sh [DEVICE]
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${1:-sim}
verify() {
    echo "$*"
    target/debug/hyperion verify "$@" --device "$device" | tail -1
}
for file in tests/fixtures/families/*.gguf; do
    steps=("$file" --raw -p "hello there, hello" --decode 2 --batch 5)
    verify "${steps[@]}" --activations f16
    verify "${steps[@]}" --activations q8
    verify "${steps[@]}" --deterministic
    verify "$file" --weights
done
