# Sets up what is missing, then runs or checks Keystead. `make` alone lists the targets.

PYTHON ?= python3
DATA   ?= .keystead
JOBS   ?= 4
ARGS   ?=
CASES  ?= 1000000
SEED   ?= 1
SECONDS ?= 300
JAR    ?=
SEEDS  ?= 1000
DRILL  ?= rotation

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
# The lock names every package, so nothing is left to resolve: --no-deps keeps an older pip from
# taking the newest coverage for pytest-cov's coverage[toml], which the lock does not hold.
LOCKED := --require-hashes --no-deps
# A glob, because mypy refuses a folder that holds no Python file.
TYPED := src tests bench fuzz examples $(wildcard tools/*.py)

COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
           --no-emit-index-url --no-emit-trusted-host --no-emit-find-links $(if $(UPGRADE),--upgrade)

say = @printf '· %s\n'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test long cover lint types needs lock clean fuzz soak bench drill model tlc

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '%s\n' '' 'DATA=DIR    data folder of run, place of the temporary folders of test ($(DATA))' \
	  'ONCE=1      run: stop after the tour' \
	  'ARGS=...    test: more arguments for pytest, such as ARGS="-k house"' \
	  'APT=1       test: install missing Debian packages (needs root)' \
	  'UPGRADE=1   lock: take newer versions' \
	  'PYTHON=...  the Python to build .venv with, 3.11 or newer ($(PYTHON))'

# exec: Ctrl-C reaches the node itself. make fails when the node does, with make's own status 2.
run: $(VENV)/.stamp-run  ## start the node on DATA, run the tour, serve until Ctrl-C
	@exec $(BIN)/keystead up --data '$(DATA)' --tour $(if $(ONCE),--once) \
	  --operator-token-file '$(DATA:%/=%)-operator.token'

# A DATA given by hand may be another disk: the tests then keep their temporary folders there.
test: lint types needs  ## check style and types, then run every test
	$(say) 'tests'
	@$(if $(filter-out file,$(origin DATA)),mkdir -p '$(DATA)' && PYTEST_DEBUG_TEMPROOT='$(DATA)') \
	  $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 15 \
	  -m "not long" $(ARGS)

long:  ## what `make test` leaves out for its length: every kind of fault, the benchmark of nodes
	@$(MAKE) test ARGS="-m long $(ARGS)"

cover:  ## run every test with coverage, which takes half as long again
	@$(MAKE) test ARGS='--cov --cov-report=term:skip-covered $(ARGS)'

lint: $(VENV)/.stamp-dev  ## ruff: rules and format
	$(say) 'lint'
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check

types: $(VENV)/.stamp-dev  ## mypy, strict
	$(say) 'types'
	@$(BIN)/mypy --no-error-summary $(TYPED)

fuzz: $(VENV)/.stamp-dev  ## hostile input by the million: CASES=1000000 SEED=1
	@$(BIN)/python fuzz/run.py --cases $(CASES) --seed $(SEED)

soak: $(VENV)/.stamp-dev  ## kill processes under load, and check every answer: SECONDS=300 SEED=1
	@$(BIN)/python fuzz/crash_soak.py --seconds $(SECONDS) --seed $(SEED) --steps

.PHONY: faults
faults: $(VENV)/.stamp-dev  ## strike two nodes on PostgreSQL in namespaces of their own (root): SECONDS=300 SEED=1
	@$(BIN)/python fuzz/cluster_soak.py --seconds $(SECONDS) --seed $(SEED)

.PHONY: simulate
simulate: $(VENV)/.stamp-dev  ## whole vaults on simulated time and faults: SEEDS=1000 SEED=1 PROFILE=...
	@$(BIN)/python fuzz/simulate.py --seeds $(SEEDS) --seed $(SEED) \
	  $(if $(PROFILE),--profile $(PROFILE)) $(ARGS)

bench: $(VENV)/.stamp-bench  ## measure against cryptography and OpenBao; ARGS goes to `keystead bench`
	@$(BIN)/keystead bench $(ARGS)

drill: $(VENV)/.stamp-run  ## put the node of `make run` through a drill: DRILL=rotation or DRILL=revocation
	@KEYSTEAD_TOKEN_FILE='$(DATA:%/=%)-operator.token' $(BIN)/keystead drill $(DRILL) $(ARGS)

model: $(VENV)/.stamp-dev  ## explore the protocol with larger bounds than `make test`: a quarter of an hour
	@KEYSTEAD_MODEL=deep $(BIN)/python -m pytest -q -n0 -s tests/unit/keys/protocol $(ARGS)

# Its states go to a temporary folder, not beside the modules.
tlc:  ## check spec/ with TLC, which is not in any registry: JAR=path/to/tla2tools.jar (needs java)
	@test -f '$(JAR)' || { printf '%s\n' 'Name the file: make tlc JAR=path/to/tla2tools.jar' >&2; exit 1; }
	@states=$$(mktemp -d) && trap 'rm -rf "$$states"' EXIT && cd spec && \
	  for module in Keystead Reservations Lease; do \
	    java -XX:+UseParallelGC -cp '$(abspath $(JAR))' tlc2.TLC -workers auto \
	      -metadir "$$states" -config $$module.cfg $$module.tla || exit 1; \
	  done

needs:
	@tools/apt_needs.sh

lock: $(VENV)/.stamp-dev  ## pin requirements/*.in to requirements/*.txt, with hashes
	$(say) 'requirements/runtime.txt'
	@CUSTOM_COMPILE_COMMAND='make lock' $(COMPILE) -o requirements/runtime.txt \
	  requirements/runtime.in requirements/build.in
	$(say) 'requirements/dev.txt'
	@CUSTOM_COMPILE_COMMAND='make lock' $(COMPILE) -o requirements/dev.txt requirements/dev.in
	$(say) 'requirements/bench.txt'
	@CUSTOM_COMPILE_COMMAND='make lock' $(COMPILE) -o requirements/bench.txt requirements/bench.in

clean:  ## remove .venv, caches and reports; data folders stay
	rm -rf $(VENV) build dist src/*.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  printf '%s\n' 'Keystead needs Python 3.11 or newer, and $(PYTHON) is not.' \
	    'Name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(say) 'creating $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.stamp-run: requirements/runtime.txt requirements/runtime.in pyproject.toml $(BIN)/python
	$(say) 'installing requirements/runtime.txt'
	@$(PIP) install $(LOCKED) -r requirements/runtime.txt
	$(say) 'installing keystead from this checkout'
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.stamp-dev: requirements/dev.txt $(VENV)/.stamp-run
	$(say) 'installing requirements/dev.txt'
	@$(PIP) install $(LOCKED) -r requirements/dev.txt
	@touch $@

$(VENV)/.stamp-bench: requirements/bench.txt $(VENV)/.stamp-dev
	$(say) 'installing requirements/bench.txt'
	@$(PIP) install $(LOCKED) -r requirements/bench.txt
	@touch $@
