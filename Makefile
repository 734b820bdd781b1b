# Everything that is done here, by name. `make book` and `make test` need Python >= 3.11, git and make, and nothing else.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed-minidalle
NOTEBOOKS = git ls-files -z --cached --others --exclude-standard '*.ipynb' | xargs -0 -r
# A process for each core, up to four; each of them takes 1 to 2 GB.
CORES = --numprocesses auto --maxprocesses 4
TEST = -m pytest tests $(CORES) --dist loadfile
# Each recipe runs in the environment, also its child processes.
export PATH := $(abspath $(VENV))/bin:$(PATH)
export JUPYTER_PREFER_ENV_PATH = 1
# Wherever libtpu is installed JAX looks for a TPU; without one that prints errors, and may wait long for a server that is not
# there (src/minidalle/scale/quiet.py has the same for single commands).
ifeq ($(wildcard /dev/accel* /dev/vfio/[0-9]*),)
export ALLOW_MULTIPLE_LIBTPU_LOAD = 1
export TPU_ACCELERATOR_TYPE = v3-8
export TPU_LOG_DIR = disabled
export TPU_SKIP_MDS_QUERY = 1
export TPU_WORKER_HOSTNAMES = localhost
endif

.DEFAULT_GOAL := book
.PHONY: help book pdf test lint format lab test-browser test-oldest test-newest checkpoints evaluate stamp pins coverage linkcheck chapters clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "make %-14s %s\n", $$1, $$2}'

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("minidalle needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; say make PYTHON=python3.12")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

chapters: $(INSTALLED) ## run the chapters that changed since they last passed
	$(RUN) -m tools.execute

book: chapters ## run the chapters and render the book to _build/html/index.html
	$(RUN) -m tools.render

pdf: chapters ## run the chapters and print the book to _build/minidalle.pdf (needs Chromium)
	$(RUN) -m tools.render --builder singlehtml
	$(RUN) -m tools.pdf

test: $(INSTALLED) ## every unit test, and every chapter as a test
	mkdir -p _build/coverage && rm -f _build/coverage/data*
	$(RUN) -m coverage run $(TEST)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report
	$(RUN) -m tools.execute

coverage: $(INSTALLED) ## the lines that the last `make test` did not run
	$(RUN) -m coverage html --quiet --directory _build/coverage/html
	@echo "Line by line: _build/coverage/html/index.html"

lint: $(INSTALLED) ## ruff, formatting, and chapters free of outputs
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(NOTEBOOKS) $(VENV)/bin/nbstripout --keep-id --verify

format: $(INSTALLED) ## mend what can be mended by machine
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(NOTEBOOKS) $(VENV)/bin/nbstripout --keep-id

# The package with other versions than the pinned ones, each in an environment of its own.
OTHER = python -m pip install --quiet --disable-pip-version-check
test-oldest: ## the unit tests with the versions that Colab carries (tests/colab.txt)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/$(OTHER) --constraint tests/colab.txt -e '.[test]'
	.venv-oldest/bin/python $(TEST)

test-newest: ## the unit tests with the newest of everything
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/$(OTHER) --upgrade -e '.[test]'
	.venv-newest/bin/python $(TEST)

lab: $(INSTALLED) ## open the chapters in JupyterLab
	cd book && $(abspath $(RUN)) -m jupyterlab

test-browser: $(INSTALLED) ## look at every rendered page in headless Chromium (after `make book pdf`)
	$(RUN) -m pytest tests/browser $(CORES)

checkpoints: $(INSTALLED) ## train the shipped checkpoints again (hours on two cores)
	$(VENV)/bin/minidalle train recipes/emoji/vqgan.toml
	$(VENV)/bin/minidalle train recipes/emoji/bart-1-compose.toml
	$(VENV)/bin/minidalle train recipes/emoji/bart-2-memorise.toml
	$(VENV)/bin/minidalle train recipes/emoji/bart-3-settle.toml
	$(VENV)/bin/minidalle train recipes/emoji/clip.toml

evaluate: $(INSTALLED) ## measure the shipped checkpoints: every number of their card
	$(VENV)/bin/minidalle evaluate emoji

stamp: $(INSTALLED) ## carry the repository's address from pyproject.toml to wherever it stands
	$(RUN) -m tools.stamp

pins: $(INSTALLED) ## write the second part of requirements.txt
	$(RUN) -m tools.pins

linkcheck: chapters ## ask every address that the book names whether it still answers (needs the network)
	$(RUN) -m tools.render --builder linkcheck

clean: ## remove what was built, but not the environment
	rm -rf _build .executed
