#!/usr/bin/env bash
# Builds, tests, sanitizes and measures the CUDA engine on a machine with a GPU, within nine
# minutes, and writes one record of it. Exits with 0 if every stage was good.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
bench/gpu_check.sh [options] [stage ...] [-- options of bench.cuda]

stages, all in this order where none is named:
  build      the extension, in place, for this machine's GPU (or TORCH_CUDA_ARCH_LIST)
  test       tests/test_cuda*.py, by pytest
  graph      training and inference in CUDA graphs, each kernel
  sanitize   each kernel under compute-sanitizer: memcheck, racecheck, synccheck
  bench      python -m bench.cuda

options:
  --out DIR      for gpu_check.json, .txt and .log (OUT, or bench/results); where stages are named,
                 their names are in the files' names
  --seconds N    for everything (510); a stage that is quick leaves its time to the others
  --commit ID    what is checked, where git does not tell (RNNCELLS_COMMIT)
  --dry-run      print each stage's time and command, and run nothing

PYTHON names the interpreter. GPU_CHECK_BUILD and so on, by a stage's name in capitals, replace its
command, as GPU_CHECK_MEMCHECK does for one of sanitize.
TEXT
}

refuse() {
  echo "gpu_check.sh: $1" >&2
  exit 2
}

python=${PYTHON:-python3}
out=${OUT:-$PWD/bench/results}
commit=${RNNCELLS_COMMIT:-}
seconds=510
dry=
named=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit ;;
    --out | --seconds | --commit)
      (($# > 1)) || refuse "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --dry-run) dry=yes ;;
    --) shift; break ;;
    build | test | graph | sanitize | bench) named+=("$1") ;;
    *) refuse "expected a stage (build, test, graph, sanitize, bench) or an option, got '$1'" ;;
  esac
  shift
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || refuse "--seconds: expected a whole number, got '$seconds'"
[[ $out = /* ]] || out=$caller/$out
bench_options=$(printf ' %q' "$@")
(($#)) || bench_options=
name=$(IFS=-; echo "gpu_check${named[*]:+-${named[*]}}")

stages=()
for stage in "${named[@]:-build test graph sanitize bench}"; do
  stages+=(${stage/sanitize/memcheck racecheck synccheck})
done

if [[ -z $commit ]]; then
  commit=$(git rev-parse --short HEAD 2>/dev/null) || commit=unknown
  [[ -z $(git status --porcelain 2>/dev/null) ]] || commit+=+
fi

# How the time is shared, in seconds of nine minutes.
share() {
  case $1 in
    build) echo 180 ;;
    test | bench) echo 100 ;;
    graph) echo 25 ;;
    *) echo 35 ;;
  esac
}

# Kernels are chosen from torch's own by our namespace. Without the cache of torch's allocator each
# tensor is an allocation of its own, with ends that memcheck knows. Our launches check themselves.
sanitizer() {
  echo "command -v compute-sanitizer >/dev/null ||" \
    "{ echo 'compute-sanitizer is not here'; exit 77; };" \
    "PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $1 --kernel-name kns=rnncells" \
    "--report-api-errors no --error-exitcode 9 $python -m bench.cuda_small"
}

# A CUDA build without its engine would skip every test: that is no success.
has_engine="$python -c 'import torch, rnncells.cuda as c; c.kernel_name(\"lstm\", torch.float32, 50, 32, 64)'"

# What a stage runs, with so many seconds to do it.
command_of() {
  local own=GPU_CHECK_${1^^}
  if [[ -v $own ]]; then
    echo "${!own}"
    return
  fi
  case $1 in
    build)
      local arch=${TORCH_CUDA_ARCH_LIST:-'$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)'}
      echo "TORCH_CUDA_ARCH_LIST=\"$arch\" FORCE_CUDA=1 MAX_JOBS=\$(nproc)" \
        "$python setup.py build_ext --inplace && $has_engine"
      ;;
    test) # not test_cuda_build.py: it compiles once more what the stage before has compiled
      echo "$python -c 'import pytest' 2>/dev/null ||" \
        "{ echo 'pytest is not here: the CUDA tests were not run'; exit 77; };" \
        "workers=\$($python -c 'import xdist' 2>/dev/null && echo '-n 4');" \
        "$has_engine && OMP_NUM_THREADS=4 $python -m pytest -q -m 'not slow' \$workers" \
        "-p no:cacheprovider --ignore=tests/test_cuda_build.py tests/test_cuda*.py"
      ;;
    graph) echo "$python -m bench.cuda_small --graph" ;;
    bench) # 20 seconds for the start, and for the row that is under way
      echo "$python -m bench.cuda --out $(printf %q "$out") --commit $(printf %q "$commit")" \
        "--seconds $(($2 > 40 ? $2 - 20 : $2 / 2))$bench_options"
      ;;
    *) sanitizer "$1" ;;
  esac
}

# A stage's share of so many seconds among those from its place on: what the stages before it did
# not need is for all that follow.
limit_of() {
  local place=$1 left=$2 mine sum=0 i
  mine=$(share "${stages[place]}")
  for ((i = place; i < ${#stages[@]}; ++i)); do
    sum=$((sum + $(share "${stages[i]}")))
  done
  local limit=$((left * mine / sum))
  echo $((limit > 1 ? limit : 1))
}

if [[ $dry ]]; then
  for place in "${!stages[@]}"; do
    limit=$(limit_of "$place" "$seconds")
    seconds=$((seconds - limit))
    echo "${stages[place]}: $limit s or more: $(command_of "${stages[place]}" "$limit")"
  done
  exit
fi

mkdir -p "$out"
logs=$(mktemp -d)
log=$out/$name.log
: >"$log"
: >"$logs/stages"
rm -f "$out/cuda.json"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} RNNCELLS_COMMIT=$commit

record() {
  "$python" -m bench.cuda_record --out "$out" --name "$name" --stages "$logs/stages" \
    --commit "$commit"
}
# Broken off, what was done by then is recorded. Jobs are groups of their own, which INT reaches.
set -m
trap 'kill -INT -- -$! 2>/dev/null || true; record; rm -rf "$logs"; exit 1' INT TERM

all_good=yes
for place in "${!stages[@]}"; do
  stage=${stages[place]}
  limit=$(limit_of "$place" $((seconds - SECONDS)))
  command=$(command_of "$stage" "$limit")
  echo "== $stage, at most $limit s: $command" | tee -a "$log"
  begun=$SECONDS code=0
  timeout --signal=INT --kill-after=5 "$limit" bash -c "$command" \
    </dev/null >"$logs/$stage" 2>&1 &
  wait $! || code=$?
  cat "$logs/$stage" >>"$log"
  printf '%s\t%s\t%s\t%s\t%s\n' \
    "$stage" "$code" $((SECONDS - begun)) "$limit" "$logs/$stage" >>"$logs/stages"
  ((code == 0)) || all_good=
  echo "== $stage: exit $code after $((SECONDS - begun)) s" | tee -a "$log"
done

record || all_good=
rm -rf "$logs"
echo "$out/$name.json"
[[ $all_good ]]
