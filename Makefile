# Every target sets itself up: on a fresh Debian 12, Debian 13 or Ubuntu 24.04, as root, nothing need be installed before.
# What is made once lies in C5C3_HA_CACHE (default /var/cache/c5c3-ha, for others than root ~/.cache/c5c3-ha).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help test thorough unit unit-oldest lint sanity integration format lab-up lab-down demo demo-clean bench chaos stack matrix build lock changelog clean clean-cache

IN := tests/setup/in
SEED ?= 0
ROLE ?= all
DISTRO ?= trixie
FAULTS ?= cheap
ARGS ?=
# the scenario nova needs the lab, too
comma := ,
HOSTS := $(if $(filter all nova,$(subst $(comma), ,$(ROLE))),lab$(comma)hosts,hosts)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

test: ## lint, sanity, unit and integration: all that CI runs
	@$(IN) lab-packages python -m tests.setup.gate $(ARGS)

thorough: ## the same without leaving out any case (tests/selection.py)
	@C5C3_HA_THOROUGH=1 $(IN) lab-packages python -m tests.setup.gate $(ARGS)

unit: ## unit tests on today's ansible-core, in seconds (ARGS="-k name")
	@$(IN) dev pytest -n 4 tests/unit $(ARGS)

unit-oldest: ## unit tests on the oldest supported ansible-core and Python
	@$(IN) oldest pytest -n 4 tests/unit $(ARGS)

lint: ## ansible-lint, yamllint, ruff, black, shellcheck, documentation, changelog
	@$(IN) dev python -m tests.setup.lint $(ARGS)

sanity: ## ansible-test sanity on both ansible-cores
	@$(IN) dev python -m tests.setup.sanity dev
	@$(IN) oldest python -m tests.setup.sanity oldest

integration: ## tests against the real parts of tests/lab (root)
	@$(IN) lab pytest tests/integration $(ARGS)

format: ## black and ruff's safe fixes over the checkout
	@$(IN) dev bash -c 'ruff check --fix --quiet . ; black --quiet .'

lab-up: ## start the lab: Kubernetes, Nova, three hypervisors (SEED=0)
	@$(IN) lab tests/lab/lab up --seed $(SEED) $(ARGS)

lab-down: ## stop the lab
	@$(IN) lab-packages tests/lab/lab down --seed $(SEED) $(ARGS)

demo: ## a VM dies and lives again, a hypervisor is drained: everything real, told with times
	@$(IN) lab python -m tests.demo $(ARGS)

demo-clean: ## stop what make demo started and remove what it made
	@$(IN) lab-packages python -m tests.demo --clean $(ARGS)

bench: ## measure detection, recovery, memory and idle CPU beside their limits
	@$(IN) lab python -m tests.bench $(ARGS)

chaos: ## faults drawn from SEED hit a whole site, what became of its servers is judged (SEED=1 ARGS="--minutes 10")
	@$(IN) lab python -m tests.chaos --seed $(SEED) $(ARGS)

stack: ## roles of the control plane on three hosts with systemd, broken and healed (ROLE=rabbitmq DISTRO=trixie FAULTS=cheap)
	@$(IN) $(HOSTS) pytest tests/stack -v -W ignore::pytest.PytestConfigWarning --role $(ROLE) --distro $(DISTRO) --faults $(FAULTS) $(ARGS)

matrix: ## all roles, all faults, Debian 12 and 13; writes the table of docs/failover.md
	@$(IN) $(HOSTS) pytest tests/stack -v -W ignore::pytest.PytestConfigWarning --role $(ROLE) --distro all --faults all $(ARGS)
	@$(IN) hosts python -m tests.stack report

build: ## the collection's tarball in build/, installed once and looked through
	@$(IN) dev python -m tests.setup.build

changelog: ## look through the changelog fragments
	@$(IN) dev antsibull-changelog lint

lock: ## resolve and pin tests/requirements/*.in anew
	@PYTHONPATH=. python3 -m tests.setup.lock

clean: ## remove what tests and tools left in the checkout
	@rm -rf build tests/output .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache changelogs/.plugin-cache.yaml
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

clean-cache: ## remove C5C3_HA_CACHE: everything is made anew next time
	@PYTHONPATH=. python3 -c 'import shutil; from tests.setup.system import cache; shutil.rmtree(cache())'
