#!/usr/bin/env bash
# make lint: checks the formatting and the types of the code. Runs all checks, then fails if one failed.
# FIX=1 lets ruff and clang-format correct what they can.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=${LINT_BIN:-.venv/bin}
fix=${FIX:-}
status=0

check() {
  local name=$1
  shift
  if ! "$@"; then
    printf 'lint: %s: FAILED (%s)\n' "$name" "$*" >&2
    status=1
  fi
}

format_cpp() {
  local mode=(--dry-run --Werror)
  [[ $fix ]] && mode=(-i)
  git ls-files -z -- '*.h' '*.cpp' '*.cu' '*.cuh' |
    xargs -0 "$bin/clang-format" "${mode[@]}"
}

if [[ $fix ]]; then
  "$bin/ruff" check --fix -q . || true
  "$bin/ruff" format -q .
fi
check "ruff" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check -q .
check "clang-format" format_cpp
check "mypy" "$bin/mypy" --no-error-summary
exit $status
