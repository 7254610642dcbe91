#!/bin/bash
# What a machine with a GPU but without our packages needs to run everything
# here as it runs at home: the tree without its sources, the program, the
# plugin for one architecture, the chart module, the tests of backends, of
# attention and of symmetric products, and the libraries they load, in one
# archive that tests/device/run.sh unpacks.
#
#   tests/device/pack.sh ARCHIVE [ARCH [TEXT]]
#
# With TEXT, a file of text, the sweep's corpus goes along with its tokens and
# tokenizer already made.
set -eu
cd "$(dirname "$0")/../.."
archive=$(realpath -m "$1") arch=${2:-90} text=${3:-}
tests='test_backends test_backends_beside test_backends_model
  test_backends_e4m3 test_backends_program bench_updates'
mkdir -p "$(dirname "$archive")"
make --no-print-directory GPU_ARCH="$arch" all >&2
# shellcheck disable=SC2046,SC2086
make --no-print-directory GPU_ARCH="$arch" \
  $(printf 'build/release/tests/%s ' $tests) >&2

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
out=$room/build/release
mkdir -p "$out/tests" "$out/lib"
for f in llmhost llmhost_cuda.so chart.so; do
  [ ! -e "build/release/$f" ] || strip -o "$out/$f" "build/release/$f"
done
for t in $tests; do strip -o "$out/tests/$t" "build/release/tests/$t"; done
ln -s release/llmhost "$room/build/llmhost"
git ls-files -co --exclude-standard lua experiments plots tests |
  grep -vE '\.(c|h)$' |
  tar -cf - -T - | tar -C "$room" -xf -
cp Makefile README.md "$room"
code=${arch/#90/90a}
nvcc -std=c++17 -O3 -gencode "arch=compute_$code,code=sm_$code" \
  -o "$out/tests/test_attention" tests/device/test_attention.cu \
  kernels/cuda/attention_[fbp]*.cu kernels/cuda/bulk.cu
nvcc -std=c++17 -O3 -gencode "arch=compute_$code,code=sm_$code" \
  -o "$out/tests/test_square" tests/device/test_square.cu \
  kernels/cuda/schulz_square.cu kernels/cuda/bulk.cu -lcublasLt
# All libraries but the C library's own, which come with its loader, and CUDA's.
for f in llmhost chart.so; do
  [ ! -e "build/release/$f" ] || ldd "build/release/$f"
done | awk '$3 ~ /^\// { print $3 }' | sort -u |
  grep -Ev '/lib(c|m|dl|pthread|rt|resolv|stdc\+\+|gcc_s)\.so' |
  xargs -I{} cp -L {} "$out/lib"
for cjson in /usr/lib/*/lua/5.4/cjson.so; do cp -L "$cjson" "$out"; done

# A source is known by its name, size and time: the same there as here.
if [ -n "$text" ]; then
  cp "$text" "$room/corpus.txt"
  touch -d @1700000000 "$room/corpus.txt"
  root=$PWD
  (cd "$room" && "$root/build/llmhost" -e '
    local config, data = require "llm.config", require "llm.data"
    local sweep = require("llm.sweep") { args = { "profile=full",
      "data.source=corpus.txt", "data.tokens=4000000" },
      matrix = { { name = "baseline" } } }
    local made = data.prepare(config.section(sweep.config.values, "data"),
      "full", 4000000, data.held_out(sweep.experiments))
    for _, line in ipairs(made.messages or {}) do print(line) end
    print(made.train.count .. " tokens")') >&2
fi
tar -C "$room" -cf - . | gzip -6 >"$archive"
ls -l "$archive" >&2
