# Every target sets itself up: on a fresh Debian 12, Debian 13 or Ubuntu 24.04, as root, nothing need be installed before.
# What is made once lies in C5C3_HA_CACHE (default /var/cache/c5c3-ha, for others than root ~/.cache/c5c3-ha).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help test unit unit-oldest lint sanity integration format lab-up lab-down demo demo-clean bench build lock changelog clean clean-cache

IN := tests/setup/in
SEED ?= 0
ARGS ?=

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

test: ## lint, sanity, unit and integration: all that CI runs
	@$(IN) lab-packages python -m tests.setup.gate $(ARGS)

unit: ## unit tests on today's ansible-core, in seconds (ARGS="-k name")
	@$(IN) dev pytest -n 2 tests/unit $(ARGS)

unit-oldest: ## unit tests on the oldest supported ansible-core and Python
	@$(IN) oldest pytest -n 2 tests/unit $(ARGS)

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
