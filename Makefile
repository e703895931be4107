# Two commands: make demo, make test. Needs python3 (3.11 or newer) with venv and pip; a C compiler is used if there is one.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= runs/demo

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: .venv/.base
	@$(BIN)/recurra compare stdlib --preset demo --run $(DEMO) --resume
	@$(BIN)/recurra generate $(DEMO) --prompt 'def ' --max-new-tokens 400

# Bytecode is kept, whatever the environment says: every process that a test starts would compile all of it again.
test: .venv/.test
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.bench
	$(BIN)/python -m benchmarks.operations
	$(BIN)/python benchmarks/native.py
	$(BIN)/python -m benchmarks.bench $(BENCH)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("recurra needs Python 3.11 or newer; this is %d.%d: set PYTHON=/path/to/a/newer/python3" % sys.version_info[:2])'
	@$(PYTHON) -m venv .venv || { echo "python3 has no venv: install it (Debian: apt install python3-venv)"; rm -rf .venv; exit 1; }

# What was installed is recorded; a second make starts at once.
.venv/.base: .venv/bin/python pyproject.toml constraints.txt
	@echo "Setting up .venv (once; torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable > .venv/installed.txt
	@touch $@

.venv/.test: .venv/.base
	@echo "Installing what the tests and linters need (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	@$(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable > .venv/installed.txt
	@touch $@

.venv/.bench: .venv/.base
	@echo "Installing the layers of others to measure beside (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable > .venv/installed.txt
	@touch $@

clean:
	rm -rf .venv runs
