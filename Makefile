# Everything that a person or a machine does with this repository. `make` lists it.

PYTHON ?= python3
VENV := .venv/bin
# Makes .venv-compiled: where this machine has one, a Python built for speed, as the images' is.
COMPILED_PYTHON ?= $(shell $(PYTHON) tools/interpreter.py --best)
VERSION = $(shell sed -n 's/^appVersion: *"\{0,1\}\([^" ]*\)"\{0,1\}.*/\1/p' charts/lb/Chart.yaml)
SOURCES := services tools tests benchmarks
LINTED := $(SOURCES) charts examples findings
HOT := $(shell find services -name build -prune -o -name '*.py' -print -o -name pyproject.toml -print -o -path '*/dashboard/*' -print)

# The stress test's load.
N ?= 1000
C ?= 50
DIGITS ?= 10-1000
URL ?= http://localhost:$(or $(LB_PORT),8080)

MINUTES ?= 10
TESTS ?= tests
QUICK := tests/balancer tests/pi tests/tools

.DEFAULT_GOAL := help
.SILENT:
.PHONY: help setup run demo stress test test-quick test-newest test-compiled e2e helm4 soak check format lint words types imports generated \
	generate lock compiled images image-sizes bench bench-quick newest-peers bench-pi profile clean

##@ Use it

help:  ## List these targets
	awk 'BEGIN { FS = ":.*## " } \
	    /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z][a-z0-9-]*:.*## / { printf "  %-15s %s\n", $$1, $$2 }' Makefile

setup: .venv/.ready  ## Make .venv: both services (editable) and the tools, exactly the locked versions

run: .venv/.ready  ## Start the balancer and four Pi backends until Ctrl-C (BACKENDS=8, LB_STRATEGY=…, LB_PORT=…)
	$(VENV)/python tools/run.py

demo: .venv/.ready  ## A guided tour: unequal backends under load, and the dashboard
	$(VENV)/python -m tools.demo

stress: .venv/.ready  ## Load a running balancer (N=1000 C=50 DIGITS=10-1000 URL=http://localhost:8080)
	$(VENV)/python tools/stress.py --requests $(N) --concurrency $(C) --digits $(DIGITS) --url $(URL)

##@ Change it

check: lint words types imports generated  ## Formatting, lint, plain words, types, layers, generated files in step

test: .venv/.ready  ## Every test that can run on this machine but the cluster's (TESTS=tests/pi for a part)
	$(VENV)/pytest $(TESTS) --ignore tests/e2e

test-quick: .venv/.ready  ## The tests without containers, browsers or the chart
	$(VENV)/pytest $(QUICK)

test-newest:  ## The same on another Python, in an environment of its own (PYTHON=python3.15 TESTS=tests/pi)
	environment=.venv-$$($(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep=".")') && \
	    $(PYTHON) tools/environment.py editable --into $$environment && \
	    $$environment/bin/pytest $(if $(filter file,$(origin TESTS)),$(QUICK),$(TESTS))

test-compiled: .venv-compiled/.ready  ## The tests of what is compiled again, on the compiled wheel
	.venv-compiled/bin/pytest tests/balancer/balancing tests/balancer/proxy

e2e: .venv/.ready images  ## The tests on the Kubernetes cluster that KUBECONFIG names
	$(VENV)/pytest tests/balancer/discovery/test_cluster.py tests/e2e

soak: .venv/.ready  ## Mixed traffic over failing endpoints for a long time (MINUTES=10)
	SOAK_MINUTES=$(MINUTES) $(VENV)/pytest tests/soak

helm4: .venv/.ready  ## Fetch Helm 4 for the chart's tests, which run with Helm 3 and 4 (once, 37 MB)
	$(VENV)/python tools/helm4.py

format: .venv/.ready  ## Format the code, and repair what lint can
	$(VENV)/ruff format --quiet $(LINTED)
	$(VENV)/ruff check --quiet --fix $(LINTED)

generate: .venv/.ready  ## Write again every file that is generated from another
	$(VENV)/python tools/generate.py

lock: .venv/.ready  ## Resolve the dependencies again (UPGRADE=1 takes newer versions)
	$(VENV)/python tools/lock.py $(if $(UPGRADE),--upgrade)

clean:  ## Remove what was made here, the environments too
	rm -rf .venv .venv-* build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf services/*/build services/*/*.egg-info
	find services tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Ship it

compiled: .venv-compiled/.ready  ## Make .venv-compiled from the wheels that the images install

images:  ## Build lb-balancer and lb-pi, tagged as the chart's defaults ask (BASE=python:3.14-slim@sha256:…)
	test -n "$(VERSION)" || { echo "images: no appVersion in charts/lb/Chart.yaml" >&2; exit 1; }
	for image in lb-balancer lb-pi; do \
	    echo "images: building $$image:$(VERSION) (the first time it compiles for some minutes, later seconds)" >&2; \
	    started=$$(date +%s); \
	    docker build --quiet $(if $(BASE),--build-arg BASE=$(BASE)) --tag $$image:$(VERSION) services/$${image#lb-} >/dev/null || exit 1; \
	    echo "images: built in $$(( $$(date +%s) - started )) s" >&2; \
	    echo $$image:$(VERSION); \
	done

image-sizes: .venv/.ready  ## What each image adds to its base, by layer, beside its target
	$(VENV)/python tools/image_sizes.py

##@ Measure it

bench: .venv-compiled/.ready  ## The balancer beside nginx, HAProxy, Envoy, Traefik and Caddy, as far as installed: an hour (ONLY=tiny)
	$(VENV)/python -m benchmarks.run --json build/bench.json $(foreach name,$(ONLY),--only $(name))

bench-quick: .venv-compiled/.ready  ## The same in under two minutes
	$(VENV)/python -m benchmarks.run --quick

newest-peers:  ## Fetch the newest nginx and HAProxy for `make bench`, of Debian's unstable packages (40 MB, beside yours)
	PROGRAMS="usr/sbin/nginx usr/sbin/haproxy" tools/unstable.sh $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lb-bench/unstable \
	    nginx libnginx-mod-stream haproxy

bench-pi: .venv/.ready  ## The Pi service's arithmetic beside python-flint's
	$(VENV)/python benchmarks/pi.py

profile: .venv-compiled/.ready  ## Flame graphs of the balancer under load, interpreted and compiled
	$(VENV)/python -m benchmarks.flame

# The parts of `check`, which the pre-commit hooks call one by one.

lint: .venv/.ready
	$(VENV)/ruff format --check $(LINTED)
	$(VENV)/ruff check $(LINTED)

words: .venv/.ready
	$(VENV)/python tools/words.py

types: .venv/.ready
	$(VENV)/mypy $(SOURCES)

imports: .venv/.ready
	$(VENV)/lint-imports

generated: .venv/.ready
	$(VENV)/python tools/generate.py --check

# Made again when what they are made from has changed.

.venv/.ready: requirements-dev.lock services/balancer/pyproject.toml services/pi/pyproject.toml tools/environment.py
	echo "setup: .venv, once (a minute or two, without a word)"
	$(PYTHON) tools/environment.py editable
	touch $@

.venv-compiled/.ready: .venv/.ready $(HOT)
	echo "compiled: .venv-compiled, for $(COMPILED_PYTHON) (two or three minutes)"
	$(COMPILED_PYTHON) tools/environment.py compiled
	touch $@
