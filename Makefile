# One rule makes .venv; everything else depends on it. `make PYTHON=python3.12 test` uses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests start hundreds of processes: compiled modules are kept, even where the environment says not to (as images of containers do).
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal
GOLDEN := $(TEST) -m "not slow" tests/experiment/test_golden.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-all test-oldest golden lint docs bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lifelong needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev,docs]' -c constraints.txt
	touch $@

run: $(STAMP) ## learn the stream of digits with PAR, next to Finetune and Independent (1 to 3 minutes)
	$(BIN)/lifelong compare --stream digits --methods par,finetune,independent --preset quick --variant par --seeds 0 --out runs/digits

test: $(STAMP) ## run the tests, without the slow ones
	$(TEST) -m "not slow"

test-all: $(STAMP) ## run every test, including scientific checks that take minutes
	$(TEST)

test-oldest: ## run the tests on the lowest supported versions (on Linux that downloads several gigabytes of PyTorch)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -e '.[hub,onnx]' beartype hypothesis optuna pytest pytest-xdist scikit-learn -c constraints-oldest.txt
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not slow" -W default --ignore tests/documentation --ignore tests/serving --ignore tests/experiment/test_golden.py

golden: $(STAMP) ## check every method's numbers as computed with AVX-512 (if available), AVX2 and SSE4
	$(GOLDEN)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(GOLDEN)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(GOLDEN)

lint: $(STAMP) ## check style, format, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check
	$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP) ## time the fast paths against plain ones; rows go to results/speed.csv
	$(BIN)/python -m benchmarks

clean: ## remove the virtual environment, runs and caches
	rm -rf $(VENV) .venv-oldest runs site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
