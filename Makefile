# Two commands do all the set-up: `make serve` and `make test`. Both can be killed and repeated at any time.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
HERMES2_SERVICE_ENVIRONMENT ?= .venv
HERMES2_DEV_ENVIRONMENT ?= .venv-dev
HERMES2_ENGINE_ENVIRONMENT ?= .venv-engine
export HERMES2_SERVICE_ENVIRONMENT HERMES2_DEV_ENVIRONMENT HERMES2_ENGINE_ENVIRONMENT
BIN := $(HERMES2_DEV_ENVIRONMENT)/bin

.PHONY: help serve test test-fast check format docs lock clean

help:            ## what can be done
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

serve:           ## install what is missing, prepare the model, start the service on port 11401
	@$(PYTHON) deploy/bootstrap.py service engine
	@$(HERMES2_SERVICE_ENVIRONMENT)/bin/hermes2 serve --with-parent

test:            ## every test, against the real Triton, vLLM, Valkey and model
	@$(PYTHON) deploy/bootstrap.py dev engine
	@$(BIN)/hermes2 model prepare
	@$(BIN)/pytest

test-fast:       ## the tests that start no engine
	@$(PYTHON) deploy/bootstrap.py dev engine
	@$(BIN)/pytest -m "not real"

check:           ## style, types, architecture, deployment files
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format:          ## rewrite the code in its style
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs:            ## rewrite the pages that are generated
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/hermes2 settings > docs/configuration.md

lock:            ## pin newer versions (needs uv)
	@deploy/environments/lock.sh

clean:           ## remove the environments and all state
	rm -rf $(HERMES2_SERVICE_ENVIRONMENT) $(HERMES2_DEV_ENVIRONMENT) $(HERMES2_ENGINE_ENVIRONMENT) .hermes2
