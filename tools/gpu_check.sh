#!/usr/bin/env bash
# Tests and times the CUDA kernels in 8 minutes on a machine with a GPU.
#
#   tools/gpu_check.sh build [FOLDER]     on a machine with a network: builds the package with CUDA and
#                                         puts it, the tests and the benchmark into FOLDER (gpu_check)
#   tools/gpu_check.sh run [RESULTS.md]   on the machine with the GPU: needs torch 2.11.0+cu130, NumPy,
#                                         pandas, tqdm and pytest there, no network and no compiler
#
# `run` writes one file: the machine, what passed, what failed, and what could not be done and why.
# benchmarks/cuda.md is written from it. Exit status: 0 if everything ran and passed, 1 if something
# failed, 3 if something could not be done.
#
# Environment: PYTHON (python3); for `build` also that of .ci/cuda_build.sh. The package's Python module
# works with one minor version of Python only, so build with the version of the other machine:
# PYTHON=python3.12 tools/gpu_check.sh build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
mode=${1:-}

build() {
  local folder=${1:-gpu_check}
  .ci/cuda_build.sh tests/python/test_cuda.py
  rm -rf "$folder"
  mkdir -p "$folder/tools" "$folder/tests/python"
  cp -r build/cuda/package/topreach "$folder/"
  cp -r benchmarks "$folder/"
  cp -r experiments "$folder/topreach_experiments"  # the benchmark times their problems
  cp tools/gpu_check.sh "$folder/tools/"
  cp tests/conftest.py "$folder/tests/"
  cp tests/python/test_cuda.py "$folder/tests/python/"
  rm -rf "$folder/topreach/include" "$folder/topreach/share/cmake"
  du -sh "$folder" | sed 's/^/gpu_check: built, /'
  echo "gpu_check: carry $folder to the machine with the GPU; there: tools/gpu_check.sh run"
}

# ---- run, on the machine with the GPU ----------------------------------------------------------

failed=0 undone=0
# step NAME SECONDS COMMAND...: runs the command and keeps its last lines.
step() {
  local name=$1 limit=$2 log status=0 started=$SECONDS
  shift 2
  log=$(mktemp)
  echo "gpu_check: $name ..." >&2
  timeout "$limit" "$@" >"$log" 2>&1 || status=$?
  local verdict="passed"
  if ((status == 124)); then
    verdict="**not done**: stopped after $limit s" undone=1
  elif ((status != 0)); then
    verdict="**failed** (exit status $status)" failed=1
  fi
  printf '| %s | %s | %s s |\n' "$name" "$verdict" "$((SECONDS - started))" >>"$verdicts"
  { printf '\n### %s\n```\n' "$name"; tail -n 25 "$log"; printf '```\n'; } >>"$logs"
  rm -f "$log"
  return 0
}
skip() {
  printf '| %s | **not done**: %s | |\n' "$1" "$2" >>"$verdicts"
  echo "gpu_check: $1 not done: $2" >&2
  undone=1
}

machine() {
  echo "- date: $(date -u '+%Y-%m-%d %H:%M UTC'); $(uname -srm)"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader \
    2>/dev/null | sed 's/^/- GPU: /' || true
  "$python" - <<'VERSIONS'
import platform
print(f"- Python {platform.python_version()}")
try:
    import torch
    print(f"- torch {torch.__version__}, CUDA {torch.version.cuda}")
    import topreach
    print(f"- topreach {topreach.__version__}, CUDA {topreach.build_info['cuda'] or 'none'}")
except ImportError as error:
    print(f"- {error}")
VERSIONS
}

# Prints nothing if kernels can run here, else what is missing.
what_is_missing() {
  "$python" - <<'CHECK' 2>/dev/null || echo "topreach or torch cannot be imported by $python"
import torch
import topreach
if not topreach.build_info["cuda"]:
    print("the package was built without CUDA; use tools/gpu_check.sh build")
elif not torch.cuda.is_available():
    print("torch sees no GPU (torch.cuda.is_available())")
CHECK
}

run() {
  local results=${1:-gpu_results.md} missing sanitizer tests=tests/python/test_cuda.py
  if [[ -d topreach ]]; then  # the folder that `build` made; otherwise this is a source tree
    export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
  else
    export PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH}
  fi
  verdicts=$(mktemp) logs=$(mktemp)
  missing=$(what_is_missing)
  local pytest=("$python" -m pytest -q -p no:cacheprovider)
  if [[ -n $missing ]]; then
    for name in "CUDA tests" "no waiting, CUDA graphs" "compute-sanitizer" "benchmark"; do
      skip "$name" "$missing"
    done
  else
    step "CUDA tests" 150 "${pytest[@]}" "$tests" -k "not graph and not wait"
    step "no waiting, CUDA graphs" 60 "${pytest[@]}" "$tests" -k "graph or wait"
    sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
    if [[ -x $sanitizer ]]; then
      for tool in memcheck racecheck; do
        step "compute-sanitizer, $tool" 45 "$sanitizer" --tool "$tool" --error-exitcode 9 \
          "${pytest[@]}" "$tests" -k "mask_and_special_values or nan_rows"
        step "compute-sanitizer, $tool, quotas and Hawkes" 40 "$sanitizer" --tool "$tool" \
          --error-exitcode 9 "${pytest[@]}" "$tests" -k "(quota and 120) or hawkes"
      done
    else
      skip "compute-sanitizer" "it is not installed (neither on the PATH nor in /usr/local/cuda/bin)"
    fi
    step "benchmark" 100 "$python" -m benchmarks.gpu --out "$logs.table"
  fi
  {
    echo "# GPU check"
    echo
    machine
    printf '\n| step | result | time |\n|---|---|--:|\n'
    cat "$verdicts"
    if [[ -s $logs.table ]]; then
      printf '\n## Times\n'
      cat "$logs.table"
    fi
    if [[ -s $logs ]]; then
      printf '\n## Last lines of each step\n'
      cat "$logs"
    fi
  } >"$results"
  rm -f "$verdicts" "$logs" "$logs.table"
  echo "gpu_check: written: $results" >&2
  if ((failed)); then exit 1; fi
  if ((undone)); then exit 3; fi
}

case $mode in
  build | run) shift; "$mode" "$@" ;;
  *)
    sed -n '2,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
