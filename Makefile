# make demo [DATASET=path]: one whole ranking.  make test: the tests.  make test-slow: the long half, with real processes and weights.
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv
BIN := $(VENV)/bin
PYTHON ?= python3
# the environment is made again only when what it is made from has changed
READY := $(VENV)/.ready-$(shell cksum < $(ROOT)pyproject.toml | cut -d' ' -f1)

.PHONY: demo test test-slow lint serve clean

$(READY):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e "$(ROOT)[test]"
	rm -f $(VENV)/.ready-*
	touch $@

demo: $(READY)
ifdef DATASET
	file="$(DATASET)"; test -e "$$file" || file="$(PWD)/$$file"; $(BIN)/detrank demo --target $(ROOT)demo --dataset "$$file"
else
	$(BIN)/detrank demo --target $(ROOT)demo
endif

serve: $(READY)
	$(BIN)/detrank serve

lint: $(READY)
	cd $(ROOT) && $(BIN)/ruff check . && $(BIN)/lint-imports

# one process for each of two cores, with one thread each; a file's tests stay together, so that they share what they start
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

test: lint
	cd $(ROOT) && $(PYTEST) -m "not slow"

test-slow: $(READY)
	cd $(ROOT) && $(PYTEST) -m slow

clean:
	rm -rf $(VENV) $(ROOT)demo
