# Everything a person or CI runs. Only `setup` uses the network, and only when the lock or pyproject.toml changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
COMPILE := uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-header --no-annotate
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test dev check bench bench-peers soak docs lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(READY) ## make .venv with the locked packages and .venv/bin/studio

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Memmie Studio needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11"; exit 1; } >&2
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY) ## the book story on real servers, in its own state folder
	STUDIO_STATE_DIR=$(CURDIR)/.studio-demo $(BIN)/studio demo

dev: $(READY) ## the whole stack in the foreground, until Ctrl-C
	$(BIN)/studio dev

test: $(READY) ## every test, on real servers in their own state folder
	STUDIO_STATE_DIR=$(CURDIR)/.studio-test $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports

bench: $(READY) ## measured scenarios, as ratios to the raw limits
	STUDIO_STATE_DIR=$(CURDIR)/.studio-bench $(BIN)/python -m bench

bench-peers: $(READY) ## the same cascade by DBOS and Prefect, side by side (needs the network)
	STUDIO_STATE_DIR=$(CURDIR)/.studio-bench $(BIN)/python -m bench peers

soak: $(READY) ## random histories, scenarios and kills, for long; SEED=n plays one again
	STUDIO_STATE_DIR=$(CURDIR)/.studio-bench $(BIN)/python -m bench soak $(if $(SEED),--seed $(SEED))

docs: $(READY) ## write the generated reference pages again
	$(BIN)/python -m docs.generate

lock: ## resolve requirements.lock and deploy/runtime.lock again (needs uv and the network)
	$(COMPILE) --extra dev --extra embedded pyproject.toml -o requirements.lock
	$(COMPILE) --constraint requirements.lock pyproject.toml -o deploy/runtime.lock
	cat deploy/model.lock >> requirements.lock

clean: ## remove .venv, caches and the state of demo, test and bench (the state of dev stays)
	rm -rf .venv .studio-demo .studio-test .studio-bench build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
