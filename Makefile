# Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo/flowers
RUN := runs/demo

.PHONY: install train test lint clean

install: .venv/installed

.venv/installed: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,all]'
	touch $@

# The main job on a built-in set: samples turn from noise into flowers in $(RUN)/samples.
train: install
	test -d $(DEMO) || $(BIN)/fastgan-engine data demo $(DEMO)
	$(BIN)/fastgan-engine train --profile auto --data $(DEMO) --out $(RUN) --resume auto

test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist loadscope

# The package lives in four top-level folders; mypy sees it assembled, through links.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/types/fastgan_engine
	ln -sfn $(CURDIR)/engine/* $(CURDIR)/kernels $(CURDIR)/pipelines $(CURDIR)/profiles build/types/fastgan_engine/
	MYPYPATH=build/types $(BIN)/mypy -p fastgan_engine

clean:
	rm -rf .venv build *.egg-info
