#!/bin/bash
# What a machine with a GPU but without our packages needs to run the tests and
# the bench: the program, the plugin for one architecture, the backend tests
# and the libraries they load, in one archive.
#
#   tests/device/pack.sh ARCHIVE [ARCH]     (tests/device/run.sh unpacks it)
set -eu
cd "$(dirname "$0")/../.."
archive=$1 arch=${2:-90}
tests='test_backends test_backends_model test_backends_program'
make --no-print-directory GPU_ARCH="$arch" all >&2
# shellcheck disable=SC2046
make --no-print-directory GPU_ARCH="$arch" \
  $(printf 'build/release/tests/%s ' $tests) >&2
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkdir -p "$room/tests" "$room/lib/lua"
strip -o "$room/llmhost" build/release/llmhost
strip -o "$room/llmhost_cuda.so" build/release/llmhost_cuda.so
for t in $tests; do strip -o "$room/tests/$t" "build/release/tests/$t"; done
# All libraries but the C library's own, which come with its loader, and CUDA's.
ldd build/release/llmhost | awk '$3 ~ /^\// { print $3 }' |
  grep -Ev '/(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s)\.so' |
  xargs -I{} cp -L {} "$room/lib"
for cjson in /usr/lib/*/lua/5.4/cjson.so; do
  cp -L "$cjson" "$room/lib/lua"
done
mkdir -p "$(dirname "$archive")"
tar -C "$room" -cf - . | gzip -6 >"$archive"
ls -l "$archive" >&2
