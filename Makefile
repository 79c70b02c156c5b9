# make lab-up    sets up what is missing, brings the lab up and proves it      LAB=edge RUNTIME=netns
# make lab-down  takes it down
# make test      sets up, then lint, types, layers, unit tests, end-to-end tests on namespaces
# make test-all  the same with every capability required (containers and the full-kernel VM come with later versions)
# make bench     benchmarks; see docs/benchmarks.md
SHELL := /bin/sh
LAB ?= edge
NAME ?=
RUNTIME ?= netns
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What nodes run (the same list as `testbed doctor` checks), and what a bare Debian lacks to make a virtual environment.
PACKAGES := frr frr-pythontools bird nginx-light openssh-server openssh-client dnsmasq-base busybox-static \
    iproute2 iptables nftables nfacct procps iputils-ping
BASE := python3 python3-venv ca-certificates

name = $(if $(NAME),--name $(NAME))

.PHONY: lab-up lab-down setup setup-dev test test-all lint unit e2e bench clean

lab-up: setup
	@$(BIN)/testbed up $(LAB) --runtime $(RUNTIME) $(name)

lab-down: setup
	@$(BIN)/testbed down $(LAB) $(name)

setup: $(VENV)/.installed
	@scripts/install-packages $(PACKAGES)

setup-dev: setup $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	@scripts/install-packages $(BASE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the Python packages"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

test: lint unit e2e

test-all: export TESTBED_REQUIRE = netns
test-all: test

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup-dev
	$(BIN)/pytest -m "not live" tests

e2e: setup-dev
	$(BIN)/pytest -m live tests

bench: setup-dev
	$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
