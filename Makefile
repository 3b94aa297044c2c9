# `make demo` shows maand at work; `make test` proves it. Both set everything up by themselves and may be repeated.

PYTHON ?=
VENV   := .venv
BIN    := $(VENV)/bin
LOGIN_SHELLS := bsd-csh busybox dash fish ksh93 mksh tcsh zsh
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
# processes for tests that mostly wait: for workers that hang, for disks that are full
WAITERS := 4

.PHONY: help setup demo test test-fleet test-crash test-sick test-resources chaos test-cluster cluster cluster-down images lock lint format contracts bench clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: $(VENV)/.installed  ## virtual environment with everything, from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || { python=$$(scripts/find-python $(PYTHON)) && "$$python" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: setup      ## the whole story on three workers inside one process, nothing else needed
	@scripts/need-system rsync make
	$(BIN)/maand demo

test: setup      ## all tests that need neither namespaces nor containers
	@scripts/need-system rsync make sshd postgresql sudo flock $(LOGIN_SHELLS)
	@scripts/run-tests $(BIN)/python -n $(WORKERS) --dist loadgroup tests -m "not (fleet or cluster or crash or sick or resources)"

test-fleet: setup  ## tests on workers as separate hosts (root, network namespaces)
	@scripts/need-system rsync make sshd sudo flock ip iptables
	@scripts/run-tests $(BIN)/python -n $(WORKERS) --dist loadfile tests/fleet

test-cluster: setup  ## tests on a cluster in containers of its own: kills, takeovers, refusals; starts an engine where none is
	@scripts/engine run scripts/run-tests $(BIN)/python -n 0 tests/cluster

test-crash: setup ## executors that die before and after every outward act of deploys, hooks, restarts, commands; prints the counts
	@scripts/need-system rsync make
	@scripts/run-tests $(BIN)/python -n $(WORKERS) --dist load -rP tests/crash

test-sick: setup ## workers that hang, flood, lie and break off, each beside a healthy one (root, OpenSSH, rsync)
	@scripts/need-system rsync make sshd sudo flock iptables
	@scripts/run-tests $(BIN)/python -n $(WAITERS) tests/sick

test-resources: setup  ## a machine without room: full disks at each phase, few descriptors (root)
	@scripts/need-system rsync make sshd sudo flock
	@scripts/run-tests $(BIN)/python -n $(WAITERS) --dist load tests/resources

chaos: setup     ## 30 random kills of a rolling deploy on 20 workers (root, network namespaces); KILLS=6 SEED=7 choose
	@scripts/need-system rsync make sshd sudo flock ip iptables
	$(BIN)/python -m tests.fleet.chaos --kills $(or $(KILLS),30) $(if $(SEED),--seed $(SEED))

cluster: setup   ## PostgreSQL, two catalogs, two executors, three workers in containers; prints how to use them
	@scripts/cluster up

cluster-down:    ## remove them, their data too
	@scripts/cluster down

images:          ## an image per service, and a worker to try them on
	@scripts/cluster images

lock:            ## pin what the images install, after requirements.lock changed
	@scripts/lock

lint: setup      ## format, lint, types, layers, contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	cd protos && ../$(BIN)/buf lint
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/document.py --check
	cd protos && ../scripts/contracts-compatible ../$(BIN)/buf

format: setup    ## let ruff do what it can
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

contracts: setup ## regenerate the Python contracts and docs/grpc-api.md
	$(BIN)/python protos/generate.py
	$(BIN)/python protos/document.py

bench: setup     ## figures against peers, as ratios of one run; WHAT="ssh-warm --rounds 3" chooses; see tests/bench/README.md
	@scripts/need-system rsync make sshd postgresql sudo flock
	$(BIN)/python -m tests.bench $(WHAT)

clean:           ## remove what set-up made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
