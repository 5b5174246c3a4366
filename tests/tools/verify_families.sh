#!/usr/bin/env bash
# Verifies all files of tests/fixtures/families, operation by operation, with the CPU as reference: in f16, with 8-bit
# activations, and weights bit for bit. Takes minutes on the simulator.
#
#     tests/tools/verify_families.sh [DEVICE]
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${1:-sim}
for file in tests/fixtures/families/*.gguf; do
    for activations in f16 q8; do
        echo "$file, $activations"
        target/debug/hyperion verify "$file" --raw --device "$device" --activations "$activations" --batch 5 |
            grep -E "^passed|FAILED|OUT OF BOUNDS|first" || exit 1
    done
    target/debug/hyperion verify "$file" --device "$device" --deterministic --raw --batch 5 | grep -E "^passed|first"
    target/debug/hyperion verify "$file" --device "$device" --weights | tail -1
done
