# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster that somebody else runs."""

from __future__ import annotations

import os
from pathlib import Path

from kubernetes import client, config

from .node import KUBELET_DIR
from .registry import Registry


class ExistingCluster:
    """What tests need of the cluster that $KUBECONFIG names.

    Its registry is $TURTLES_TEST_REGISTRY (host and port), whose authority is ca.crt in the folder
    $TURTLES_TEST_REGISTRY_CERTIFICATES; its kubelets' folder is $TURTLES_TEST_KUBELET_DIR. Its machines can't be
    looked into: there are no `nodes`.
    """

    nodes = ()
    control = None

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        address = os.environ.get("TURTLES_TEST_REGISTRY")
        certificates = Path(os.environ.get("TURTLES_TEST_REGISTRY_CERTIFICATES", "/etc/ssl/certs"))
        self.registry = Registry(address, "", certificates) if address else None
        self.kubelet_dir = Path(os.environ.get("TURTLES_TEST_KUBELET_DIR", KUBELET_DIR))

    def client(self) -> client.ApiClient:
        """A client with the rights of the kubeconfig."""
        return config.new_client_from_config(str(self.kubeconfig))
