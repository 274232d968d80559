# make demo    set everything up and watch the loop run
# make test    set everything up and run all tests; what this machine lacks is skipped, and named at the end
# make check   what to run after each edit: lint, format, types, and the tests but the slow ones
# make docs    write docs/reference.md and docs/attacks.md anew, after a command, a key of autoresearch.toml, a tool or an attack has changed
VENV := .venv
BIN := $(VENV)/bin
# one more than there are cores: tests wait for programs most of their time
WORKERS := $(shell python3 -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: setup demo test check docs lint format types benchmarks
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/autoresearch-mcp demo demo/$$(date +%Y%m%d-%H%M%S)

test: setup
	$(PYTEST)

check: lint format types
	$(PYTEST) -m 'not slow'

docs: setup
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/attacks.py

lint: setup
	$(BIN)/ruff check .

format: setup
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

benchmarks: setup
	$(BIN)/python benchmarks/orchestration.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/tokens.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/patches.py
	$(BIN)/python benchmarks/nights.py
	$(BIN)/python benchmarks/baseline.py
