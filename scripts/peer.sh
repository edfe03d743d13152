#!/usr/bin/env bash
# Runs tasks and the inventory plugin of kubevirt.core, which has to be 2.3 or later, against the cluster of $KUBECONFIG.
# It needs the common instance types (kubevirt_common_instancetypes). Guests get the disk of the container image
# $TURTLES_TEST_IMAGE.
#
#     scripts/peer.sh FOLDER     that has ansible_collections/kubevirt/core and ansible_collections/kubernetes/core
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TURTLES_TEST_IMAGE:?names the image of the guests}"
export ANSIBLE_COLLECTIONS_PATH=${1:?the folder with kubevirt.core} ANSIBLE_LOCALHOST_WARNING=false
export K8S_AUTH_KUBECONFIG=${KUBECONFIG:?names the cluster} ANSIBLE_PYTHON_INTERPRETER=$PWD/.venv/bin/python
.venv/bin/ansible-playbook tests/peer/modules.yml
.venv/bin/ansible-playbook --inventory tests/peer/peer.kubevirt.yml tests/peer/inventory.yml
