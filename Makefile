# Thin targets: what they do stands in hack/.

.PHONY: build
build: ## Build the programs into bin/.
	hack/build.sh

.PHONY: demo
demo: ## Start a three-node cluster in network namespaces, with a Service that answers behind a BGP router.
	hack/demo.sh

.PHONY: demo-down
demo-down: ## Remove the demo's cluster.
	hack/demo-down.sh

.PHONY: test
test: ## Run everything that CI runs: checks, unit tests, tests in network namespaces and in the lab.
	hack/test.sh

.PHONY: unit
unit: ## Run the tests that need neither root nor the lab.
	hack/unit.sh

.PHONY: e2e-upstream
e2e-upstream: ## Run Kubernetes' own tests of LoadBalancer Services against the project in the lab (17 minutes).
	hack/e2e-upstream.sh

.PHONY: bench
bench: ## Measure against a bare floor program, in one table.
	hack/bench.sh

.PHONY: bench-layer2
bench-layer2: ## Measure 2,000 addresses on the LAN: answers in a flood, and a takeover.
	hack/bench-layer2.sh

.PHONY: bench-failover
bench-failover: ## Measure outages on the LAN when something fails, restarts or is maintained (more than an hour; ARGS="-scenarios link-cut -runs 3" for less).
	hack/bench-failover.sh $(ARGS)

.PHONY: bench-scale
bench-scale: ## Measure how the cost grows, up to 1,000 nodes and 10,000 Services (more than an hour).
	hack/bench-scale.sh

.PHONY: fuzz
fuzz: ## Run each fuzzer for FUZZTIME (default 30s).
	hack/fuzz.sh

.PHONY: generate
generate: ## Regenerate deepcopy functions and CRDs.
	hack/update-generated.sh

.PHONY: verify
verify: ## Check formatting, vet, staticcheck and that generated files are fresh.
	hack/verify.sh

.PHONY: lab-binaries
lab-binaries: ## Build the lab and its Kubernetes into bin/lab/, once.
	hack/lab-binaries/build.sh

.PHONY: help
help: ## List the targets.
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
