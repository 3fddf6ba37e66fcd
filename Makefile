# One command a task. Each sets up what it needs first, and only when something has changed.
# A fresh machine needs Python 3.11 or newer (as python3), git and make.

PYTHON ?= python3
# uv from the PATH where there is one that works; else a copy of our own, in .uv/.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
BIN := .venv/bin
# What `bentoml build` installs: serving, training and the command line, as the lock file pins them.
EXPORT = $(UV) export --quiet --frozen --no-dev --extra cli --extra train --no-emit-project \
	--no-hashes --no-annotate --no-header
STAMP := .venv/.up-to-date
SCENARIO ?= steady
DURATION ?= 30
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format loadtest bench race performance serve bento clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z.]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## install everything that the lock file pins into .venv

demo: $(STAMP) ## digits: profile, train, register, serve, predict (ARGS=--keep leaves it up)
	$(BIN)/imgcls demo $(ARGS)

test: check ## check, then all tests (ARGS="-k name" chooses)
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP) ## format, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(EXPORT) | diff - requirements.txt >/dev/null \
		|| { echo "requirements.txt is behind uv.lock: run make requirements.txt"; exit 1; }

format: $(STAMP) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

loadtest: $(STAMP) ## Locust against LOADTEST_HOST or its own service (SCENARIO=steady DURATION=30)
	$(BIN)/python -m loadtests.run --scenario $(SCENARIO) --seconds $(DURATION) $(ARGS)

bench: $(STAMP) ## requests/s beside BentoML's own batching (ARGS="--data pets32.zip")
	$(BIN)/python -m benchmarks.serve --network tiny --only imgcls bentoml --seconds 5 --connections 32 \
		$(ARGS)

race: $(STAMP) ## imgcls beside other servers and the offline limit, 40 minutes (ARGS="--data photos.zip")
	$(UV) sync --quiet --frozen --all-extras --group bench
	$(BIN)/python -m benchmarks.serve $(ARGS)

performance: $(STAMP) ## write what a race found into docs/performance.md (RESULTS=...json)
	$(UV) sync --quiet --frozen --all-extras --group bench
	$(BIN)/python -m benchmarks.serve.document $(RESULTS)

serve: $(STAMP) ## the service at http://localhost:3000
	$(BIN)/bentoml serve $(ARGS)

bento: $(STAMP) ## build the bento imgcls:latest
	$(BIN)/bentoml build

clean: ## delete caches and results; models, datasets and .venv stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache dist build benchmarks/results loadtests/results
	find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.uv/*' -prune \
		-exec rm -rf {} +

# The stamp lies inside .venv, so that a deleted environment is set up again. All is compiled at once, so that
# processes start in half the time: from the first on, and where PYTHONDONTWRITEBYTECODE is set.
$(STAMP): pyproject.toml uv.lock | $(filter .uv/%,$(UV))
	$(UV) sync --frozen --all-extras --compile-bytecode
	@touch $@

# Neither way touches the system's packages, so an externally managed Python is no obstacle. uv is one
# binary: what pip lays beside it would only be found by the linter.
.uv/bin/uv:
	@echo "uv is not installed: fetching it into .uv/"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "imgcls needs Python 3.11 or newer as $(PYTHON)."; exit 1; }
	@rm -rf .uv
	@$(PYTHON) -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip install --quiet uv \
		|| { rm -rf .uv; $(PYTHON) -m pip install --quiet --target .uv uv && rm -rf .uv/uv; } \
		|| { rm -rf .uv; echo "uv could not be fetched: $(PYTHON) needs venv or pip, and a network."; \
			exit 1; }
	@test -x $@

requirements.txt: pyproject.toml uv.lock | $(STAMP) ## what the bento installs, from the lock file
	$(EXPORT) > $@
