#!/bin/bash
# On a machine with a GPU: unpack what pack.sh made and run parts of the
# checks there, each with a limit and a log of its own.
#
#   tests/device/run.sh ARCHIVE LOGS PART…
#     tests      every operator, then whole programs, against the CPU
#     test_backends_program   and the like: one of those
#     memcheck racecheck initcheck synccheck   compute-sanitizer on operators
#     check      experiments/check.lua
#     bench      experiments/bench.lua with $BENCH: ours beside PyTorch
#     raw        tests/device/bench.lua with $BENCH: ours alone, one process
#     products   products.cu: the library's products one by one, built here
#     sustained  sustained.cu: its algorithms at the power limit, $WIDTHS (with
#                "all" before: also those that it does not offer)
#     updates    tests/c/bench_updates.c: updates of a model's matrices
#     attention  test_attention.cu: against double, then timed
#     square     test_square.cu, on compute capability 9.0: the same
#     losses     loss.lua on the packed corpus: precisions beside each other
#     counters   ncu on the kernels that $NCU (a regular expression) names
#     sweep      experiments/sweep.lua with $SWEEP on the packed corpus
#   and any file of tests/lua, run on the device; f32:FILE runs it with
#   programs in f32 where it does not say otherwise.
#
# $ROOM (build/room) is where everything is unpacked and runs; $LIMIT bounds
# bench, raw, counters and sweep, in seconds.
set -u
archive=$(realpath "$1") logs=$(realpath -m "$2")
shift 2
room=$(realpath -m "${ROOM:-build/room}")
mkdir -p "$room" "$logs"
[ -e "$room/build/llmhost" ] || tar -C "$room" -xzf "$archive" || exit 1
cd "$room" || exit 1

# Our libraries are for our programs alone: PyTorch gets a python of its own.
cuda=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
cat >"$room/python" <<EOF
#!/bin/sh
LD_LIBRARY_PATH='${LD_LIBRARY_PATH:-}' exec python3 "\$@"
EOF
chmod +x "$room/python"
export LLMHOST_PYTHON=$room/python LLMHOST=$room/build/release/llmhost
export LD_LIBRARY_PATH=$room/build/release/lib:$cuda/lib64:${LD_LIBRARY_PATH:-}
export LUA_PATH="tests/lua/?.lua;;"

# part NAME SECONDS COMMAND…: its log, its time
part() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  timeout -k 5 "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null
  echo "== $name: exit $?, $((SECONDS - start)) s"
}

summary() { # NAME: failures, and how many passed
  grep -E '^(not ok|skip)|^# .*(:|error).*' "$logs/$1.log" |
    grep -v 'error [0-9.e-]* of' | head -n "${2:-40}"
  echo "   $(grep -c '^ok' "$logs/$1.log") ok"
}

# One test of a program under a tool: its result line and what was found.
sanitize_one() { # TOOL PROGRAM TEST
  BACK_ONLY=$3 timeout -k 5 "${LIMIT:-100}" compute-sanitizer --tool "$1" \
    --print-limit 5 "build/release/tests/$2" 2>&1 </dev/null |
    grep -E '^(ok|not ok|skip)|^# .*:[0-9]+:|=========' | sed "s/^/$1 $3: /"
  [ "${PIPESTATUS[0]}" = 124 ] && echo "$1 $3: stopped by its limit"
}
export -f sanitize_one

sanitize() { # TOOL: all tests, eight at a time
  local start=$SECONDS
  for t in test_backends test_backends_beside test_backends_model \
    test_backends_e4m3; do
    BACK_ONLY=list "build/release/tests/$t" | grep -v coverage |
      xargs -P 8 -I{} bash -c "sanitize_one $1 $t {}"
  done >"$logs/$1.log" 2>&1
  echo "== $1: $(grep -c SUMMARY "$logs/$1.log") tests," \
    "$(grep SUMMARY "$logs/$1.log" | grep -vc ' 0 ') with findings," \
    "$((SECONDS - start)) s"
  grep -E 'not ok|stopped by' "$logs/$1.log"
  grep SUMMARY "$logs/$1.log" | grep -v ' 0 '
}

nvidia-smi --query-gpu=name,driver_version,clocks.sm,temperature.gpu \
  --format=csv,noheader
for part in "$@"; do
  case $part in
  tests)
    for t in test_backends test_backends_beside test_backends_model \
      test_backends_e4m3 test_backends_program; do
      part "$t" 150 "build/release/tests/$t"
      summary "$t"
    done
    ;;
  test_backends*)
    part "$part" 150 "build/release/tests/$part"
    summary "$part"
    ;;
  memcheck | racecheck | initcheck | synccheck) sanitize "$part" ;;
  check)
    part check 60 build/llmhost experiments/check.lua data.source=corpus.txt
    cat "$logs/check.log"
    ;;
  bench | raw)
    script=experiments/bench.lua
    [ "$part" = bench ] || script=tests/device/bench.lua
    # shellcheck disable=SC2086
    part "$part" "${LIMIT:-300}" build/llmhost $script ${BENCH:-}
    cat "$logs/$part.log"
    cat "$logs/$part.log" >>"$logs/$part.all.log"
    ;;
  products)
    nvcc -O2 -arch=native -o build/products tests/device/products.cu \
      -lcublasLt && part products 60 build/products
    cat "$logs/products.log"
    ;;
  sustained)
    # shellcheck disable=SC2086
    nvcc -std=c++17 -O2 -o build/sustained tests/device/sustained.cu \
      -lcublasLt -ldl &&
      part sustained "${LIMIT:-120}" build/sustained 120 ${WIDTHS:-1024 1280}
    cat "$logs/sustained.log"
    ;;
  updates)
    # shellcheck disable=SC2086
    part updates 90 build/release/tests/bench_updates ${UPDATES:-}
    cat "$logs/updates.log"
    ;;
  attention)
    part attention 90 build/release/tests/test_attention
    grep -B1 FAILED "$logs/attention.log"
    part attention_times 60 build/release/tests/test_attention bench
    tail -n 1 "$logs/attention.log"
    cat "$logs/attention_times.log"
    ;;
  square)
    part square 60 build/release/tests/test_square
    grep '^side.*depth' "$logs/square.log"
    tail -n 1 "$logs/square.log"
    part square_times 60 build/release/tests/test_square time
    cat "$logs/square_times.log"
    ;;
  losses)
    # shellcheck disable=SC2086
    part losses "${LIMIT:-120}" build/llmhost tests/device/loss.lua \
      corpus.txt ${LOSSES:-}
    cat "$logs/losses.log"
    ;;
  counters)
    # shellcheck disable=SC2086
    part counters "${LIMIT:-120}" ncu --clock-control none \
      --kernel-name "regex:${NCU:-k_}" --launch-count "${NCU_COUNT:-12}" \
      --section SpeedOfLight --section WarpStateStats --section Occupancy \
      --section ComputeWorkloadAnalysis build/llmhost \
      tests/device/bench.lua ${BENCH:-}
    grep -E '^ +(k_|void k_)|Duration|Throughput|Issue Slots Busy|Occupancy' \
      "$logs/counters.log" | grep -v Theoretical
    ;;
  sweep)
    # shellcheck disable=SC2086
    part sweep "${LIMIT:-500}" build/llmhost experiments/sweep.lua \
      data.source=corpus.txt data.tokens=4000000 ${SWEEP:-}
    tail -n 45 "$logs/sweep.log"
    ;;
  *.lua)
    name=$(basename "$part" .lua)
    script=("${part#f32:}")
    [ "$part" = "${script[0]}" ] ||
      script=(tests/device/f32.lua "${script[0]}")
    part "$name" "${SECONDS_EACH:-90}" build/llmhost "${script[@]}"
    summary "$name" 12
    ;;
  *) echo "run.sh: no part is called $part" >&2 && exit 2 ;;
  esac
done
