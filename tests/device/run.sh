#!/bin/bash
# On a machine with a GPU: unpack what pack.sh made and run parts of the
# checks, each with a limit and a log of its own.
#
#   tests/device/run.sh ARCHIVE LOGS PART…
#     tests      every operator, then whole programs, against the CPU
#     memcheck racecheck initcheck synccheck   compute-sanitizer on operators
#     bench      throughput and profile of the four models (bench.lua)
#     counters   ncu on the kernels that NCU (a regular expression) names
#     peer       the same by tests/torch_twin.py
#     sweep      three short experiments of the full profile on TEXT, a file
#   and any file of tests/lua, run on the device
set -u
archive=$1 logs=$2
shift 2
room=${LLMHOST_ROOM:-$PWD/build/release} # the program finds lua/ from here
mkdir -p "$room" "$logs"
tar -C "$room" -xzf "$archive" || exit 1
cuda=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
export LD_LIBRARY_PATH=$room/lib:$cuda/lib64:${LD_LIBRARY_PATH:-}
export LUA_CPATH="$room/lib/lua/?.so;;" LUA_PATH="lua/?.lua;tests/lua/?.lua;;"

# part NAME SECONDS COMMAND…: its log, its last lines, its time
part() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1
  echo "== $name: exit $?, $((SECONDS - start)) s"
}

summary() { # NAME: failures, and how many passed
  grep -E '^(not ok|skip)|^# .*(:|error).*' "$logs/$1.log" |
    grep -v 'error [0-9.e-]* of' | head -n "${2:-40}"
  echo "   $(grep -c '^ok' "$logs/$1.log") ok"
}

sanitize() { # TOOL
  for t in test_backends test_backends_model; do
    part "$1.$t" "${LIMIT:-120}" compute-sanitizer --tool "$1" \
      --print-limit 20 "$room/tests/$t"
    grep -E '=========' "$logs/$1.$t.log" | head -n 20
  done
}

nvidia-smi --query-gpu=name,driver_version,clocks.sm,temperature.gpu \
  --format=csv,noheader
for part in "$@"; do
  case $part in
  tests)
    for t in test_backends test_backends_model test_backends_program; do
      part "$t" 150 "$room/tests/$t"
      summary "$t"
    done
    ;;
  memcheck | racecheck | initcheck | synccheck) sanitize "$part" ;;
  bench)
    part bench "${LIMIT:-200}" "$room/llmhost" tests/device/bench.lua \
      ${BENCH:-}
    cat "$logs/bench.log"
    cat "$logs/bench.log" >>"$logs/bench.all.log"
    ;;
  counters)
    part counters "${LIMIT:-120}" ncu --clock-control none \
      --kernel-name "regex:${NCU:-k_}" --launch-count "${NCU_COUNT:-12}" \
      --section SpeedOfLight --section WarpStateStats --section Occupancy \
      --section ComputeWorkloadAnalysis "$room/llmhost" \
      tests/device/bench.lua ${BENCH:-}
    grep -E '^ +(k_|void k_)|Duration|Throughput|Issue Slots Busy|Occupancy' \
      "$logs/counters.log" | grep -v Theoretical
    ;;
  peer)
    for m in "512 8 8" "768 12 12" "1024 16 16" "1280 20 20"; do
      # shellcheck disable=SC2086
      set -- $m
      for b in ${BATCHES:-96 24}; do
        part "peer.$1.$b" 120 python3 tests/torch_twin.py --device cuda \
          --compile --d_model "$1" --n_layers "$2" --n_heads "$3" \
          --batch "$b" --json
        tail -n 1 "$logs/peer.$1.$b.log"
      done
    done
    ;;
  sweep)
    part sweep "${LIMIT:-90}" "$room/llmhost" experiments/sweep.lua \
      "only=small_baseline,small_gqa_fp4,xlarge_fp4" train.steps=8 \
      data.source="${TEXT:?a text file}" data.cache="$logs/../cache" \
      out="$logs/../results"
    tail -n 20 "$logs/sweep.log"
    ;;
  *.lua)
    name=$(basename "$part" .lua)
    export LLMHOST=$room/llmhost
    part "$name" "${LIMIT:-60}" "$room/llmhost" "$part"
    summary "$name" 12
    ;;
  *) echo "run.sh: no part is called $part" >&2 && exit 2 ;;
  esac
done
