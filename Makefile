# make demo    set everything up and watch the loop run
# make test    set everything up and run the tests
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint format types benchmarks
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/autoresearch-mcp demo demo/$$(date +%Y%m%d-%H%M%S)

test: setup
	$(BIN)/pytest -m training
	$(BIN)/pytest -m 'not training' -n 2

lint: setup
	$(BIN)/ruff check .

format: setup
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

benchmarks: setup
	$(BIN)/python benchmarks/orchestration.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/tokens.py
