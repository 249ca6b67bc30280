# Everything a developer runs. Needs only Python 3.11 or newer, pip and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # the tests start a hundred processes: compile modules once
.PHONY: help run test check suite golden bench docs docs-site pictures slow clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "simpod needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(STAMP) ## simulate the quickstart and print its table
	$(BIN)/simpod run quickstart

test: check suite ## everything that CI runs: check and suite; `make -j2 test` at the same time

check: $(STAMP) ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

suite: $(STAMP) ## the tests but the slow ones
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

golden: $(STAMP) ## rewrite tests/golden and print what moved
	$(BIN)/python tests/test_golden.py --write

bench: $(STAMP) ## the simulator's own speed
	$(BIN)/simpod bench

docs: $(STAMP) ## rewrite the generated tables of docs/ and the JSON Schemas
	$(BIN)/python docs/generate.py

docs-site: $(STAMP) ## the documentation as a site, in build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(STAMP) ## run the notebooks in full, keep their pictures and those of the report in docs/pictures
	for notebook in notebooks/[0-9]*.py; do SIMPOD_PICTURES=docs/pictures $(BIN)/python $$notebook || exit 1; done
	$(BIN)/python docs/screenshots.py docs/pictures

slow: $(STAMP) ## the tests that take minutes; installs Ray and Dask for them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,engines]'
	SIMPOD_REQUIRE_ENGINES=1 $(BIN)/python -m pytest -n auto -m slow
	SIMPOD_LAW_EXAMPLES=200 $(BIN)/python -m pytest -n auto tests/test_laws.py tests/test_scaling.py tests/test_fabric_runs.py tests/test_frontend.py

clean: ## remove .venv and everything that tools leave behind
	rm -rf .venv build dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
