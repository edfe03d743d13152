# What a user and a developer of the collection type. Everything happens in .venv; see scripts/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_PIPELINING=true ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_INVENTORY_UNPARSED_WARNING=false
# What makes network namespaces and runs virtual machines needs root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env)
# A user's PATH on Debian has no /usr/sbin, where mke2fs, nft and others are that root needs.
ROOT_PATH := PATH="$(CURDIR)/$(BIN):$$PATH:/usr/sbin:/sbin"
# Runs targets one after another or side by side, and says at the end which passed, failed and didn't run.
STEPS := $(BIN)/python scripts/steps.py
# Further options for ansible-playbook and pytest, such as ARGS="-e turtles_api_port=7443" or ARGS="-k bridge".
ARGS ?=
# Tests of parts run side by side, those of a file one after the other: they share servers.
PARALLEL := -n auto --dist loadfile
# Tests with virtual machines wait for guests half of the time: two at once, each with an engine of its own.
E2E_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# What they leave of the processors is for those of the parts.
BESIDE := test-engine test-collection

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv:
	@scripts/venv.sh
	@scripts/install-collection.sh

.PHONY: venv-tests
venv-tests:
	@scripts/venv.sh --tests
	@scripts/install-collection.sh

# With what tests of some kind need besides, by its profile in bindep.txt.
.PHONY: venv-bench venv-fresh venv-host
venv-bench venv-fresh venv-host: venv-%:
	@scripts/venv.sh --tests $*
	@scripts/install-collection.sh

.PHONY: quickstart
quickstart: venv ## Install the engine on this machine and run a first virtual machine.
	@$(RUN) ansible-playbook turtles.kubevirt.quickstart $(ARGS)

.PHONY: teardown
teardown: venv ## Remove all that quickstart made.
	@$(RUN) ansible-playbook turtles.kubevirt.teardown $(ARGS)

.PHONY: test
test: venv-tests ## Run all tests: those with real virtual machines, and beside them those of the parts.
	@$(STEPS) test-e2e $(BESIDE:%=--beside %)

.PHONY: test-unit
test-unit: venv-tests ## Run the tests of the engine's and the collection's parts.
	@$(STEPS) test-engine test-collection

.PHONY: test-engine
test-engine: venv-tests
	@$(RUN) $(AS_ROOT) $(CURDIR)/$(BIN)/python -m pytest -c engine/pyproject.toml $(PARALLEL) engine/tests $(ARGS)

.PHONY: test-collection
test-collection: venv-tests
	@$(RUN) python -m pytest $(PARALLEL) -o cache_dir=.pytest_cache/unit tests/unit $(ARGS)

# Of what test-collection runs, that which test-matrix doesn't.
.PHONY: test-roles
test-roles: venv-tests
	@$(RUN) python -m pytest $(PARALLEL) -o cache_dir=.pytest_cache/roles tests/unit --ignore=tests/unit/plugins $(ARGS)

.PHONY: test-matrix
test-matrix: venv-tests ## Judge and test the collection with ansible-core 2.17 to the newest; MATRIX="2.17 2.21": only these.
	@$(RUN) scripts/matrix.sh $(MATRIX) -- $(ARGS)

.PHONY: test-faults
test-faults: venv-tests ## Kill the API server 500 times and send it 240,000 odd requests; an hour or so.
	@$(RUN) $(AS_ROOT) env TURTLES_CRASH_ROUNDS=500 TURTLES_FUZZ_REQUESTS=100000 TURTLES_FUZZ_SEED=random \
		$(CURDIR)/$(BIN)/python -m pytest -c engine/pyproject.toml -s engine/tests/standalone/apiserver/storage/test_crash.py \
		engine/tests/standalone/apiserver/test_fuzz.py engine/tests/standalone/apiserver/test_fuzz_deep.py $(ARGS)

.PHONY: test-specs
test-specs: venv-tests ## Judge 50,000 machines drawn from the schema, and make Pods and domains of those admitted; five minutes.
	@$(RUN) env TURTLES_FUZZ_SPECS=50000 python -m pytest -c engine/pyproject.toml -s engine/tests/test_specs.py $(ARGS)

.PHONY: test-e2e
test-e2e: venv-tests ## Run the tests with an engine of their own and real virtual machines.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python -m pytest $(E2E_PARALLEL) -o cache_dir=.pytest_cache/e2e tests/e2e $(ARGS)

.PHONY: test-migration
test-migration: venv-tests ## Migrate a guest 50 times, with all settings, and with what takes part dying on the way; 45 minutes.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) TURTLES_MIGRATION_ROUNDS=$${TURTLES_MIGRATION_ROUNDS:-50} \
		$(CURDIR)/$(BIN)/python -m pytest tests/e2e/test_migration.py tests/e2e/test_migration_settings.py \
		tests/e2e/test_migration_faults.py $(ARGS)

.PHONY: test-snapshots
test-snapshots: venv-tests ## Snapshot and restore a writing guest 20 times, with controllers dying on the way; a quarter of an hour.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) TURTLES_SNAPSHOT_ROUNDS=$${TURTLES_SNAPSHOT_ROUNDS:-20} \
		$(CURDIR)/$(BIN)/python -m pytest tests/e2e/test_snapshots.py tests/e2e/test_snapshot_rounds.py $(ARGS)

INTEGRATION := -e turtles_instance=turtles-integration -e turtles_api_port=26443 -e turtles_virt_api_port=28443 \
	-e turtles_bridge=turtles-int0 -e turtles_pod_cidr=10.224.0.0/16 -e turtles_service_cidr=10.92.0.0/16

.PHONY: test-integration
test-integration: venv-tests ## Run ansible-test's integration targets with an engine of their own, or with $$KUBECONFIG; TARGETS="vm pool".
	@if [ -n "$(KUBECONFIG)" ]; then $(RUN) scripts/integration.sh $(TARGETS) $(ARGS); exit; fi; \
	trap '$(RUN) ansible-playbook turtles.kubevirt.teardown $(INTEGRATION) >/dev/null' EXIT; \
	$(RUN) ansible-playbook turtles.kubevirt.deploy $(INTEGRATION); \
	$(RUN) $(AS_ROOT) env KUBECONFIG=/etc/turtles-integration/admin.kubeconfig \
		TURTLES_TEST_IMAGE=oci-archive:/var/lib/turtles-integration/images/tiny.tar scripts/integration.sh $(TARGETS) $(ARGS)

.PHONY: test-peer
test-peer: venv-tests ## Run kubevirt.core's modules and inventory against the cluster of $$KUBECONFIG; PEER=FOLDER has its collections.
	@scripts/peer.sh $(PEER)

.PHONY: test-fresh
test-fresh: venv-fresh ## Run the README's commands on Debian 12 and 13 that have nothing; DEBIAN=trixie: only that.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python -m pytest -s tests/fresh $(ARGS)

.PHONY: test-debian-13
test-debian-13: venv-fresh ## Have the README's first command run a virtual machine on a Debian 13 that has nothing.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) DEBIAN=trixie TURTLES_FRESH_SMALL=1 $(CURDIR)/$(BIN)/python -m pytest -s tests/fresh $(ARGS)

.PHONY: test-host
test-host: venv-host ## Run the tests with a whole Debian machine, systemd and all, in QEMU; DEBIAN=trixie: 13 instead of 12.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python -m pytest tests/host $(ARGS)

.PHONY: test-workload-cluster
test-workload-cluster: venv-tests ## Make a Kubernetes cluster of virtual machines, change it and remove it.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python -m pytest tests/workload $(ARGS)

.PHONY: test-cluster
test-cluster: venv-tests ## Run the tests with a real Kubernetes: their own, or the one that $$KUBECONFIG names.
	@$(RUN) $(if $(KUBECONFIG),,$(AS_ROOT)) env $(ROOT_PATH) \
		$(CURDIR)/$(BIN)/python -m pytest tests/cluster $(ARGS)

.PHONY: test-parity
test-parity: venv-tests ## Compare the standalone API server with the recording of a real kube-apiserver; half a minute.
	@$(RUN) $(AS_ROOT) $(CURDIR)/$(BIN)/python -m pytest tests/cluster/parity/test_parity.py $(ARGS)

.PHONY: test-parity-live
test-parity-live: venv-tests ## The same with a running one: what has no recording, and with $$KUBECONFIG everything.
	@$(RUN) $(if $(KUBECONFIG),,$(AS_ROOT)) env $(ROOT_PATH) \
		$(CURDIR)/$(BIN)/python -m pytest tests/cluster/parity/test_live.py $(ARGS)

.PHONY: record-parity
record-parity: venv-tests ## Record what the kube-apiserver of $$KUBECONFIG answers to the corpus.
	@$(RUN) python tests/cluster/parity record $(ARGS)

.PHONY: kubernetes
kubernetes: venv-tests ## Run a real Kubernetes by hand: ARGS="up --nodes 2", "run node1 ps", "down", "--help".
	@cd tests/cluster && $(AS_ROOT) $(CURDIR)/$(BIN)/python -m kubernetes_cluster $(ARGS)

BENCH := -e turtles_instance=turtles-bench -e turtles_api_port=36443 -e turtles_virt_api_port=38443 \
	-e turtles_bridge=turtles-bench0 -e turtles_pod_cidr=10.223.0.0/16 -e turtles_service_cidr=10.93.0.0/16

.PHONY: bench
bench: bench-apiserver bench-vm bench-migration ## Measure everything beside what others need for the same.

.PHONY: bench-apiserver
bench-apiserver: venv-tests ## Measure the standalone API server beside kube-apiserver and etcd.
	@$(RUN) python tests/bench/apiserver.py $(ARGS)

.PHONY: bench-vm
bench-vm: venv-bench ## Measure start-up and memory of virtual machines beside plain libvirt.
	@trap '$(RUN) ansible-playbook turtles.kubevirt.teardown $(BENCH) >/dev/null' EXIT; \
	$(RUN) ansible-playbook turtles.kubevirt.deploy $(BENCH) >/dev/null; \
	$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python tests/bench/startup.py \
		--instance turtles-bench --image oci-archive:/var/lib/turtles-bench/images/tiny.tar $(ARGS)

.PHONY: bench-migration
bench-migration: venv-bench ## Measure live migrations between two nodes on this machine beside plain libvirt.
	@trap '$(RUN) ansible-playbook turtles.kubevirt.teardown $(BENCH) >/dev/null' EXIT; \
	$(RUN) ansible-playbook turtles.kubevirt.two_nodes $(BENCH) -e two_nodes_pod_cidr=10.246.0.0/16 >/dev/null; \
	$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python tests/bench/migration.py \
		--instance turtles-bench --image oci-archive:/var/lib/turtles-bench/images/tiny.tar $(ARGS)

.PHONY: bench-import
bench-import: venv-bench ## Measure imports from a web server beside curl and qemu-img convert; ARGS="--size 20480": of that many MiB.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python tests/bench/imports.py $(ARGS)

.PHONY: bench-controller
bench-controller: venv-tests ## Measure virt-controller with 10,000 machines on simulated nodes.
	@$(RUN) python tests/bench/controller.py $(ARGS)

.PHONY: bench-ansible
bench-ansible: venv-tests ## Measure tasks: one fleet beside loops; ARGS="--peer FOLDER" adds kubevirt.core's.
	@$(RUN) python tests/bench/ansible.py $(ARGS)

.PHONY: bench-inventory
bench-inventory: venv-tests ## Measure the inventory plugin with 10,000 machines; ARGS="--peer FOLDER": beside kubevirt.core.
	@$(RUN) python tests/bench/inventory.py $(ARGS)

.PHONY: bench-cluster
bench-cluster: venv-tests ## Measure the engine on a real Kubernetes of its own.
	@$(RUN) $(AS_ROOT) env $(ROOT_PATH) $(CURDIR)/$(BIN)/python tests/bench/cluster.py $(ARGS)

.PHONY: lint
lint: venv-tests ## Judge the code.
	@$(STEPS) --jobs 2 lint-sanity lint-ansible lint-docs lint-python lint-yaml lint-imports lint-changelog lint-build

.PHONY: lint-python
lint-python: venv-tests
	$(RUN) ruff check --quiet .
	$(RUN) ruff format --check --quiet .
	cd engine && PATH="$(CURDIR)/$(BIN):$$PATH" ruff check --quiet . && PATH="$(CURDIR)/$(BIN):$$PATH" ruff format --check --quiet . && PATH="$(CURDIR)/$(BIN):$$PATH" mypy

.PHONY: lint-yaml
lint-yaml: venv-tests
	$(RUN) yamllint --strict .

.PHONY: lint-imports
lint-imports: venv-tests
	cd engine && "$(CURDIR)/$(BIN)/lint-imports" --no-cache --no-logo

.PHONY: lint-changelog
lint-changelog: venv-tests
	$(RUN) antsibull-changelog lint

.PHONY: lint-docs
lint-docs: venv-tests
	$(RUN) antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .

.PHONY: lint-build
lint-build: venv-tests
	scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(RUN) ansible-galaxy collection build --output-path "$$scratch"

.PHONY: lint-galaxy
lint-galaxy: ## Judge the built collection as Galaxy does when it imports one.
	@scripts/galaxy.sh

.PHONY: lint-ansible
lint-ansible: venv-tests
	$(RUN) ansible-lint --offline --profile production

.PHONY: lint-sanity
lint-sanity: venv-tests
	scripts/sanity.sh

.PHONY: docs
docs: venv ## Build the documentation site in build/docs.
	@scripts/docs.sh

.PHONY: pictures
pictures: ## Draw the pictures in docs/pictures again.
	@scripts/docs.sh --pictures

.PHONY: lock
lock: venv-tests ## Write the lock files of Python's packages; ARGS=--upgrade takes the newest versions.
	@scripts/lock.sh $(ARGS)

.PHONY: clean
clean: ## Remove what the targets made in the checkout, except a running quickstart's files.
	rm -rf .venv .ansible .pytest_cache .ruff_cache .mypy_cache engine/.mypy_cache engine/.pytest_cache tests/output
