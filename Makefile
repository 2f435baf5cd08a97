# Every target sets up .venv itself; nothing is installed globally.
PYTHON ?= python3
RUN := .venv/bin/python -m
# a file's tests stay together: they share what is dear to make
PYTEST := $(RUN) pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: venv demo docs notebooks tables test test-slow test-cluster chaos check format bench bench-gpu clean

venv: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

demo: venv            ## the whole story on small models, at most 6 minutes on two cores: demo/report.html
	$(RUN) mechproc demo --out demo

test: venv            ## the fast tests, about 6 minutes
	$(PYTEST)

test-slow: venv       ## the slow tests: whole trainings, the notebooks, the demo in small
	$(PYTEST) -m slow

test-cluster: venv    ## the tests on a Ray cluster of two nodes, which are skipped where Ray is not installed
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[cluster]"
	$(RUN) pytest -q -m cluster

chaos: venv           ## 50 kills, full disks, damaged files, inputs of every kind: docs/faults.md
	.venv/bin/python tests/faults

check: venv           ## every check of the code's form; changes nothing
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pyright
	.venv/bin/lint-imports

docs: venv            ## the documentation site, its warnings as errors: build/docs/index.html
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(RUN) sphinx -W --keep-going -q -b html docs build/docs

notebooks: venv      ## the notebooks from top to bottom; what they show is stored in them
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[notebooks]"
	.venv/bin/python notebooks

tables: venv          ## the tables of README and docs that come from files in results
	.venv/bin/python docs/tables.py

format: venv
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

bench: venv           ## speed and memory beside peers, about a quarter of an hour: results/benchmarks.json, docs/benchmarks.md
	.venv/bin/python tests/benchmarks
	.venv/bin/python tests/benchmarks/interventions.py
	.venv/bin/python tests/benchmarks/pages.py

bench-gpu: venv       ## the torch path on a CUDA device, and the population that fills it
	.venv/bin/python tests/benchmarks gpu populations

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
