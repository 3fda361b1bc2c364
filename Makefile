# make demo    caption examples/shapes.mp4 offline with the model in checkpoints/grove-tiny, into outputs/demo/
# make test    the tests; with ARGS, other ones: make test ARGS="-m slow"
# make lint    ruff and mypy, without changing anything
# make style   let ruff rewrite what it can
# make bench   speed of inference, streaming, evaluation, training and annotation, with printed ratios
# make story   raw videos, annotation, training, evaluation, publishing to a Hub on this machine, and a stranger who uses it
# make assets  make examples/, checkpoints/grove-demo/ and docs/images/ again
#
# Each installs what it needs into .venv first. The Python to start from: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint style bench story assets clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer; try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

# The stamps say that what pyproject.toml and constraints.txt ask for is installed; the second includes the first.
$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV); this takes a minute or more ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), with what the tests need; this takes a minute or more ..."
	@$(PIP_INSTALL) -e ".[test]"
	@touch $(VENV)/installed $@

demo: $(VENV)/installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m modeling_grove examples/shapes.mp4 --model checkpoints/grove-tiny --output outputs/demo
	@echo
	@echo "Open outputs/demo/shapes.html, shapes.mp4 and shapes.png. The model in checkpoints/grove-tiny is a small one that this"
	@echo "repository trained on GroundedShapes (docs/training.md); it knows that world only, and this clip of it was new to it."

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/annotate.py

story: $(VENV)/installed-test
	$(BIN)/python -m train story --output outputs/story $(ARGS)

assets: $(VENV)/installed-test
	$(BIN)/python examples/make_clip.py
	$(BIN)/python examples/make_shapes_clip.py
	$(BIN)/python tests/demo_checkpoint.py
	$(BIN)/python examples/make_picture.py
	$(BIN)/python examples/make_shapes_picture.py

clean:
	rm -rf $(VENV) outputs .mypy_cache .pytest_cache .ruff_cache
