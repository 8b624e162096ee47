#!/usr/bin/env bash
# Builds the library with its CUDA kernels, imports it and runs the operators' tests; if there is a GPU, also
# those that need one. Needs neither a GPU nor a CUDA toolkit: torch's CUDA build and nvcc come from PyPI into
# a separate environment. Quick when repeated.
#
# --check: a quick build for a machine without a GPU: one architecture, little optimisation, and without the
# C++ tests, which the other builds compile and run.
#
# Environment: TOPREACH_CUDA_VENV (default .venv-cuda), TOPREACH_CUDA_TORCH (torch==2.11.0, whose
# PyPI wheel is the CUDA 13.0 build), MAX_JOBS. Other arguments go to pytest. Needs python3, g++ and 6 GB of
# disk; ccache makes it quicker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

options=()
if [[ ${1:-} == --check ]]; then
  shift
  options=(-DTOPREACH_TESTS=OFF -DCMAKE_CUDA_ARCHITECTURES=90 "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG")
fi
venv=${TOPREACH_CUDA_VENV:-.venv-cuda}
torch=${TOPREACH_CUDA_TORCH:-torch==2.11.0}
build=build/cuda
package=$build/package  # the Python package with the CUDA library in it
tools="cmake ninja setuptools numpy pandas tqdm hypothesis matplotlib mpmath pyarrow pytest scipy"

[[ -x $venv/bin/python ]] || "${PYTHON:-python3}" -m venv "$venv"
python=$(cd "$venv/bin" && pwd)/python
stamp=$venv/topreach-cuda.txt
if [[ $(cat "$stamp" 2>/dev/null) != "$torch $tools" ]]; then
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet --disable-pip-version-check "$torch" $tools
  cuda=$("$python" -c 'import torch; print(torch.version.cuda or "")')
  if [[ -z $cuda ]]; then
    echo "cuda_build: $torch is a build without CUDA; name one with it in TOPREACH_CUDA_TORCH" >&2
    exit 1
  fi
  "$python" -m pip install --quiet --disable-pip-version-check \
    "cuda-toolkit[nvcc,nvvm,crt]==$cuda.*"
  echo "$torch $tools" >"$stamp"
fi

export PATH="$(dirname "$python"):$PATH" CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=$PWD
cmake -G Ninja -S . -B "$build" -DTOPREACH_CUDA=on -DTOPREACH_PYTHON=ON -DTOPREACH_WERROR=ON \
  -DPython_EXECUTABLE="$python" -DCMAKE_INSTALL_MESSAGE=NEVER "${options[@]}"
cmake --build "$build" -j "${MAX_JOBS:-2}"

rm -rf "$package"
mkdir -p "$package/topreach"
(cd python/topreach && tar -c --exclude=lib --exclude=include --exclude=share --exclude=__pycache__ .) |
  tar -x -C "$package/topreach"
cmake --install "$build" --prefix "$package/topreach"

export PYTHONPATH=$PWD/$package
"$python" - <<'CHECK'
import torch
import topreach

assert topreach.__file__.startswith(__import__("os").environ["PYTHONPATH"]), topreach.__file__
assert topreach.build_info["cuda"] == torch.version.cuda, topreach.build_info
names = {line.split("::")[1].split(".")[0] for line in torch._C._dispatch_get_all_op_names()
         if line.startswith("topreach::")}
has = torch._C._dispatch_has_kernel_for_dispatch_key
# These operators of a fit run on the CPU for every device.
names -= {"discrete_prior", "level_forecasts", "site_statistics", "site_totals"}
missing = [n for n in sorted(names)
           if has(f"topreach::{n}", "CPU") and not has(f"topreach::{n}", "CUDA")]
assert not missing, f"no CUDA kernel: {missing}"
print(f"topreach {topreach.__version__}, CUDA {torch.version.cuda}, GPU: {torch.cuda.is_available()}")
CHECK
operators=()
for name in cuda noise perturbed_topk conditional_topk ratio_ranking negbin bpr_op objectives \
  quota_topk hawkes_ops; do
  operators+=("tests/python/test_$name.py")
done
cpp=()
if ((${#options[@]} == 0)); then
  export TOPREACH_CPP_TESTS=$build
  cpp=(tests/test_cpp.py)
fi
"$python" -m pytest -q -p no:cacheprovider "${@:-${operators[@]}}" "${cpp[@]}"
