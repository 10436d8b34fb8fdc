# Everything is set up by the target that needs it, in .venv. `make help` lists what there is.
# ARGS goes to the tool behind a target: make test ARGS="tests/stores -x", make bench ARGS="lifecycle --only milepost,rq".

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
ARGS ?=
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-nightly lint format types bench docs soak simulate dashboard static fullstack locks clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/.demo  ## set everything up, ingest real documents with live progress, and search them
	@sh scripts/demo.sh

# Most tests wait for processes and clocks, so WORKERS of pytest run side by side, each file or class of tests in one of them; WORKERS=0 uses one process.
# Tests run in random order; the header prints the seed, and ARGS="--randomly-seed=SEED" repeats it.
PYTEST = $(PY) -m pytest -n $(WORKERS) --dist loadscope
unexport PYTHONDONTWRITEBYTECODE  # the interpreters that tests start would compile the package anew, each for itself

test: $(VENV)/.dev  ## set everything up, Redis included, and run all tests but the slow and nightly ones
	@$(PY) scripts/install_services.py
	@$(PY) dashboard/build.py
	$(PYTEST) -m "not slow and not nightly" $(ARGS)

test-slow: $(VENV)/.dev  ## the tests that do not fit into `make test`, with the servers that they need
	@$(PY) scripts/install_services.py --slow
	@$(PY) dashboard/build.py
	$(PYTEST) -m "slow and not nightly" $(ARGS)

test-nightly: $(VENV)/.dev  ## the longest tests, and those of timing 20 times in random order and 5 times under load
	@$(PY) scripts/install_services.py --slow
	@$(PY) dashboard/build.py
	$(PY) scripts/nightly.py $(ARGS)

lint: $(VENV)/.dev  ## ruff, its formatting, and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy --strict

bench: benchmarks/__main__.py $(VENV)/.bench  ## the measurements, side by side with their peers
	$(PY) -m benchmarks $(ARGS)

docs: $(VENV)/.docs  ## build the documentation into build/site, any warning being an error; ARGS=--serve shows it
	$(PY) scripts/docs.py $(ARGS)

soak: scripts/soak.py $(VENV)/.dev
	@$(PY) scripts/install_services.py --slow
	$(PY) scripts/soak.py $(ARGS)
	for script in limits steps groups parents; do $(PY) scripts/$$script.py $(filter --record docs/reliability.md,$(ARGS)) || exit 1; done

SEEDS ?= 1000
simulate: $(VENV)/.dev  ## run SEEDS more seeds of the simulation; ARGS="--policy random" and others go to tests.simulation
	$(PY) -m tests.simulation $(SEEDS) $(ARGS)

dashboard: $(VENV)/.dev  ## the dashboard with hot reload, against the server of MILEPOST_SERVER (else 127.0.0.1:8321)
	$(PY) dashboard/build.py --serve

static: $(VENV)/.dev  ## build the dashboard's files, when its sources have changed
	@$(PY) dashboard/build.py $(ARGS)

fullstack: $(VENV)/.dev  ## the full-stack example at http://127.0.0.1:8000, with a PostgreSQL of its own; ARGS="--port 8001"
	@command -v pg_virtualenv >/dev/null || sh scripts/apt.sh postgresql-17
	pg_virtualenv $(PY) examples/fullstack/start.py $(ARGS)

clean:  ## remove what these targets made
	rm -rf $(VENV) .demo .django6 .arq build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ---- the environment: a stamp for each set of packages, older than the files that it was made from

# A .venv that was moved, copied, or whose Python has gone, is made again.
ifneq ($(shell $(PY) -c 'print(open("$(VENV)/.made").read().strip())' 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.made
endif

$(VENV)/.made: scripts/venv.sh
	@sh scripts/venv.sh $(VENV)
	@echo "$(CURDIR)" > $@

$(VENV)/.demo $(VENV)/.dev $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: requirements/%.txt pyproject.toml $(VENV)/.made
	@echo "Installing requirements/$*.txt into $(VENV) (once; a few minutes on a slow line)"
	@$(PIP) --require-hashes -r requirements/$*.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.bench: $(VENV)/.dev  # measurements start the servers and the browser of the tests

# ---- the locks: exact versions with hashes, for every supported Python and platform, without any address
# They name the extras: the pip of older Pythons overlooks the pin of smart-open when another package asks for smart-open[http].

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url \
	--custom-compile-command "make locks" $(ARGS) pyproject.toml requirements/build.in

locks: $(BIN)/uv  ## renew requirements/*.txt after a change of pyproject.toml; ARGS=--upgrade takes newer releases
	$(LOCK) --extra dev --output-file requirements/dev.txt
	$(LOCK) --extra all --extra entities --constraint requirements/dev.txt --output-file requirements/demo.txt
	$(LOCK) --extra all --extra rq requirements/bench.in --constraint requirements/dev.txt --output-file requirements/bench.txt
	$(LOCK) --extra docs --constraint requirements/dev.txt --output-file requirements/docs.txt

$(BIN)/uv: $(VENV)/.made
	@$(PIP) uv
