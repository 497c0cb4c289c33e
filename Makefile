# Everything works from a fresh checkout with python3 (3.11 or newer), make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
QUIET := $(shell test -t 2 || echo -q)# pip shows its progress to people only
SYSTEM_PACKAGES := siege nginx haproxy wrk curl openssl chromium prometheus iptables iproute2
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
TESTS ?=
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile# WORKERS= runs one test after the other

.PHONY: help demo test test-fast lint bench page system-deps clean

help:           ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: $(VENV)/.base $(VENV)/.page ## the mesh of the walkthrough, in the foreground (ARGS="--base 127.2.0.0 --port 8090 --state .mesh2")
	@exec $(BIN)/meshctl demo $(ARGS)

test: $(VENV)/.dev $(VENV)/.page ## every test that can run here; says which were left out and why (TESTS=tests/control)
	$(BIN)/python -m pytest $(WORKERS) $(TESTS)

test-fast: $(VENV)/.dev $(VENV)/.page ## the same without the long runs
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(TESTS)

lint: $(VENV)/.dev             ## ruff, mypy --strict, the floors, the page's types
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python setup.py check-page

bench: $(VENV)/.bench          ## this sidecar beside Envoy, nginx, HAProxy and a raw relay (ARGS passes options)
	$(BIN)/python -m benchmarks.run $(ARGS)
	$(BIN)/python -m benchmarks.mesh
	$(BIN)/python -m benchmarks.seeing
	@test "$$(id -u)" = 0 || echo "left out: benchmarks.interception (needs root)"
	@test "$$(id -u)" != 0 || $(BIN)/python -m benchmarks.interception
	$(BIN)/python -m benchmarks.startup

system-deps:                   ## the Debian packages that some tests and the benchmarks need
	$(SUDO) apt-get update -q
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(SYSTEM_PACKAGES)

clean:                         ## what was built, and the virtual environment
	rm -rf $(VENV) build dist control/page/dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making $(VENV) (first use)"
	@$(PYTHON) -m venv $(VENV)

# One stamp per set of extras, newer than pyproject.toml: installing again happens when the dependencies may have changed.
$(VENV)/.base: pyproject.toml | $(BIN)/python
	@echo "installing what the mesh needs"
	@MESH_PAGE=skip $(PIP) install $(QUIET) -e .
	@touch $@

$(VENV)/.dev $(VENV)/.bench: $(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "installing what '$*' needs"
	@MESH_PAGE=skip $(PIP) install $(QUIET) -e '.[dev$(if $(filter bench,$*),$(comma)bench)]'
	@touch $@ $(VENV)/.base

page: | $(BIN)/python          ## the dashboard's page, built again if its sources have changed
	@$(BIN)/python setup.py page

# The installation above would build the page too; here the line that says why it is missing is seen.
PAGE := $(shell find control/page -type f -not -path '*/dist/*' -not -path '*/node_modules/*')
$(VENV)/.page: setup.py $(PAGE) | $(BIN)/python
	@$(BIN)/python setup.py page || true
	@touch $@

comma := ,
