# make demo [DATASET=path]: one whole ranking.  make test: the tests.  make test-slow: the long half, with real processes and weights.
# make test-every: the further cases of both.
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv
BIN := $(VENV)/bin
PYTHON ?= python3
# the environment is made again only when what it is made from has changed: what running needs, or that and the test tools
OF := $(shell cksum < $(ROOT)pyproject.toml | cut -d' ' -f1)
READY := $(VENV)/.ready-$(OF)
READY_TO_TEST := $(VENV)/.ready-to-test-$(OF)

.PHONY: demo test test-slow test-every lint serve reference gpu-check release clean

$(READY):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e "$(ROOT)"
	rm -f $(VENV)/.ready-*
	touch $@

$(READY_TO_TEST): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e "$(ROOT)[test]"
	touch $@

demo: $(READY)
ifdef DATASET
	file="$(DATASET)"; test -e "$$file" || file="$(PWD)/$$file"; $(BIN)/detrank demo --target $(ROOT)demo --dataset "$$file"
else
	$(BIN)/detrank demo --target $(ROOT)demo
endif

serve: $(READY)
	$(BIN)/detrank serve

lint: $(READY_TO_TEST)
	cd $(ROOT) && $(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/lint-imports && $(BIN)/mypy

# one process for each of two cores, with one thread each; a file's tests stay together, so that they share what they start.
# Many start real processes, and a machine may stand still for a while: what fails runs once more, and the summary names it.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15 --reruns 1 -r aR

test: lint
	cd $(ROOT) && $(PYTEST) -m "not slow and not every"

test-slow: $(READY_TO_TEST)
	cd $(ROOT) && $(PYTEST) -m "slow and not every"

# what tests/every.toml leaves out of both halves
test-every: $(READY_TO_TEST)
	cd $(ROOT) && $(PYTEST) -m every

# on a machine with a GPU: its tests, speed against the plain way, all figures in gpu-check.txt
gpu-check: $(READY_TO_TEST)
	cd $(ROOT) && $(BIN)/python benchmarks/gpu_check.py

# the pages of docs/ that are made of the code: settings, command line, errors, metrics
reference: $(READY)
	cd $(ROOT) && $(BIN)/python -m worker.catalogue && $(BIN)/python scripts/reference.py

# dist/: checked, built, and installed once into an empty environment; nothing is uploaded
release: $(READY_TO_TEST)
	cd $(ROOT) && scripts/release

clean:
	rm -rf $(VENV) $(ROOT)demo
