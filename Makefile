# make demo                  train with and without mixup on handwritten digits and compare:
#                            minutes on a CPU; the result is in demo/
# make test                  the tests, in four minutes on two cores: not the slow ones, and those
#                            that need a GPU only where there is one
# make test-all              every test: make test, make test-slow, make test-gpu
# make test-slow             the tests that take long and rarely fail
# make test-gpu              the tests that need a GPU, on one that is simulated on the host (g++)
# make lint                  ruff, by the rules in pyproject.toml
# make train SEEDS="0 1 2"   both scripts on CIFAR-10 for each seed, then compare; the result is in
#                            OUT=runs/cifar10.  TRAIN="--recipe standard" gives options to both,
#                            METHODS="baseline inputmixup manifoldmixup" trains input mixup too,
#                            JOBS=2 two runs at once
# make bench                 seconds of a training step beside PyTorch's, images a second of the
#                            data path: some half an hour; DEVICE=0 measures on that GPU instead
# make gpu-check             on a machine with a GPU: its tests, a benchmark, a profile and the
#                            comparison on CIFAR-10 for as long as fits into ten minutes; the result
#                            is in gpu-check/ and gpu-check.tar.gz.  CHECK="tests step" picks parts
#
# Each sets up .venv by itself; VENV=python3.13 makes it with that Python.  PYTHON=/path/to/python
# uses an interpreter as it is, without a virtual environment and without a network.
# Where nvidia-smi shows a GPU, demo, train, test and test-slow add requirements-gpu.txt to .venv
# and use it; with GPU=no they leave it out and run on the CPU.  REQUIREMENTS="requirements.txt ..."
# is exactly what is to be installed, GPU or not.

VENV ?= python3
REQUIREMENTS ?= requirements.txt
METHODS ?= baseline manifoldmixup
SEEDS ?= 0 1 2
JOBS ?= 1
OUT ?= runs/cifar10
TRAIN ?=
DEMO ?=
TEST ?=
BENCH ?=
CHECK ?=
DEVICE ?= cpu

# What asks for a GPU gets what a GPU needs; the others do where there is one.
ON_GPU = $(filter-out cpu,$(DEVICE)) $(filter gpu-check,$(MAKECMDGOALS))

ifdef PYTHON
INSTALLED =
FOR_GPU =
else
PYTHON = .venv/bin/python
INSTALLED = .venv/installed
FOR_GPU = $(if $(filter file,$(origin REQUIREMENTS)),gpu)
endif

.PHONY: demo test test-all test-slow test-gpu lint train bench gpu-check gpu clean

ifeq ($(GPU),no)
demo test test-slow train: export CUDA_VISIBLE_DEVICES =
else
demo test test-slow train: $(FOR_GPU)
endif

demo: $(INSTALLED)
	$(PYTHON) -m experiment.grid --seeds 0 --out demo --dataset digits --augment none \
	    --batchsize 32 --epoch 4 --snapshot-every 0 $(DEMO)

test: $(INSTALLED)
	$(PYTHON) -m pytest $(TEST)

test-slow: $(INSTALLED)
	$(PYTHON) -m pytest -m slow $(TEST)

test-gpu: $(INSTALLED)
	GPU=simulated $(PYTHON) -m pytest -m gpu $(TEST)

test-all: test test-slow test-gpu

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .

train: $(INSTALLED)
	$(PYTHON) -m experiment.grid --methods $(METHODS) --seeds $(SEEDS) --jobs $(JOBS) --out $(OUT) \
	    $(TRAIN)

ifeq ($(DEVICE),cpu)
bench: $(INSTALLED)
	$(PYTHON) -m benchmarks.training_step $(BENCH)
	$(PYTHON) -m benchmarks.augmentation
else
bench: $(INSTALLED) $(FOR_GPU)
	$(PYTHON) -m benchmarks.training_step --device $(DEVICE) $(BENCH)
endif

gpu-check: $(INSTALLED) $(FOR_GPU)
	$(PYTHON) -m benchmarks.gpu_check --out gpu-check $(CHECK)

# Another VENV or REQUIREMENTS than .venv was made with makes it anew, where one is given.
ifneq ($(origin VENV) $(origin REQUIREMENTS),file file)
ifneq ($(VENV) $(REQUIREMENTS),$(shell cat .venv/installed 2>/dev/null))
.PHONY: .venv/installed
endif
endif

# --no-compile: half a minute less; Python compiles what is imported, when it is.
.venv/installed: $(REQUIREMENTS) install/edited_release.py $(wildcard install/*/*)
	@$(VENV) experiment/supported_python.py
	$(VENV) -m venv --clear .venv
	$(if $(filter requirements.txt,$(REQUIREMENTS)),@.venv/bin/python install/package_index.py)
	.venv/bin/python -m pip install --disable-pip-version-check --no-compile $(REQUIREMENTS:%=-r %)
	echo '$(VENV) $(REQUIREMENTS)' > $@

gpu: .venv/installed
	@.venv/bin/python install/gpu.py $(if $(strip $(ON_GPU)),--always)

clean:
	rm -rf .venv
