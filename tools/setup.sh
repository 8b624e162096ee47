#!/usr/bin/env bash
# make setup: installs system packages, .venv and torch, and builds the library. Does only what is missing or
# out of date.
#
# Environment (docs/building.md): PYTHON, TOPREACH_TORCH, TOPREACH_CUDA, CXX, MAX_JOBS, CMAKE_ARGS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly oldest_gcc=11
readonly default_torch="torch==2.13.0"
readonly venv_python=.venv/bin/python
readonly environment_stamp=.venv/topreach-setup.txt
readonly build_stamp=build/topreach-setup.txt

say() { printf 'setup: %s\n' "$*" >&2; }
stop() {
  say "$*"
  exit 1
}

# ---- system packages ---------------------------------------------------------------------------

python_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if command -v "$name" >/dev/null && python_is_new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
  return 1
}

compiler_is_new_enough() {
  command -v "$1" >/dev/null || return 1
  [[ $("$1" --version 2>/dev/null | head -n 1) == *clang* ]] && return
  local major
  major=$("$1" -dumpversion 2>/dev/null) || return 1
  [[ ${major%%.*} =~ ^[0-9]+$ ]] && ((${major%%.*} >= oldest_gcc))
}

find_compiler() {
  local name
  for name in ${CXX:-c++ g++ g++-14 g++-13 g++-12 g++-11 clang++}; do
    if compiler_is_new_enough "$name"; then
      echo "$name"
      return
    fi
  done
  return 1
}

has_googletest() {
  echo '#include <gtest/gtest.h>' | "$1" -x c++ -E -o /dev/null - 2>/dev/null
}

has_python_headers() {
  "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

is_in_apt() { [[ $(apt-cache policy "$1" 2>/dev/null) == *"Candidate: "[0-9]* ]]; }

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

may_be_root() {
  ((EUID == 0)) && return
  command -v sudo >/dev/null || return 1
  [[ -t 0 ]] || sudo -n true 2>/dev/null  # a password can be typed only at a terminal
}

# Fills the lists `packages`, with what is missing, and `reasons`, with what each is for.
find_missing_packages() {
  packages=() reasons=()
  local python compiler name
  if [[ -n ${CXX:-} ]] && ! find_compiler >/dev/null; then
    stop "CXX=$CXX is not a C++20 compiler (g++ $oldest_gcc or newer, or clang++): correct it, or" \
      "unset it"
  fi
  if [[ -n ${PYTHON:-} ]] && ! find_python >/dev/null; then
    stop "PYTHON=$PYTHON is not Python 3.11 or newer: correct it, or unset it"
  fi
  if python=$(find_python); then
    if ! can_make_venv "$python"; then
      name=python3-venv
      [[ $python == */python3.* ]] && name=${python##*/}-venv
      packages+=("$name") reasons+=("$name (to make .venv)")
    fi
    if ! has_python_headers "$python"; then
      name=python3-dev
      [[ $python == */python3.* ]] && name=${python##*/}-dev
      packages+=("$name") reasons+=("$name (headers that torch.compile needs)")
    fi
  else
    name=python3
    command -v python3 >/dev/null && name=$(newest_python_in_apt)
    packages+=("$name" "$name-venv" "$name-dev")
    reasons+=("$name, $name-venv, $name-dev (Python 3.11 or newer)")
  fi
  if ! compiler=$(find_compiler); then
    name=g++
    command -v g++ >/dev/null && name=$(newest_compiler_in_apt)
    packages+=("$name") reasons+=("$name (C++20 compiler)")
  fi
  if [[ -z $compiler && ! -e /usr/include/gtest/gtest.h ]] ||
    { [[ -n $compiler ]] && ! has_googletest "$compiler"; }; then
    packages+=(libgtest-dev) reasons+=("libgtest-dev (GoogleTest, for the C++ tests)")
  fi
}

newest_python_in_apt() {
  local name
  for name in python3.13 python3.12 python3.11; do
    is_in_apt "$name" && break
  done
  echo "$name"
}

newest_compiler_in_apt() {
  local name
  for name in g++-14 g++-13 g++-12 g++-11; do
    is_in_apt "$name" && break
  done
  echo "$name"
}

install_system_packages() {
  find_missing_packages
  ((${#packages[@]})) || return 0
  local list command
  printf -v list '%s, ' "${reasons[@]}"
  say "missing: ${list%, }"
  command="apt-get install -y --no-install-recommends ${packages[*]}"
  if ! command -v apt-get >/dev/null; then
    stop "this is neither Debian nor Ubuntu: install the same with your system's own package" \
      "manager, then run make again"
  fi
  if ! may_be_root; then
    if [[ ! ${packages[*]} =~ (g\+\+|venv) ]]; then
      say "going on without, so that some tests cannot run; to have them: sudo $command"
      return
    fi
    stop "installing them takes root. Run: sudo apt-get update && sudo $command"
  fi
  say "installing them: $command"
  as_root apt-get update -q >&2 ||
    say "apt-get update failed (see above); trying with the lists at hand"
  as_root env DEBIAN_FRONTEND=noninteractive $command >&2 ||
    stop "apt-get could not install them (see above). Mend that, for instance the network, and run:" \
      "sudo apt-get update && sudo $command"
  find_missing_packages
  ((!${#packages[@]})) || stop "still missing after the installation: ${packages[*]}"
}

# ---- .venv -------------------------------------------------------------------------------------

make_venv() {
  if [[ -e .venv || -L .venv ]]; then
    "$venv_python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    say ".venv is incomplete or its Python is gone: making it anew"
    rm -rf .venv
  fi
  local python
  python=$(find_python)
  say "making .venv with $("$python" --version) ($python)"
  "$python" -m venv .venv || {
    rm -rf .venv
    stop "$python could not make .venv (see above)"
  }
}

pip_install() {
  "$venv_python" -m pip install -q --disable-pip-version-check "$@" >&2
}

# Prints the version of torch in .venv, or nothing. Reads a file, because importing torch is slow.
torch_version() {
  sed -n "s/^__version__ = '\(.*\)'/\1/p" .venv/lib/python3*/site-packages/torch/version.py \
    2>/dev/null || true
}

wants_cuda() {
  case ${TOPREACH_CUDA:-auto} in
    on) ;;
    off) return 1 ;;
    *) nvidia-smi -L >/dev/null 2>&1 ;;
  esac
}

# Prints the CUDA version of the torch in .venv, or nothing.
torch_cuda_version() {
  sed -n "s/^cuda: .* = '\(.*\)'/\1/p" .venv/lib/python3*/site-packages/torch/version.py \
    2>/dev/null || true
}

install_nvcc() {
  local cuda
  wants_cuda || return 0
  cuda=$(torch_cuda_version)
  [[ -n $cuda ]] || return 0
  if [[ -n ${CUDACXX:-} || -x /usr/local/cuda/bin/nvcc ]] || command -v nvcc >/dev/null; then
    return
  fi
  say "installing nvcc $cuda into .venv (without CUDA: TOPREACH_CUDA=off)"
  pip_install "cuda-toolkit[nvcc,nvvm,crt]==$cuda.*" ||
    stop "pip could not install nvcc (see above). Install the CUDA toolkit $cuda yourself, or build" \
      "without: make setup TOPREACH_CUDA=off"
}

install_torch() {
  local no_network="Is there a network? Behind a proxy, set https_proxy; with a wheel at hand, run: "
  no_network+="make setup TOPREACH_TORCH=<its path>"
  if [[ -n ${TOPREACH_TORCH:-} ]]; then
    say "installing $TOPREACH_TORCH"
    # shellcheck disable=SC2086  # it may hold several words for pip
    pip_install $TOPREACH_TORCH || stop "pip could not install TOPREACH_TORCH (see above)"
    return
  fi
  case $(torch_version) in 2.11.* | 2.12.* | 2.13.*) return ;; esac
  if wants_cuda; then
    say "installing $default_torch with CUDA (5 GB; without: TOPREACH_CUDA=off)"
  else
    say "installing $default_torch (for the CPU build, where pip would take the one with CUDA, see" \
      "docs/building.md)"
  fi
  pip_install "$default_torch" || stop "pip could not install $default_torch (see above). $no_network"
}

environment_key() {
  printf 'folder %s\npython %s\ntorch %s\nasked for %s\n' "$PWD" "$("$venv_python" --version)" \
    "$(torch_version)" "${TOPREACH_TORCH:-}"
  cksum pyproject.toml setup.py tools/setup.sh
  sed -n 's/^project(topreach /&/p' CMakeLists.txt
}

environment_is_current() {
  [[ -e $environment_stamp ]] || return 1
  local made now
  made=$(<"$environment_stamp")
  now=$(environment_key)
  if [[ -z ${TOPREACH_TORCH:-} ]]; then  # keep the torch that an earlier TOPREACH_TORCH chose
    made=$(grep -v '^asked for' <<<"$made")
    now=$(grep -v '^asked for' <<<"$now")
  fi
  [[ $made == "$now" ]]
}

# ---- the library -------------------------------------------------------------------------------

build_key() {
  printf 'folder %s\ntorch %s\nCUDA %s\nCXX %s\narguments %s\n' "$PWD" "$(torch_version)" \
    "${TOPREACH_CUDA:-}" "${CXX:-}" "${CMAKE_ARGS:-}"
}

build_is_current() {
  [[ -e $build_stamp && -e python/topreach/share/topreach/build_info.json ]] || return 1
  diff -q "$build_stamp" <(build_key) >/dev/null || return 1
  # GoogleTest may have been installed since.
  [[ -x build/tests/topreach_kernel_tests || ! -e /usr/include/gtest/gtest.h ]] || return 1
  local sources=(CMakeLists.txt setup.py cmake csrc kernels tests/CMakeLists.txt tests/csrc)
  sources+=(tests/kernels)
  [[ -d tests/cuda ]] && sources+=(tests/cuda)
  [[ -z $(find "${sources[@]}" -newer "$build_stamp" -print -quit) ]]
}

check_cuda_torch() {
  [[ ${TOPREACH_CUDA:-auto} == on ]] || return 0
  "$venv_python" -c 'import sys, torch; sys.exit(not torch.version.cuda)' ||
    stop "TOPREACH_CUDA=on needs a CUDA build of torch, but .venv has $(torch_version). Run:" \
      "make distclean, then make setup TOPREACH_CUDA=on TOPREACH_TORCH=torch==2.11.0"
}

build() {
  check_cuda_torch
  say "building the library and its C++ tests (the first time takes minutes)"
  local compiler started tests=ON
  compiler=$(find_compiler)
  mkdir -p build
  started=$(mktemp)
  has_googletest "$compiler" || tests=OFF
  CXX=${CXX:-$compiler} CMAKE_ARGS="-DTOPREACH_TESTS=$tests ${CMAKE_ARGS:-}" \
    "$venv_python" setup.py -q build_ext --inplace >&2 || {
    rm -f "$started"
    stop "the build failed (see above); docs/building.md has a list of causes"
  }
  build_key >"$build_stamp"
  touch -r "$started" "$build_stamp"  # so that files edited during the build count as newer
  rm -f "$started"
}

# ------------------------------------------------------------------------------------------------

main() {
  local fresh=
  if [[ -x $venv_python ]] && environment_is_current && build_is_current; then
    return
  fi
  install_system_packages
  make_venv
  if ! environment_is_current; then
    fresh=1
    install_torch
    install_nvcc
    pip_install "setuptools>=77" wheel cmake ninja numpy ||
      stop "pip could not install setuptools, cmake, ninja and numpy (see above)"
  fi
  if ! build_is_current; then
    build
  fi
  if [[ $fresh ]]; then
    say "installing topreach and what its tests need into .venv"
    CXX=${CXX:-$(find_compiler)} pip_install --no-build-isolation -e '.[plot,parquet,test,lint]' ||
      stop "pip could not install topreach (see above)"
    environment_key >"$environment_stamp"
  fi
  say "done"
}

main
exit  # so that bash does not read on if this file changes during the run
