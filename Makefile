# make demo                  train with and without mixup on handwritten digits and compare:
#                            minutes on a CPU; the result is in demo/
# make test                  every test that needs no GPU
# make train SEEDS="0 1 2"   both scripts on CIFAR-10 for each seed, then compare; the result is in
#                            OUT=runs/cifar10.  TRAIN="--recipe standard" gives options to both
# make bench                 seconds of a training step beside PyTorch's, images a second of the data
#                            path: some ten minutes
#
# Each sets up .venv by itself; VENV=python3.13 makes it with that Python.  PYTHON=/path/to/python
# uses an interpreter as it is, without a virtual environment and without a network.

VENV ?= python3
REQUIREMENTS ?= requirements.txt
SEEDS ?= 0 1 2
OUT ?= runs/cifar10
TRAIN ?=
DEMO ?=
TEST ?=
BENCH ?=

ifdef PYTHON
INSTALLED =
else
PYTHON = .venv/bin/python
INSTALLED = .venv/installed
endif

.PHONY: demo test train bench clean

demo: $(INSTALLED)
	$(PYTHON) -m recipe.pairs --seeds 0 --out demo --dataset digits --augment none \
	    --batchsize 32 --epoch 4 --snapshot-every 0 $(DEMO)

test: $(INSTALLED)
	$(PYTHON) -m pytest $(TEST)

train: $(INSTALLED)
	$(PYTHON) -m recipe.pairs --seeds $(SEEDS) --out $(OUT) $(TRAIN)

bench: $(INSTALLED)
	$(PYTHON) -m benchmarks.training_step $(BENCH)
	$(PYTHON) -m benchmarks.augmentation

# Another VENV or REQUIREMENTS on the command line than .venv was made with makes it anew.
ifneq ($(origin VENV) $(origin REQUIREMENTS),file file)
ifneq ($(VENV) $(REQUIREMENTS),$(shell cat .venv/installed 2>/dev/null))
.PHONY: .venv/installed
endif
endif

# --no-compile: half a minute less; Python compiles what is imported, when it is.
.venv/installed: $(REQUIREMENTS) $(wildcard install/*.py install/*/*)
	$(VENV) -m venv --clear .venv
	.venv/bin/python -m pip install --disable-pip-version-check --no-compile $(REQUIREMENTS:%=-r %)
	echo '$(VENV) $(REQUIREMENTS)' > $@

clean:
	rm -rf .venv
