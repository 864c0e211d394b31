# Two commands do all the set-up: `make serve` and `make test`. Both can be killed and repeated at any time.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
HERMES2_SERVICE_ENVIRONMENT ?= .venv
HERMES2_DEV_ENVIRONMENT ?= .venv-dev
HERMES2_ENGINE_ENVIRONMENT ?= .venv-engine
HERMES2_CLIENTS_ENVIRONMENT ?= .venv-clients
export HERMES2_SERVICE_ENVIRONMENT HERMES2_DEV_ENVIRONMENT HERMES2_ENGINE_ENVIRONMENT HERMES2_CLIENTS_ENVIRONMENT
BIN := $(HERMES2_DEV_ENVIRONMENT)/bin
COVERAGE := --cov=frontend.domain --cov=frontend.api --cov-branch --cov-fail-under=95
CASES ?= 50000

.PHONY: help serve test test-fast fuzz crashes audit check format docs deployment lock clean

help:            ## what can be done
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

serve:           ## install what is missing, prepare the model, start the service on port 11401
	@$(PYTHON) deploy/bootstrap.py service engine
	@$(HERMES2_SERVICE_ENVIRONMENT)/bin/hermes2 serve --with-parent

test:            ## every test, against the real Triton, vLLM, Valkey and model
	@$(PYTHON) deploy/bootstrap.py dev engine clients
	@$(BIN)/hermes2 model prepare
	@$(BIN)/pytest --numprocesses 2 --dist loadscope $(COVERAGE)

test-fast:       ## the tests that start no engine
	@$(PYTHON) deploy/bootstrap.py dev engine
	@$(BIN)/pytest -m "not real and not clients"

fuzz:            ## 50,000 generated requests to the API (CASES=n: so many), against the scripted engine
	@$(PYTHON) deploy/bootstrap.py dev engine clients
	@$(BIN)/hermes2 model prepare
	@$(BIN)/python -m tests.fuzz --cases $(CASES)

crashes:         ## 200 kills of frontends and Valkey in the middle of turns, 10 of the real engine (half an hour)
	@$(PYTHON) deploy/bootstrap.py dev engine
	@$(BIN)/hermes2 model prepare
	@HERMES2_KILLS=200 HERMES2_ENGINE_KILLS=10 $(BIN)/pytest -s tests/integration/test_crashes.py \
	  tests/integration/test_lifecycle.py::TestReal::test_the_whole_story

audit:           ## known vulnerabilities of every locked package; fails where the advisory service does not answer
	@$(PYTHON) deploy/bootstrap.py dev
	@for lock in service engine clients dev torch; do echo "$$lock:"; \
	  sed 's/+cpu//; s/ --hash=.*//' deploy/environments/$$lock.lock | grep -E '^[A-Za-z0-9._-]+==' | sed 's/ *[\\;].*//' > .audit.txt; \
	  $(BIN)/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r .audit.txt \
	  || { echo "audit: $$lock.lock has findings, or could not be audited (see above)"; rm -f .audit.txt; exit 1; }; done
	@rm -f .audit.txt

check:           ## style, types, architecture, deployment files
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy model_repository/embedder/1
	@$(BIN)/lint-imports

format:          ## rewrite the code in its style
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs:            ## rewrite the pages that are generated
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/hermes2 settings > docs/configuration.md
	@$(BIN)/python -m tests.support.compatibility
	@$(BIN)/python -m deploy.grafana

deployment:      ## write the files of compose, Kubernetes and systemd anew, from deploy/templates
	@$(PYTHON) deploy/bootstrap.py dev
	@$(BIN)/python -m deploy.render

lock:            ## write the lock files anew (needs uv; UPGRADE=1: with newer versions)
	@deploy/environments/lock.sh

clean:           ## remove the environments and all state
	rm -rf $(HERMES2_SERVICE_ENVIRONMENT) $(HERMES2_DEV_ENVIRONMENT) $(HERMES2_ENGINE_ENVIRONMENT) \
	  $(HERMES2_CLIENTS_ENVIRONMENT) .hermes2
