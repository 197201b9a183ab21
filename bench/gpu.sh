#!/bin/sh
# How fast GPT-2 trains on one NVIDIA GPU, beside PyTorch: one file of results, within a time.
#
#     bench/gpu.sh [SECONDS] [FILE]      480, bench/results/gpu.md
#
# Takes the built executable, ./llm or $LLM; python3, with PyTorch for the rival; no network.
set -eu
cd "$(dirname "$0")/.."
case ${1:-480} in
-h | --help) sed -n '2,7s/^# \{0,1\}//p' bench/gpu.sh && exit ;;
*[!0-9]*) echo "bench/gpu.sh: $1 is no number of seconds (see --help)" >&2 && exit 2 ;;
esac
exec python3 bench/gpu.py "${1:-480}" "${2:-bench/results/gpu.md}"
