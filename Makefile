# Two commands do everything: `make lab` opens the course, `make test` runs what CI runs. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PROJECT := pyproject.toml constraints.txt

.PHONY: help lab test check test-all bench lock clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

lab: .venv/course.stamp ## open the course in JupyterLab
	$(BIN)/hybridlab lab

test: .venv/dev.stamp ## run everything that CI runs, each part's time beside its allowance
	$(BIN)/python tests/suite.py test

check: .venv/dev.stamp ## run the fast part: lint, types, tests that take no minutes
	$(BIN)/python tests/suite.py check

test-all: .venv/dev.stamp ## run everything, the slow matrix too
	$(BIN)/python tests/suite.py test-all

bench: .venv/dev.stamp ## measure every kernel and every widget against their rivals and write benchmarks/
	$(BIN)/hybridlab bench --out benchmarks
	$(BIN)/python tests/bench_widgets.py --out benchmarks/widgets

# soupsieve 3 wants Python 3.11.5, because re in those before it has a bug that it meets; Debian 12 has 3.11.2.
lock: ## write constraints.txt anew from the newest versions that fit together
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install -q torch==2.13.0 triton==3.7.1 'soupsieve<3' -e '.[dev]'
	(sed '/^[^#]/,$$d' constraints.txt; build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu//; s/^torch @.*/torch==2.13.0/') \
	  > build/constraints.txt && mv build/constraints.txt constraints.txt

clean: ## remove the environment and everything built
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/course.stamp: .venv/bin/python $(PROJECT)
	$(BIN)/pip install -q -c constraints.txt -e '.[course]'
	touch $@

.venv/dev.stamp: .venv/bin/python $(PROJECT)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/course.stamp
