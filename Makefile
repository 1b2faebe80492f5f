# make book reads the pinned packages of requirements.txt; everything it makes lies in .venv and _build.
PYTHON ?= python3
PROFILE ?= quick
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: book read test mutants kernels lint bench clean
.DEFAULT_GOAL := book

book: $(INSTALLED)  ## run the chapters that changed and make _build/html
	$(BIN)/slowmanifold build --profile $(PROFILE)

read: book  ## make the book and serve it on this machine
	$(BIN)/slowmanifold serve

test: $(INSTALLED)  ## unit tests, the gate over all chapters, the built book in a browser
	$(BIN)/slowmanifold build
	$(BIN)/slowmanifold check
	$(BIN)/pytest -n auto --dist loadscope

mutants: $(INSTALLED)  ## a fault in the package turns a claim red: seventeen of them, each in a build of its own
	$(BIN)/pytest -m slow tests/press/test_mutation.py

kernels: $(INSTALLED)  ## the gate on other kernels of the linear algebra, with one thread and with two
	$(BIN)/pytest -m slow tests/press/test_kernels.py

lint: $(INSTALLED)  ## style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## each speed claim against what a user would pick instead, recorded for the book
	$(BIN)/python benchmarks

clean:  ## remove what was made; the environment stays
	rm -rf _build

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
