# Every target sets up what it needs in .venv; nothing else has to be installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROFILE ?= demo
# One thread a process in tests: small matrices lose more to spinning threads than they gain.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help install demo research rehearse rehearse-short cluster falsify mutants test test-rehearsals lint docs notebooks lock lowest ui figures bench super-gradients clean distclean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(STAMP): pyproject.toml requirements/gliner.txt requirements/tracks.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "vggheads needs Python 3.11 to 3.13; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/gliner.txt -r requirements/tracks.txt
	$(BIN)/python -m ml.generation.renderer.precompile
	@touch $(STAMP)

install: $(STAMP)  ## make .venv and install everything

demo: $(STAMP)  ## the whole pipeline, from nothing to the benchmark report
	$(BIN)/vggheads demo

research: $(STAMP)  ## rehearse the research profile: tiny random models, every production backend
	$(TEST_ENV) $(BIN)/python -m tests.research_rehearsal build/research

# Cases of the rehearsals at the same time; a run of the chain has two workers of its own.
JOBS ?= $(shell expr \( $$(nproc) + 1 \) / 2)
rehearse: $(STAMP)  ## kills, faults of the machine, falsified and damaged data, on the whole chain
	$(BIN)/python -m tests.doors 1000 --jobs $(JOBS)
	$(BIN)/python -m tests.chain_rehearsal build/chain
	$(BIN)/python -m tests.chain_faults build/chain/reference build/faults --jobs $(JOBS)

rehearse-short: $(STAMP)  ## kills, one worker, damage and a full disk on a chain of numbers: minutes
	$(BIN)/python -m tests.chain_faults --short build/short --jobs $(JOBS)

CHAIN ?= smoke
cluster: $(VENV)/.cluster  ## two Ray nodes on this machine: same bytes as local, nodes killed (CHAIN=toy: minutes)
	$(BIN)/python -m tests.cluster_rehearsal build/cluster --chain $(CHAIN)

# Ray, storage on S3 with a server to try it on, Dagster's on Postgres: not part of `make demo`.
$(VENV)/.cluster: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[ray,s3,scale-tests,deploy]"
	@touch $@

falsify: $(STAMP)  ## falsify a finished smoke run in over a hundred ways; the suites must see it
	$(TEST_ENV) $(BIN)/python -m tests.falsification $(if $(PAGE),--page $(PAGE))

mutants: $(STAMP)  ## mutation testing: changes of the code that no test notices; SAMPLE=20 of each
	$(BIN)/python -m pip install --quiet --editable ".[dev,mutants]"
	$(TEST_ENV) $(BIN)/python -m tests.mutants --sample $(or $(SAMPLE),0)

lint: $(STAMP)  ## style, docstrings and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.cluster  ## the test suite, on all cores
	$(TEST_ENV) $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

test-rehearsals: $(VENV)/.cluster  ## tests that take minutes by nature: nodes of a Ray cluster killed
	$(TEST_ENV) $(BIN)/python -m pytest -m rehearsal

ui: $(STAMP)  ## Dagster, MLflow and the reports in the browser
	$(BIN)/vggheads ui

docs: $(STAMP)  ## the pages of docs/ and one for each stage, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: $(STAMP)  ## execute the notebooks on what `make demo` made; output in build/notebooks
	$(TEST_ENV) $(BIN)/python -m tests.notebooks

LOCK := $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet
lock: $(STAMP)  ## resolve all versions again, and the lowest that are allowed
	$(LOCK) --extra dev -o build/lock.txt --upgrade
	$(LOCK) --extra predict --resolution lowest-direct -o build/lowest.txt --upgrade
	for name in lock lowest; do \
		{ grep '^#' requirements/$$name.txt; cat build/$$name.txt; } > build/$$name.new \
			&& mv build/$$name.new requirements/$$name.txt; done

lowest: $(STAMP)  ## find heads with the lowest versions that are allowed, in an environment of its own
	$(BIN)/python -m tests.lowest

figures: $(STAMP)  ## screenshots of the pages, from a finished demo, with the Chromium of this machine
	$(BIN)/python -m pip install --quiet --editable ".[dev,figures]"
	$(BIN)/python -m docs.figures

bench: $(STAMP)  ## speed: each benchmark prints hardware, commit and ratios
	$(BIN)/vggheads bench

super-gradients: .venv-super-gradients/.installed  ## the environment of YOLO-NAS-Pose, apart from ours

.venv-super-gradients/.installed: requirements/super_gradients.txt
	$(PYTHON) -m venv .venv-super-gradients
	.venv-super-gradients/bin/python -m pip install --quiet --upgrade pip
	.venv-super-gradients/bin/python -m pip install --quiet -r requirements/super_gradients.txt
	.venv-super-gradients/bin/python -m pip install --quiet --no-deps \
		super-gradients==3.7.1 data-gradients==0.3.2
	@touch $@

clean:  ## remove what the pipeline made (data, reports, runs); keeps .venv
	rm -rf data reports .dagster mlruns/mlflow.db mlruns/artifacts dvc.lock .dvc/cache .dvc/tmp

distclean: clean  ## also remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
