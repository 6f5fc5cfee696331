# `make demo` and `make test` set up what they need by themselves; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
CODE := medley services tests benchmarks examples models tools packaging
TYPED := medley services tests benchmarks examples tools packaging
WORKERS ?= auto

# Medley itself is left out of the locks: both of its distributions are installed from this checkout.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-package medley packaging/server/pyproject.toml

PEERS := $(patsubst benchmarks/peers/requirements-%.txt,.cache/peers/%/.installed,$(wildcard benchmarks/peers/requirements-*.txt))

.PHONY: help demo test test-fast test-servers coverage up check lint type fmt proto proto-breaking docs docs-build docs-serve bench bench-search peers minio triton-server triton lock dist clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.server ## Draw a catalogue, ingest it, search it, write contact sheets to demo-output/.
	$(BIN)/medley demo

up: $(VENV)/.server ## Run Medley in the foreground, its data in ./data.
	$(BIN)/medley up

# Hundreds of processes start in the tests: each would compile all of Medley where byte code may not be written.
test test-fast coverage: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.dev test-servers ## Run every test, WORKERS at a time; ARGS="-k words" chooses some.
	$(BIN)/python -m pytest -n $(WORKERS) -rs $(ARGS)

test-fast: $(VENV)/.dev ## Run the tests of units, and hold what needs no server to its contract: a minute.
	$(BIN)/python -m pytest -n $(WORKERS) -m "not (milvus or s3 or slow or triton)" tests/unit tests/contract $(ARGS)

coverage: $(VENV)/.dev test-servers ## Run every test and tell which lines none of them reaches, in services, too.
	$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term-missing:skip-covered --cov-report=html:coverage $(ARGS)

test-servers: $(VENV)/.dev # Tests of servers that this machine cannot have are skipped, and say so.
	@$(BIN)/python -m tools.triton set-up --if-possible
	@$(BIN)/python -m tools.minio --if-possible

check: lint type test-fast ## Check what every change must pass; takes minutes.

lint: $(VENV)/.dev ## Check style, layering, the API's style, that generated code is current, and that docs hang together.
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports
	$(BIN)/python -m tools.protos check
	$(BIN)/python -m tools.docs check
	$(MKDOCS) build -q

type: $(VENV)/.dev ## Check types.
	$(BIN)/mypy $(TYPED)

fmt: $(VENV)/.dev ## Format the code and mend what can be mended.
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

proto: $(VENV)/.dev ## Generate medley/v1 from protos/.
	$(BIN)/python -m tools.protos generate

proto-breaking: $(VENV)/.dev ## Check that protos/ breaks no client of the last release; skipped until there is one.
	$(BIN)/python -m tools.protos breaking

minio: ## Build the MinIO server that the tests of S3 run against (needs Go), unless there is one.
	@$(PYTHON) -m tools.minio

docs: $(VENV)/.dev ## Generate docs/api.md and docs/settings.md.
	$(BIN)/python -m tools.docs

docs-build: $(VENV)/.dev ## Build the documentation's site into .cache/site; a broken link fails.
	$(MKDOCS) build -q

docs-serve: $(VENV)/.dev ## Serve the documentation on http://127.0.0.1:8000 and follow changes.
	$(MKDOCS) serve

bench: $(VENV)/.dev minio triton-server ## Measure Medley beside its floors; DATA=… names the fashion products' Parquet file.
	$(BIN)/python -m benchmarks.run $(if $(DATA),--data $(DATA)) $(ARGS)
	$(BIN)/python -m benchmarks.search $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.triton
	$(BIN)/python -m benchmarks.s3

bench-search: $(VENV)/.bench peers ## Measure search alone: beside raw FAISS and its peers, and up to a million vectors; DATA as above.
	$(BIN)/python -m benchmarks.search $(if $(DATA),--data $(DATA)) small peers growth large $(ARGS)

peers: $(PEERS) ## Install the engines that search is compared with, each in an environment of its own under .cache/peers.

triton-server: $(VENV)/bin/python ## Set up a Triton server for development and tests under .cache/triton.
	$(BIN)/python -m tools.triton set-up

triton: $(VENV)/.dev ## Serve the built-in models by Triton in the foreground; prints its ports.
	$(BIN)/python -m tools.triton serve $(ARGS)

lock: ## Resolve the dependencies anew into requirements/ (needs uv).
	$(LOCK) --group build -o requirements/server.txt
	$(LOCK) --extra s3 --extra triton --extra milvus --group dev -c requirements/server.txt -o requirements/dev.txt

dist: $(VENV)/.server ## Build the wheels of medley and medley-server into dist/.
	$(PIP) wheel --no-deps --no-build-isolation -w dist . packaging/server

clean: ## Remove what the targets made, but not the data.
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache demo-output dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Medley needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: requirements/server.txt pyproject.toml packaging/server/pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements/server.txt
	$(PIP) install --no-deps --no-build-isolation -e . -e packaging/server
	@touch $@

$(VENV)/.bench: benchmarks/requirements.txt $(VENV)/.dev
	$(PIP) install -r benchmarks/requirements.txt
	@touch $@

.cache/peers/%/.installed: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check -q -r $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
