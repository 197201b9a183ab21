#!/bin/sh
# How fast GPT-2 trains on one NVIDIA GPU, beside PyTorch: one file of results, within a time.
#
#     bench/gpu.sh [SECONDS] [FILE]      480, bench/results/gpu.md
#
# Takes the built executable, ./llm or $LLM; python3, with PyTorch for the rival; no network.
set -eu
cd "$(dirname "$0")/.."
exec python3 bench/gpu.py "${1:-480}" "${2:-bench/results/gpu.md}"
