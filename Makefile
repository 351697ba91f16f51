# make demo and make test do everything on a fresh machine: environment, installation, run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# Ray's native code has ended the test process without an error, each time in the last of these tests; so they have
# processes of their own, and the last three tries: a real failure fails each time.
RAY_TESTS := tests/search/test_executors.py
RAY_LAST := $(RAY_TESTS)::test_search_on_ray_writes_the_journal_of_a_serial_one

.PHONY: demo test lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/nas run examples/demo.yaml

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --ignore=$(RAY_TESTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(RAY_TESTS) --deselect $(RAY_LAST)
	for try in 1 2 3; do OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(RAY_LAST) && exit 0; done; exit 1

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
