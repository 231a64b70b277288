# Two targets matter to a newcomer: `make demo` (see it work) and `make test` (everything CI runs).
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
PROMETHEUS := build/tools/prometheus/usr/bin
REDIS := build/tools/redis/usr/bin
# The server is in redis-tools, under the name redis-check-rdb; then the libraries that few have.
REDIS_PACKAGES := redis-tools libjemalloc2 liblzf1 libatomic1
export PATH := $(CURDIR)/$(VENV)/bin:$(CURDIR)/$(PROMETHEUS):$(PATH)
COUNT ?= 1
# kubectl, helm and ctr of the local cluster
CLUSTER_BIN := /var/lib/overspill-cluster/bin

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: venv
venv: $(VENV)/.ready ## The Python environment, locked with hashes
$(VENV)/.ready: requirements/dev.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# One lock file per image and one for development; hashes only, no index in them.
EXTRAS := operator gateway engine dev loader-peers
# What ours is compared with, or tested by; atheris 3.0 is the last for Python 3.11.
COMPARED := vllm-router==0.1.17 sglang-router==0.3.2 litellm[proxy]==1.100.1 atheris==3.0.0
.PHONY: lock
lock: ## Resolve the requirements again (requirements/*.txt)
	for extra in $(EXTRAS); do $(VENV)/bin/uv pip compile pyproject.toml --extra $$extra \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 \
	  --quiet -o requirements/$$extra.txt || exit 1; done
	printf 'structlog>=26.1\n' | $(VENV)/bin/uv pip compile - --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --python-version 3.11 --quiet -o requirements/engine-gpu.txt
	printf 'hatchling>=1.27\n' | $(VENV)/bin/uv pip compile - --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --python-version 3.11 --quiet -o requirements/build.txt
	for peer in $(COMPARED); do printf "$$peer\n" | $(VENV)/bin/uv pip compile - --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --python-version 3.11 --quiet \
	  -o requirements/$${peer%%[[=]*}.txt || exit 1; done

.PHONY: fmt
fmt: venv ## Format the code
	ruff format . && ruff check --fix .

# Programs that are no part of the package and run in images of their own.
TEST_ENGINES := images/paced-engine/paced_engine.py images/llama-server/serve.py
.PHONY: lint
lint: venv ## Format, lint, types and layers
	ruff format --check . && ruff check . && lint-imports --no-cache
	mypy
	MYPYPATH=operator:hack:. mypy -p lab -p demo -p e2e
	mypy --config-file= --strict --ignore-missing-imports $(TEST_ENGINES)
	cd hack/cluster && mypy --strict --config-file= main.py relay.py localcluster

.PHONY: unit
unit: venv ## Unit tests, three files at a time: some wait more than they compute
	$(PY) -m pytest tests/unit -q -n 3 --dist loadfile --junitxml=build/reports/unit.xml

.PHONY: engine
engine: venv ## The engine with the real llama.cpp and a small model
	$(PY) -m pytest tests/engine -rP --junitxml=build/reports/engine.xml

.PHONY: test-vllm
test-vllm: venv prometheus ## The engine with a real vLLM on CPUs (10 GB; half an hour the first time)
	$(PY) hack/vllm_cpu.py
	$(PY) -m pytest tests/vllm -rP --junitxml=build/reports/vllm.xml

.PHONY: generate
generate: venv ## Write CRDs, manifests and golden files from their sources
	$(PY) hack/generate.py

.PHONY: verify
verify: venv ## Fail when a generated file differs from its source
	$(PY) hack/generate.py --check

.PHONY: check
check: lint verify unit ## Everything that needs no cluster (under two minutes)

.PHONY: cluster-up
cluster-up: ## A Kubernetes cluster with two GPUs on this machine (Linux, root)
	python3 hack/cluster/main.py up

.PHONY: cluster-down
cluster-down: ## Stop the local cluster and take back all it changed
	python3 hack/cluster/main.py down

.PHONY: test-cluster
test-cluster: venv ## The local cluster heals, is closed, and leaves nothing (up at the end)
	$(PY) -m pytest tests/cluster --junitxml=build/reports/cluster.xml

# Packages of Debian, unpacked only, into a folder of build/tools: $(call unpack,FOLDER,PACKAGES)
define unpack
mkdir -p build/tools/$(1)
cd build/tools && (apt-get download -qq $(2) || (apt-get update -qq && apt-get download -qq $(2)))
cd build/tools && for package in $(2); do dpkg -x $${package}_*.deb $(1) && rm $${package}_*.deb || exit 1; done
endef

.PHONY: prometheus
prometheus: $(PROMETHEUS)/prometheus ## Debian's Prometheus, unpacked only, for the tests that ask a real one
$(PROMETHEUS)/prometheus:
	$(call unpack,prometheus,prometheus)

.PHONY: redis
redis: $(REDIS)/redis-server ## Debian's Redis, unpacked only, for the story of Argo CD
$(REDIS)/redis-server:
	$(call unpack,redis,$(REDIS_PACKAGES))
	ln -sf redis-check-rdb $@

.PHONY: images
images: venv ## Build all images and load them into the local cluster
	$(PY) hack/images.py build --load

.PHONY: image-contents
image-contents: venv ## What the built images hold, and that a second build is the same
	$(PY) -m pytest tests/images --junitxml=build/reports/images.xml

.PHONY: loader
loader: venv build/tools/loader-peers/.ready ## Tests of the model loader against an S3 server and the hub's client
	$(PY) -m pytest tests/loader --junitxml=build/reports/loader.xml

.PHONY: litellm
litellm: venv build/tools/litellm/.ready ## Clients of both APIs through the gateway to LiteLLM's proxy
	$(PY) -m pytest tests/litellm --junitxml=build/reports/litellm.xml

# What ours is tested against and compared with, each in an environment of its own: their libraries
# do not go together with ours. A lock is complete; where one has extras pip would look for more.
PEERS := vllm-router sglang-router litellm
$(PEERS:%=build/tools/%/.ready) $(addprefix build/tools/,loader-peers/.ready atheris/.ready): build/tools/%/.ready: requirements/%.txt
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-deps --require-hashes -r $<
	touch $@

.PHONY: apiserver
apiserver: venv ## Tests against the API server of the local cluster
	KUBECONFIG=$(CURDIR)/build/cluster/kubeconfig PATH=$(CLUSTER_BIN):$$PATH \
	  $(PY) -m pytest tests/apiserver -n 3 --dist loadfile --no-loadscope-reorder \
	    --junitxml=build/reports/apiserver.xml

.PHONY: argocd
argocd: ## Argo CD for its story (four minutes the first time)
	python3 hack/cluster/main.py build argocd

# The tests against the API server mostly wait; these compute, and give way to them.
.PHONY: beside
beside: ## The engine, the loader and LiteLLM, Argo CD, and the ledger, at the lowest priority
	chrt --idle 0 $(MAKE) --keep-going engine loader litellm argocd ledger

.PHONY: ledger
ledger: venv ## Ten thousand schedules of the ledger (a minute)
	OVERSPILL_SCHEDULES=10000 $(PY) -m pytest tests/unit/ledger/test_ledger_schedules.py \
	  --junitxml=build/reports/ledger.xml

.PHONY: e2e
e2e: venv redis ## The stories on the local cluster; COUNT=3 runs them three times
	for i in $$(seq $(COUNT)); do \
	  $(PY) -m pytest e2e -rP --junitxml=build/reports/e2e-$$i.xml || exit 1; done

DATA_PATH := $(addprefix e2e/,gateway_roll gateway_killed engine_lost node_drain provider_faults \
  helm_upgrade prometheus_lies budget_kept cold_start step_spill)
.PHONY: chaos
chaos: venv ## The faults that `make test` shortens, at their full lengths (the cluster must be up)
	OVERSPILL_CHAOS=1 KUBECONFIG=$(CURDIR)/build/cluster/kubeconfig PATH=$(CLUSTER_BIN):$$PATH \
	  $(PY) -m pytest tests/apiserver/faults -rP --junitxml=build/reports/chaos-control.xml
	OVERSPILL_CHAOS=1 $(PY) -m pytest $(DATA_PATH) -rP --junitxml=build/reports/chaos-data-path.xml
	OVERSPILL_CHAOS=1 $(PY) -m pytest e2e/argocd -rP --junitxml=build/reports/chaos-gitops.xml

.PHONY: soak
soak: soak-gateways soak-ledger ## Twenty minutes of faults, then the ledger's long runs

.PHONY: soak-gateways
soak-gateways: venv ## Two gateways at 70 % load for 20 minutes, faults all around (OVERSPILL_SEED)
	OVERSPILL_SOAK=1200 $(PY) -m pytest tests/soak -rP --junitxml=build/reports/soak.xml

.PHONY: soak-short
soak-short: venv ## The same for 25 seconds
	$(PY) -m pytest tests/soak -rP --junitxml=build/reports/soak.xml

.PHONY: soak-ledger
soak-ledger: venv ## A million schedules of the ledger, and its model three steps deeper (hours)
	OVERSPILL_SCHEDULES=1000000 OVERSPILL_DEPTH=9 $(PY) -m pytest -rP \
	  tests/unit/ledger/test_ledger_schedules.py tests/unit/ledger/test_ledger_model.py

.PHONY: fuzz
fuzz: fuzz-parsers fuzz-guided fuzz-hostile fuzz-objects ## What others send, very many times (the cluster must be up)

.PHONY: fuzz-parsers
fuzz-parsers: venv ## 50,000 mutations of all that is parsed, and the OpenAPI document (no cluster)
	OVERSPILL_EXAMPLES=50000 $(PY) -m pytest tests/unit/fuzz -rP --junitxml=build/reports/fuzz-parsers.xml
	OVERSPILL_EXAMPLES=1000 $(PY) -m pytest tests/unit/gateway/test_gateway_openapi.py \
	  --junitxml=build/reports/fuzz-openapi.xml

HOSTILE := tests/unit/api/test_api_sse.py tests/unit/gateway/test_gateway_hostile.py \
  tests/unit/gateway/test_gateway_memory.py tests/unit/gateway/test_gateway_slow_readers.py \
  tests/unit/security/test_addresses.py tests/unit/security/test_routes.py \
  tests/unit/security/test_timing.py
.PHONY: fuzz-hostile
fuzz-hostile: venv ## Streams, bodies, schemas, paths and tenants by the 100,000, 500 slow readers (no cluster)
	OVERSPILL_FUZZ=1 $(PY) -m pytest $(HOSTILE) -rP --durations=0 --junitxml=build/reports/fuzz-hostile.xml

FUZZ_SECONDS ?= 120
.PHONY: fuzz-guided
fuzz-guided: venv build/tools/atheris/.ready ## The same targets, guided by the code that inputs reach (FUZZ_SECONDS each)
	PYTHONPATH=$$(echo build/tools/atheris/lib/python*/site-packages) \
	  OVERSPILL_FUZZ_SECONDS=$(FUZZ_SECONDS) $(PY) tests/unit/fuzz/fuzz_guided.py

.PHONY: fuzz-objects
fuzz-objects: venv ## 10,000 generated resources and pods (the cluster must be up; FUZZ_SEED repeats a run)
	OVERSPILL_FUZZ=1 KUBECONFIG=$(CURDIR)/build/cluster/kubeconfig PATH=$(CLUSTER_BIN):$$PATH \
	  $(PY) -m pytest tests/apiserver/faults/test_generated_specs.py tests/apiserver/security -rP \
	    --junitxml=build/reports/fuzz.xml

.PHONY: test
test: venv ## Everything CI runs
	$(PY) hack/test.py

.PHONY: demo
demo: venv ## The main job on a real cluster, from nothing (DEMO_CONTEXT=name: on yours)
	PYTHONPATH=hack $(PY) -m demo.main

.PHONY: demo-down
demo-down: venv ## Remove what the demo made
	@if [ -n "$(DEMO_CONTEXT)" ]; then PYTHONPATH=hack $(PY) -m demo.down; \
	else python3 hack/cluster/main.py down; fi

.PHONY: bench-operator
bench-operator: venv ## Services by the thousand: our operator and a plain kopf operator
	python3 hack/cluster/main.py up
	PYTHONPATH=hack PATH=$(CLUSTER_BIN):$$PATH $(PY) bench/controller.py $(BENCH)

.PHONY: bench-engine
bench-engine: venv ## Batching and prefix cache of the engine image, as ratios
	python3 hack/cluster/main.py up
	$(PY) hack/images.py build --only engine-cpu,model --load
	$(PY) bench/engine.py

TRACES ?= ../shared/traces
.PHONY: bench-autoscaler
bench-autoscaler: venv ## Autoscaling policies on real traces, as cost over the optimum
	$(PY) bench/autoscaler.py --traces $(TRACES)

.PHONY: bench-simulator
bench-simulator: venv ## How long simulations take
	$(PY) bench/simulator.py --traces $(TRACES) $(BENCH)

.PHONY: bench-calibrate
bench-calibrate: venv ## The latency model against the real engine, over a minute of a trace
	$(PY) bench/latency_model.py --traces $(TRACES) $(BENCH)

.PHONY: bench-routing
bench-routing: venv build/tools/vllm-router/.ready build/tools/sglang-router/.ready ## Hits and load of routing, ours and others'
	$(PY) bench/routing.py --traces $(TRACES) --http $(BENCH)

.PHONY: bench-ttft
bench-ttft: venv ## Time to first token of conversations on two real replicas, ours and at random
	$(PY) bench/ttft.py $(BENCH)

.PHONY: bench-gateway
bench-gateway: venv $(PEERS:%=build/tools/%/.ready) build/tools/load/.ready build/tools/streams ## What a gateway costs, ours and others'
	$(PY) bench/gateway.py $(BENCH)

build/tools/load/.ready:
	$(call unpack,load,nginx wrk libluajit-5.1-2 libluajit-5.1-common)
	touch $@

build/tools/streams: $(wildcard bench/streams/*)
	mkdir -p $(@D)
	cd bench/streams && go build -o ../../$@ .

.PHONY: bench-spill
bench-spill: venv ## The spill decision on a virtual clock, against a planner with hindsight
	$(PY) bench/spill.py --traces $(TRACES)

.PHONY: bench-dollars
bench-dollars: venv ## Dollars of serving a real hour: ours, all cloud, local only, fallback on error
	$(PY) bench/dollars.py --traces $(TRACES) $(BENCH)

.PHONY: bench-live
bench-live: venv ## Ten minutes of load with us, a plain HPA and KEDA, side by side on the local cluster
	python3 hack/cluster/main.py up
	python3 hack/cluster/main.py build keda
	$(PY) hack/images.py build --load
	PYTHONPATH=hack:. $(PY) bench/live.py --traces $(TRACES) $(BENCH)

.PHONY: bench-pool
bench-pool: venv ## Many services on one full pool, against the optimum of them all
	$(PY) bench/pool.py

.PHONY: clean
clean: ## Remove build output (the cluster must be down)
	rm -rf build dist .venv
