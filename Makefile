# Two commands set up all that is needed on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
# A process of tests a core; on one core none besides pytest itself. `make test WORKERS=1` is one after another.
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
PARALLEL = $(if $(filter-out 0 1,$(WORKERS)),-n $(WORKERS) --dist worksteal)

.PHONY: demo test test-quick lint format contract clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# The stamp is newer than what the install depends on, so that a second call is quick.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing qrun into $(VENV) (once; a minute or two, about 2 GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

demo: $(VENV)/.installed  ## the main job: a federated QGAN on the noisy twin of IBM Kyiv
	$(BIN)/qrun experiment nsl-kdd --backend fake_kyiv $(DEMO_ARGS)

test: $(VENV)/.installed  ## every test, the slow ones and those that start servers included
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-quick: $(VENV)/.installed  ## the unit tests alone
	$(BIN)/python -m pytest -m "not slow and not server" $(PARALLEL) $(PYTEST_ARGS)

lint: $(VENV)/.installed  ## ruff, the type checker, and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed  ## let ruff format and mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

contract: $(VENV)/.installed  ## compile the contract anew (needs npm) and write its artefact
	$(BIN)/python -m contracts.build

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
