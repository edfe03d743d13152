#!/usr/bin/env bash
# Runs the collection's integration targets with ansible-test, against the cluster of $KUBECONFIG. Guests get the disk of
# the container image $TURTLES_TEST_IMAGE.
#
#     scripts/integration.sh [OPTION...] [TARGET...]     such as vm, or kubevirt/quick/ for those without guests
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
kubeconfig=$(realpath "${KUBECONFIG:?names the cluster}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$(scripts/copy-collection.sh "$scratch")"
cat >tests/integration/integration_config.yml <<YAML
kubevirt_kubeconfig: "$kubeconfig"
kubevirt_image: "${TURTLES_TEST_IMAGE:?names the image of the guests}"
YAML
PATH=$bin:$PATH "$bin/ansible-test" integration --color no --continue-on-error "$@"
