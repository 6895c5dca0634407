# `make test` and `make demo` need Python 3.11 or newer, make and git, and set up the rest by themselves.
# Another interpreter: make PYTHON=/path/to/python3.12 test. Arguments for pytest: make test ARGS="-k sleep -x".

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
EXTRAS := dev,crypto,test,lint
ARGS :=
WORKERS ?= 2
COUNT ?= 0
SECONDS ?= 120

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format simulate soak bench docs wheel installed clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## the virtual environment, built once and again when pyproject.toml changes
	@python=$$(PYTHON='$(PYTHON)' sh tools/pythons.sh) && "$$python" tools/environment.py $(VENV) --extras $(EXTRAS)

demo: setup ## a countdown and a chess game, killed twice and resumed
	$(RUN) tools/demo.py

test: setup ## everything on the main interpreter, then tests/core on every other one found
	PYTHON='$(PYTHON)' WORKERS='$(WORKERS)' $(RUN) tools/run_tests.py $(ARGS)

test-fast: setup ## the main interpreter only
	PYTHON='$(PYTHON)' WORKERS='$(WORKERS)' $(RUN) tools/run_tests.py --main-only $(ARGS)

check: setup ## format, lint, types, dependency contracts
	$(RUN) tools/check.py

format: setup ## rewrite what the formatter and the linter can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

simulate: setup ## seeded histories with faults: SECONDS=120, or COUNT=100000
	EVERSTEP_SIMULATE_SECONDS='$(SECONDS)' EVERSTEP_SIMULATE_COUNT='$(COUNT)' $(RUN) -m pytest tests/simulation $(ARGS)

soak: setup ## the same for an hour, and the gateway: agreement, histories, fuzzing, memory under traffic
	EVERSTEP_AGREEMENT_REQUESTS=100000 EVERSTEP_HISTORIES=2000 EVERSTEP_SCHEMATHESIS_EXAMPLES=500 EVERSTEP_SOAK_SECONDS=600 \
		$(RUN) -m pytest -o faulthandler_timeout=0 tests/gateway $(ARGS)
	EVERSTEP_SOAK=1 $(RUN) -m pytest -o faulthandler_timeout=0 tests/adapters/aws $(ARGS)
	for test in supabase/test_protocol.py gcp/test_protocol.py aws/test_protocol.py cloudflare/test_conformance.py; do \
		EVERSTEP_AGREEMENT_REQUESTS=100000 EVERSTEP_HISTORIES=400 \
			$(RUN) -m pytest -s -o faulthandler_timeout=0 -k 'oracle or histories' tests/adapters/$$test $(ARGS) || exit; \
	done
	EVERSTEP_PG_ROWS=1000000 EVERSTEP_DIFFERENTIAL_ROUNDS=1000000 EVERSTEP_DIFFERENTIAL_QUIET=3000 \
		$(RUN) -m pytest tests/adapters/supabase/test_plans.py tests/adapters/supabase/test_store.py $(ARGS)
	EVERSTEP_PG_VERSIONS=all EVERSTEP_DIFFERENTIAL_ROUNDS=20000 EVERSTEP_DIFFERENTIAL_QUIET=400 \
		$(RUN) -m pytest tests/adapters/supabase/test_versions.py $(ARGS)
	$(MAKE) simulate SECONDS=3600

bench: setup ## measure, and compare with the last committed run (bench/results.json)
	$(RUN) -m bench $(ARGS)

docs: setup ## execute every snippet of the documentation
	$(RUN) -m pytest tests/docs $(ARGS)

wheel: setup ## build the wheel into dist/
	rm -rf dist
	$(RUN) -m pip wheel --quiet --no-deps --wheel-dir dist .

installed: setup ## the wheel in clean environments, each with one extra alone; ARGS=--tests for their tests too
	$(RUN) tools/installed.py $(ARGS)

clean: ## environments, caches, build artefacts
	rm -rf $(VENV) .venvs .venv.lock build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
