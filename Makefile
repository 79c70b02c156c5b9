# make lab-up    sets up what is missing, brings the lab up and proves it      LAB=edge RUNTIME=netns|docker|containerlab
# make lab-down  takes it down
# make test      sets up, then lint, types, layers, unit tests, end-to-end tests on namespaces
# make test-all  the same with every capability required, then the two that follow; one failure does not end it
# make test-docker  the docker runtime: on the engine that answers, else on one START_DOCKERD starts
# make test-vm   what needs a distribution's kernel, in a virtual machine; docs/vm.md
# make test-containerlab  the containerlab runtime: with containerlab on PATH, where it runs (docs/containerlab.md)
# make bench     benchmarks; see docs/benchmarks.md
SHELL := /bin/sh
LAB ?= edge
NAME ?=
RUNTIME ?=
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What nodes run, what a bare Debian lacks to make a virtual environment, and to make an image without a registry.
PACKAGES := $(shell sed 's/\#.*//' configs/image/packages)
BASE := python3 python3-venv ca-certificates
IMAGE := mmdebstrap
PICTURES := graphviz
# A virtual machine with a distribution's kernel; virtme-ng comes from PyPI.
VM := qemu-system-x86 linux-image-amd64 busybox-static file kmod
# What must be there in it: nothing may be left out for want of it.
VM_NEEDS := netns,programs,kernel,vrf,ipvs,ipset,ipip,vxlan,vlan,netem,dummy
VM_LAST ?= 2400
# An engine's data is in the machine's memory.
VM_MEMORY ?= 6G

CELLS := test_vrf_return_path or test_node_vrfs
# The tests of a choice that need a machine; the files that have them are found here, for an emulated one takes minutes.
in-vm = $(abspath $(BIN))/pytest --durations=10 -o faulthandler_timeout=600 -m "live and vm" -k "$(1)" \
	$$($(BIN)/pytest --collect-only --quiet -m "live and vm" -k "$(1)" tests | sed -n 's/::.*//p' | sort -u)

name = $(if $(NAME),--name $(NAME))
runtime = $(if $(RUNTIME),--runtime $(RUNTIME))

.PHONY: lab-up lab-down setup setup-dev setup-docker setup-vm test test-all test-docker test-vm test-containerlab lint unit \
	e2e e2e-docker e2e-vm e2e-vm-cells e2e-vm-others e2e-containerlab bench clean

lab-up: setup $(if $(filter docker containerlab,$(RUNTIME)),setup-docker)
	@$(BIN)/testbed up $(LAB) $(runtime) $(name)

lab-down: setup
	@$(BIN)/testbed down $(LAB) $(name)

setup: $(VENV)/.installed
	@scripts/install-packages $(PACKAGES)

setup-dev: setup $(VENV)/.installed-dev
	@scripts/install-packages $(PICTURES)

setup-docker:
	@scripts/install-packages $(IMAGE)

setup-vm: setup-dev $(VENV)/.installed-vm
	@scripts/install-packages $(VM)

$(VENV)/.installed: pyproject.toml
	@scripts/install-packages $(BASE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the Python packages"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.installed-vm: pyproject.toml $(VENV)/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[vm]'
	@touch $@

test: lint unit e2e

test-all: export TESTBED_REQUIRE = netns,vxlan,docker,vm
test-all: setup-dev setup-docker setup-vm
	@status=0; $(MAKE) --keep-going test || status=$$?; \
	scripts/with-docker $(MAKE) --keep-going e2e-docker e2e-vm VM_NEEDS=$(VM_NEEDS),docker || status=$$?; exit $$status

test-docker: export TESTBED_REQUIRE = netns,docker
test-docker: setup-dev setup-docker
	scripts/with-docker $(MAKE) e2e-docker

test-vm: export TESTBED_REQUIRE = netns,vm
test-vm: setup-vm e2e-vm

test-containerlab: export TESTBED_REQUIRE = netns,docker,containerlab
test-containerlab: setup-dev setup-docker
	scripts/with-docker $(MAKE) e2e-containerlab

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup-dev
	$(BIN)/pytest -m "not live" tests

e2e: setup-dev
	$(BIN)/pytest --durations=10 -m "live and not docker and not containerlab and not vm_boot" tests

e2e-docker: setup-dev
	$(BIN)/pytest --durations=10 -m "live and docker and not vm_boot" tests

# Two machines side by side: where they are emulated, each has work for one processor.
e2e-vm: setup-vm
	@$(MAKE) --jobs=2 --keep-going e2e-vm-cells e2e-vm-others

# The matrices of labs, cell by cell; then the tests of `testbed vm` itself, which boot their own machines.
e2e-vm-cells: setup-vm
	TESTBED_REQUIRE=$(VM_NEEDS:%,docker=%) $(BIN)/testbed vm --memory 4G --timeout $(VM_LAST) -- \
		$(call in-vm,$(CELLS))
	$(BIN)/pytest -m vm_boot tests

e2e-vm-others: setup-vm
	TESTBED_REQUIRE=$(VM_NEEDS) $(BIN)/testbed vm $(if $(shell command -v dockerd),--docker) --memory $(VM_MEMORY) \
		--timeout $(VM_LAST) -- $(call in-vm,not ($(CELLS)))

e2e-containerlab: setup-dev
	$(BIN)/pytest -m "live and containerlab" tests

bench: setup-dev
	$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
