# Sitewarden: two commands matter. `make run` starts a whole simulated plant, `make test` runs every test.
# Everything that is installed goes into .venv and web/node_modules of this folder; nothing here needs root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_USER := 0
export PIP_ROOT_USER_ACTION := ignore
export npm_config_update_notifier := false
# Images of containers often set it: then each process, and the tests start hundreds, compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?=            # the interpreter to make .venv with; empty: the first that is new enough
ARGS ?=              # make run ARGS="--free-ports", make test ARGS="-k alarms -x"
SOAK_S ?= 600        # seconds that each soak test may run
UPGRADE ?=           # make lock UPGRADE=--upgrade takes newer versions

WEB_SOURCES = find web -maxdepth 1 -type f '(' -name '*.html' -o -name '*.json' -o -name '*.ts' -o -name '*.mjs' -o -name .npmrc ')' -print0; \
	find edge/pages/openapi.yaml cloud/openapi.yaml -print0; \
	find web/src web/public -path web/src/generated -prune -o -type f -print0 2>/dev/null || true

# Shared by the recipes below; each is one shell script (.ONESHELL).
define LIB
say() { printf '\n== %s\n' "$$*"; }
fail() { printf '\nmake: %s\n' "$$1" >&2; shift; for line in "$$@"; do printf '      %s\n' "$$line" >&2; done; exit 1; }
digest() { xargs -0 sha256sum | sha256sum | cut -c1-32; }
held() { cat "$$1" 2>/dev/null || true; }
writable() {
  if [ -e "$$1" ] && [ ! -w "$$1" ]; then
    fail "$$1 belongs to $$(stat -c %U "$$1"), and you are $$(id -un)." \
      "Run make as $$(stat -c %U "$$1"), or remove what that user made: sudo rm -rf .venv .peers web/node_modules web/dist var"
  fi
}
endef

.PHONY: help
help: ## list the targets (default)
	@printf 'Sitewarden 岗哨\n\n'
	sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	printf '\nFirst time: make run. It needs Python 3.11 or newer with venv, Node 20.19 or newer with npm, and nothing else.\n'

.PHONY: setup
setup: ## make .venv with everything that is in requirements-dev.lock
	@$(LIB)
	lock_key="$$(printf '%s\0' requirements-dev.lock | digest)"
	package_key="$$(printf '%s\0' pyproject.toml __init__.py | digest)"
	place="$$(held $(VENV)/.place)"
	if [ -e $(VENV)/.busy ] || [ "$${place:-$(CURDIR)}" != "$(CURDIR)" ] || { [ -e $(VENV) ] && ! $(PY) -c 'import pip' 2>/dev/null; }; then
	  writable .; writable $(VENV)
	  say "$(VENV) is half-made, was moved, or its Python has gone: making it anew"
	  rm -rf $(VENV)
	fi
	if [ ! -e $(VENV) ]; then
	  writable .
	  python=
	  for name in $(PYTHON) python3 python3.13 python3.12 python3.11; do
	    if command -v "$$name" >/dev/null && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	      python=$$name; break
	    fi
	  done
	  [ -n "$$python" ] || fail "Python 3.11 or newer is missing." "Debian 12 and Raspberry Pi OS: sudo apt install python3 python3-venv"
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null ||
	    fail "this Python ($$(command -v "$$python")) cannot make virtual environments." "Debian and Raspberry Pi OS: sudo apt install python3-venv"
	  say "making $(VENV) with $$("$$python" --version)"
	  mkdir -p $(VENV) && touch $(VENV)/.busy
	  "$$python" -m venv $(VENV) || fail "$(VENV) could not be made." "Debian and Raspberry Pi OS: sudo apt install python3-venv"
	fi
	if [ "$$(held $(VENV)/.locked)" != "$$lock_key" ]; then
	  writable $(VENV)
	  say "installing what requirements-dev.lock names (the first time this takes a minute or two)"
	  touch $(VENV)/.busy
	  rm -f $(VENV)/.locked $(VENV)/.installed
	  $(PY) -m pip install --require-hashes --prefer-binary -r requirements-dev.lock |
	    { grep --line-buffered -vE '^(Requirement already satisfied|Looking in|Ignoring|  Using cached)' || true; } ||
	    fail "pip could not install everything; its message is above." "Without a network: try again later. What was fetched is kept."
	  printf '%s\n' "$(CURDIR)" > $(VENV)/.place
	  printf '%s\n' "$$lock_key" > $(VENV)/.locked
	  rm -f $(VENV)/.busy
	fi
	if [ "$$(held $(VENV)/.installed)" != "$$package_key" ]; then
	  writable $(VENV)
	  say "installing sitewarden itself (editable)"
	  $(PY) -m pip install --no-deps --no-build-isolation --editable . >$(VENV)/install.log 2>&1 ||
	    { cat $(VENV)/install.log; fail "sitewarden could not be installed into $(VENV)."; }
	  # The root is the package: with this link basedpyright and import-linter find it by its name.
	  ln -sfnT '$(CURDIR)' "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sitewarden"
	  printf '%s\n' "$$package_key" > $(VENV)/.installed
	fi

.PHONY: web-modules
web-modules:
	@$(LIB)
	command -v node >/dev/null ||
	  fail "node is missing (Node 20.19 or newer builds the pages)." "Debian 12's own is too old: take Node 22 LTS from nodejs.org, or from its packages for Debian"
	node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' ||
	  fail "node $$(node --version) is too old or an odd one." "Node 20.19 or newer of 20, or 22.12 or newer, builds the pages: take Node 22 LTS from nodejs.org"
	command -v npm >/dev/null || fail "npm is missing." "It comes with node from nodejs.org; with Debian's own node: sudo apt install npm"
	key="$$(printf '%s\0' web/package-lock.json web/package.json | digest) $$(node --version)"
	if [ "$$(held web/node_modules/.sitewarden)" != "$$key" ]; then
	  writable web; writable web/node_modules
	  say "installing what web/package-lock.json names"
	  rm -f web/node_modules/.sitewarden
	  npm --prefix web ci --no-audit --no-fund ||
	    fail "npm could not install everything; its message is above." "Without a network: try again later."
	  printf '%s\n' "$$key" > web/node_modules/.sitewarden
	fi

.PHONY: web
web: web-modules ## build the pages into web/dist, when their sources changed
	@$(LIB)
	key="$$({ $(WEB_SOURCES); } | sort -z | digest)"
	if [ ! -e web/dist/control-room.html ] || [ ! -e web/dist/headquarters.html ] || [ "$$(held web/node_modules/.sitewarden-built)" != "$$key" ]; then
	  writable web; writable web/dist
	  say "building the pages"
	  rm -f web/node_modules/.sitewarden-built
	  npm --prefix web run build
	  printf '%s\n' "$$key" > web/node_modules/.sitewarden-built
	fi

.PHONY: run
run: setup web ## start a whole simulated plant with its gateway and its cloud; Ctrl-C stops it
	@$(LIB)
	writable .; writable var; writable var/demo
	command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] ||
	  say "mosquitto is not installed: an embedded broker is used (better: sudo apt install mosquitto)"
	exec $(VENV)/bin/sitewarden demo $(ARGS)

.PHONY: test
test: setup web ## run every test (soak tests: make soak)
	@$(LIB)
	say "tests of the pages"
	npm --prefix web test
	say "tests"
	# They wait more than they compute: four processes, and none ends long after the others. ARGS='-n 0 tests/test_x.py' runs one alone.
	$(PY) -m pytest -m 'not soak' -n 6 --dist worksteal $(ARGS)

.PHONY: peers
peers: web-modules ## install what some tests talk to: Node-RED, and Home Assistant where Python is 3.11
	@$(LIB)
	writable .; writable .peers
	key="$$(printf '%s\0' tests/peers/node-red/package-lock.json | digest) $$(node --version)"
	if [ "$$(held .peers/node-red/.sitewarden)" != "$$key" ]; then
	  say "Node-RED, as tests/peers/node-red/package-lock.json names it"
	  mkdir -p .peers/node-red
	  cp tests/peers/node-red/package.json tests/peers/node-red/package-lock.json tests/peers/node-red/.npmrc .peers/node-red/
	  npm --prefix .peers/node-red ci --ignore-scripts --no-audit --no-fund
	  printf '%s\n' "$$key" > .peers/node-red/.sitewarden
	fi
	key="$$(printf '%s\0' tests/peers/home-assistant.lock | digest)"
	if [ "$$(held .peers/home-assistant/.sitewarden)" != "$$key" ]; then
	  rm -rf .peers/home-assistant
	  mkdir -p .peers/home-assistant
	  if command -v python3.11 >/dev/null && python3.11 -c 'import ensurepip, venv' 2>/dev/null; then
	    say "Home Assistant, as tests/peers/home-assistant.lock names it"
	    python3.11 -m venv .peers/home-assistant
	    if .peers/home-assistant/bin/python -m pip install --quiet --require-hashes -r tests/peers/home-assistant.lock; then
	      printf '%s\n' "$$key" > .peers/home-assistant/.sitewarden
	    else
	      say "Home Assistant does not install here: left out"
	      touch .peers/home-assistant/unavailable
	    fi
	  else
	    say "Home Assistant's version of tests/peers/home-assistant.lock needs Python 3.11 with venv: left out"
	    touch .peers/home-assistant/unavailable
	  fi
	fi

.PHONY: check
check: setup web-modules ## lint, formatting, types, import contracts
	@$(LIB)
	say "ruff"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	say "import contracts"
	$(VENV)/bin/lint-imports --no-logo
	say "types"
	$(VENV)/bin/basedpyright --pythonpath $(PY)
	say "types of the pages"
	npm --prefix web run check

.PHONY: bench
bench: setup ## run every benchmark of benchmarks/, one after the other
	@$(LIB)
	found=
	for file in benchmarks/bench_*.py; do
	  [ -e "$$file" ] || continue
	  found=yes
	  say "$$file"
	  $(PY) "$$file" $(ARGS)
	done
	[ -n "$$found" ] || fail "there is no benchmarks/bench_*.py."

.PHONY: soak
soak: setup web ## run the long tests; SOAK_S=600 seconds for each
	@$(LIB)
	collected=0
	$(PY) -m pytest -m soak --collect-only -q >$(VENV)/soak.txt 2>&1 || collected=$$?
	if [ $$collected -eq 5 ]; then echo "There is no soak test."; exit 0; fi
	if [ $$collected -ne 0 ]; then cat $(VENV)/soak.txt; exit $$collected; fi
	say "soak tests, up to $(strip $(SOAK_S)) s each"
	# Their folders are on a disk, where a commit waits for it.
	PYTEST_DEBUG_TEMPROOT="$${TMPDIR:-/tmp}" SITEWARDEN_SOAK_S=$(strip $(SOAK_S)) $(PY) -m pytest -m soak --timeout $$(( $(strip $(SOAK_S)) + 300 )) $(ARGS)

.PHONY: wheel
wheel: setup web ## build dist/sitewarden-*.whl, which systemd/install.sh installs
	@$(LIB)
	say "building the wheel"
	rm -rf build dist
	$(PY) -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . >$(VENV)/wheel.log 2>&1 ||
	  { cat $(VENV)/wheel.log; fail "the wheel could not be built."; }
	rm -rf build
	ls -l dist/*.whl

.PHONY: lock
lock: ## make the requirements locks again (needs uv); UPGRADE=--upgrade for newer versions
	@$(LIB)
	command -v uv >/dev/null || fail "uv is missing (only make lock needs it)." "python3 -m pip install uv, in a virtual environment of its own"
	compile() {
	  say "$$2"
	  uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	    --custom-compile-command 'make lock' $(UPGRADE) "$${@:3}" "$$1" -o "$$2"
	}
	compile pyproject.toml requirements-dev.lock --extra quickstart --extra parquet --extra postgres --extra s3 --group dev
	compile pyproject.toml requirements.lock --extra quickstart -c requirements-dev.lock
	compile pyproject.toml requirements-vision.lock --extra vision -c requirements-dev.lock
	compile pyproject.toml requirements-cloud.lock --extra parquet --extra postgres --extra s3 -c requirements-dev.lock
	if grep -nE '(https?|file|ftp)://' requirements*.lock; then fail "a lock holds an address (above)."; fi

.PHONY: clean
clean: ## remove everything that was installed or built here; var/ (the demo's data) stays
	@rm -rf $(VENV) .peers web/node_modules web/dist build dist ./*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
