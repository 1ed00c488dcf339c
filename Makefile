# One rule makes .venv; everything else stands on it. `make PYTHON=python3.12 test` takes another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GOLDEN := $(BIN)/python -m pytest -n 2 -m "not slow" tests/experiment/test_golden.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-all test-oldest golden lint docs bench clean

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lifelong needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev,docs]' -c constraints.txt
	touch $@

run: $(STAMP) ## learn the stream of digits with PAR, next to Finetune and Independent (1 to 3 minutes)
	$(BIN)/lifelong compare --stream digits --methods par,finetune,independent --preset quick --seeds 0 --out runs/digits

test: $(STAMP) ## the tests, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(STAMP) ## every test, also the scientific checks that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-oldest: ## the tests on the lowest versions of everything (on Linux that downloads several gigabytes of PyTorch)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -e '.[onnx]' beartype hypothesis optuna pytest pytest-xdist -c constraints-oldest.txt
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 -m "not slow" -W default --ignore tests/documentation --ignore tests/experiment/test_golden.py

golden: $(STAMP) ## every method's numbers, as processors with AVX-512 (where there is one), AVX2 and SSE4 compute them
	OMP_NUM_THREADS=1 $(GOLDEN)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(GOLDEN)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(GOLDEN)

lint: $(STAMP) ## style, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check
	$(BIN)/lint-imports

docs: $(STAMP) ## the documentation as a site, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP) ## time the fast paths against plain ones; rows go to results/speed.csv
	$(BIN)/python -m benchmarks

clean: ## remove the virtual environment, runs and caches
	rm -rf $(VENV) .venv-oldest runs site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
