#!/usr/bin/env bash
# Builds the C++ tests with AddressSanitizer and UndefinedBehaviorSanitizer and runs them.
# Run `make setup` first: its .venv has torch, CMake and pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
build=build/sanitize
# Warnings are not errors here: with sanitizers GCC gives false warnings for torch's headers.
cmake -G Ninja -S . -B "$build" -DTOPREACH_CUDA=off -DTOPREACH_SANITIZE=ON \
  -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -g1" -DPython_EXECUTABLE="$PWD/.venv/bin/python"
cmake --build "$build" -j "${MAX_JOBS:-2}"
# torch itself is not built with the sanitizers. A container that torch fills and our code reads has
# no annotations, so reading it looks like an overflow. Nothing else is suppressed.
export ASAN_OPTIONS=detect_container_overflow=0:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1
TOPREACH_CPP_TESTS="$build" .venv/bin/python -m pytest tests/test_cpp.py
