#!/bin/sh
# Packs what test/gpu.sh needs beside the repository's sources into build/gpu.tar.xz: the executable, the
# kernel libraries, a token file, and the packages that the tests load. At most 60 MB.
#
#     npm install && bun run build && sh test/gpu-pack.sh
set -eu
cd "$(dirname "$0")/.."
libraries=build/x64/native
[ -e "$libraries/libllm-cuda.so" ] || { echo "no $libraries/libllm-cuda.so: bun run build makes it where nvcc is"; exit 1; }

# The built-in corpus.
mkdir -p build/gpu
./llm data plays --out-dir build/gpu/data >&2

rm -f build/gpu.tar.xz
tar -cf - llm "$libraries"/*.so* build/gpu/data node_modules/fast-check node_modules/pure-rand node_modules/mitata |
    xz -T0 -2 > build/gpu.tar.xz
bytes=$(wc -c < build/gpu.tar.xz)
echo "build/gpu.tar.xz: $bytes bytes"
[ "$bytes" -le 60000000 ] || { echo "that is above 60 MB"; exit 1; }
