# Each target does its own set-up. Variables: docs/building.md.
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lint mutate clean distclean
PY := .venv/bin/python
WORKERS ?= auto

help: ## List these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: ## Install what is missing, make .venv, build the library into it
	@bash tools/setup.sh

demo: setup ## Train on data, compare the methods, write topreach-demo/ (ARGS="...")
	@.venv/bin/topreach demo $(ARGS)

test: setup ## Run every test, the C++ ones among them (ARGS="-k name"; WORKERS=0 for one process)
	@$(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile $(ARGS)

bench: setup ## Measure against plain PyTorch, write benchmarks/RESULTS.md
	@$(PY) -m benchmarks $(ARGS)

lint: setup ## Check form and types: ruff, clang-format, mypy
	@bash tools/lint.sh

mutate: setup ## Change code at random and see whether tests notice (ARGS="python/topreach/data")
	@$(PY) tools/mutate.py $(ARGS)

clean: ## Remove what was built; .venv stays
	rm -rf build dist python/topreach.egg-info
	rm -rf python/topreach/lib python/topreach/include python/topreach/share

distclean: clean ## Remove .venv as well
	rm -rf .venv
