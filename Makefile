# `make demo` trains a small grid of soft prompts, `make test` runs the tests, `make test-long` those over six seconds.
# `make notebooks` executes the notebooks and rewrites their outputs, `make docs` builds the site, `make test-docs` tests
# both. Each makes .venv first. .ci/run runs all tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long test-docs test-all lint results notebooks docs clean

demo: .venv/installed
	$(BIN)/python -m promptgeo.train sweep=quickstart

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

test-long: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long --ignore tests/test_notebooks.py --ignore tests/test_docs.py

test-docs: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long tests/test_notebooks.py tests/test_docs.py

# All of them in one session, as .ci/run does: workers start once, and wait for one another once.
test-all: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 40

notebooks: .venv/installed
	$(BIN)/python notebooks/execute.py

# Without a network; the first page is build/site/docs/index.html.
docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going -q -c docs . build/site

lint: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# The pages of docs/results. MODEL=<folder of the real model> [DATA=<folder of the published data>]: their CSVs too, in
# hours; the same command goes on where it was stopped.
results: .venv/installed
	$(if $(MODEL),$(BIN)/python docs/results/make.py --model $(MODEL) $(if $(DATA),--data $(DATA)),$(BIN)/python docs/results/pages.py)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv build dist
