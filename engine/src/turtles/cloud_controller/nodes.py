# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes of the workload cluster get what their machines say, and go with them."""

import logging

from turtles.api.objects import Object, get
from turtles.cloud_controller import machines
from turtles.kube.client import Client, Forbidden, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import NODE
from turtles.kube.writer import Writer

log = logging.getLogger(__name__)


class NodeController:
    """Initializes Nodes, keeps addresses, labels and taints up to date, removes those whose machine is gone.

    :param client: of the workload cluster. :param infrastructure: of the other one.
    :param nodes: the workload cluster's. :param vms, vmis: machines in the namespace, and their instances.
    """

    def __init__(
        self,
        client: Client,
        infrastructure: Client,
        namespace: str,
        recorder: Recorder,
        nodes: Informer,
        vms: Informer,
        vmis: Informer,
    ) -> None:
        self._writer, self._infrastructure = Writer(client), infrastructure
        self._namespace, self._recorder = namespace, recorder
        self._nodes, self._vms, self._vmis = nodes, vms, vmis
        self._may_read_nodes = True

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (each(self._nodes), Trigger(self._vms, self._by_machine), Trigger(self._vmis, self._by_machine))
        return Controller("node", self.reconcile, triggers)

    def _by_machine(self, old: Object | None, new: Object | None) -> list[Key]:
        name = (new or old or {})["metadata"]["name"]
        return [("", node["metadata"]["name"]) for node in self._nodes.list() if machines.name_of(node) == name]

    def reconcile(self, key: Key) -> None:
        """Bring one Node in line with its machine."""
        node = self._nodes.get(*key)
        if node is None or (name := machines.name_of(node)) is None:
            return
        vmi = self._vmis.get(self._namespace, name)
        if vmi is None and self._vms.get(self._namespace, name) is None:
            self._remove(node, name)
            return
        patch, status = machines.changes(node, vmi, self._labels_beneath(vmi))
        # Addresses first: the taint keeps Pods away until they are there.
        for body, subresource in ((status, "status"), (patch, None)):
            if body:
                node = self._writer.patch(self._nodes, node, body, subresource=subresource)

    def _remove(self, node: Object, name: str) -> None:
        """Remove a Node if its machine is really gone: a cache may be late. Others' Nodes stay."""
        if not get(node, "spec", "providerID"):
            log.debug("a node without a machine", extra={"node": name})
            return
        for resource in (VM, VMI):
            try:
                self._infrastructure.get(resource, self._namespace, name)
            except NotFound:
                continue
            return
        message = (
            f"Deleting node {node['metadata']['name']} because its VirtualMachine {self._namespace}/{name} is gone"
        )
        self._recorder.event({"apiVersion": "v1", "kind": "Node", **node}, "Normal", "DeletingNode", message)
        if self._writer.delete(self._nodes, node):
            log.info("node deleted: its machine is gone", extra={"node": node["metadata"]["name"]})

    def _labels_beneath(self, vmi: Object | None) -> dict[str, str]:
        """Return the labels of the node on which a machine runs; none where they may not be read."""
        name = get(vmi or {}, "status", "nodeName")
        if not name or not self._may_read_nodes:
            return {}
        try:
            return self._infrastructure.get(NODE, None, name)["metadata"].get("labels") or {}
        except Forbidden:
            self._may_read_nodes = False
            log.info("nodes get no zone and region: no permission to read nodes of the infrastructure cluster")
        except NotFound:
            log.debug("the node beneath is gone", extra={"node": name})
        return {}
