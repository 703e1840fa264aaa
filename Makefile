# `make demo`: install, run a sweep on real data, print its table.   `make test`: lint, types, tests.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-fast lint types format bench slurm-up slurm-down clean install install-test help

help:
	@echo "make demo       install, run sweeps/digits.yaml, print its table"
	@echo "make test       lint, types, tests           make test-fast  the same without the slow tests"
	@echo "make test-all   the same with every exhaustive case, where make test takes an eighth, another one each commit"
	@echo "make bench      measure speed                make format     format and sort imports"
	@echo "make slurm-up   a SLURM cluster for the tests make slurm-down  stop it and remove it (root, Debian)"
	@echo "make lint       ruff                         make types      mypy"
	@echo "make clean      remove .venv and caches (results stay)"

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "itopctl needs Python 3.10 or newer, not " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/itopctl sweep sweeps/digits.yaml
	$(BIN)/itopctl report digits --table paper

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint types
	$(BIN)/python -m tests --jobs $(JOBS)

test-all: lint types
	$(BIN)/python -m tests --jobs $(JOBS) --all

test-fast: lint types
	$(BIN)/python -m tests --jobs $(JOBS) --fast

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks

slurm-up:
	$(PYTHON) -m tests.slurm.cluster up

slurm-down:
	$(PYTHON) -m tests.slurm.cluster down

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
