# The few commands of the project. `make` alone runs Sluice.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONDONTWRITEBYTECODE ?=

.DEFAULT_GOAL := run
.PHONY: setup run test test-rasa lint bench rasa clean

setup: $(VENV)/.installed nlu/model/default.npz

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

nlu/model/default.npz: $(VENV)/.installed $(wildcard nlu/*.py) $(wildcard nlu/data/*/*.yml)
	$(PY) bot.py train --default

run: setup
	$(PY) bot.py run

test: setup $(VENV)/.installed-dev
	@scripts/servers.sh
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -n 2 --dist loadfile

lint: setup $(VENV)/.installed-dev
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

bench: setup $(VENV)/.installed-dev
	@scripts/servers.sh
	$(PY) -m tests.bench

rasa:
	@scripts/rasa.sh

# A real Rasa server, trained on a part of the data: minutes of CPU, so not a part of `make test`.
test-rasa: setup $(VENV)/.installed-dev
	@scripts/rasa.sh install
	$(PY) -m pytest -m rasa tests/test_nlu_rasa_server.py

clean:
	rm -rf $(VENV) nlu/model
