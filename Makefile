# make demo    train both scripts on handwritten digits, then compare them: minutes on a CPU
# make test    every test that needs no GPU
# make train   both scripts on CIFAR-10 for each of SEEDS, then compare them
# make bench   speed of the data path
#
# Each sets up .venv by itself.  PYTHON=/path/to/python uses that interpreter as it is instead,
# without a virtual environment or a network.  BASE=python3.13 makes .venv with another Python.

BASE ?= python3
SEEDS ?= 0 1 2
TRAIN ?=
DEMO ?= --epoch 6
REQUIREMENTS ?= requirements.txt

ifdef PYTHON
READY =
else
PYTHON = .venv/bin/python
READY = .venv/installed
endif

.PHONY: demo test train bench clean

demo: $(READY)
	$(PYTHON) -m recipe.demo $(DEMO)

test: $(READY)
	$(PYTHON) -m pytest

train: $(READY)
	$(PYTHON) -m recipe.campaign --seeds "$(SEEDS)" $(TRAIN)

bench: $(READY)
	$(PYTHON) benchmarks/augmentation.py

.venv/installed: $(REQUIREMENTS) $(wildcard install/*) $(wildcard install/*/*)
	$(BASE) -m venv .venv
	.venv/bin/python -m pip install $(foreach file,$(REQUIREMENTS),-r $(file))
	touch $@

clean:
	rm -rf .venv
