# Everything a clone can do. The first target that needs Python makes .venv; later runs reuse it.
#   make demo                     detect on the bundled sample and print what was found
#   make test                     the whole test suite
#   make bench                    speed, as ratios measured in one run
#   make screenshots | make lint | make clean
#   make demo PYTHON=python3.12   with another Python (3.10 or later)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash

.PHONY: demo test bench screenshots lint clean help
.DEFAULT_GOAL := help

help:
	@sed -n '2,6s/^# *//p' Makefile

$(STAMP): pyproject.toml setup.py constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) is not there: install Python 3.10 or later, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), MedVAE needs 3.10 or later: name one with PYTHON=python3.12" >&2; \
	  exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/medvae detect --sample --output demo_output

# Two processes of one thread each: small convolutions gain little from a second thread. A file's tests stay together,
# as they share what they prepare. PROCESSES=0 runs everything in one process, PROCESSES=auto uses every core.
PROCESSES ?= 2
test: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

bench: $(STAMP)
	$(BIN)/python -m Testing.benchmarks $(BENCH_ARGS)

# The pictures of README and catalogue, rendered through the test host.
screenshots: $(STAMP)
	$(BIN)/python -m Testing.screenshots

lint: $(STAMP)
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output bench_output .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
