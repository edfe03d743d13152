# SPDX-License-Identifier: GPL-3.0-or-later
"""Handlers of the subresources by which the owner of an encrypted guest (AMD SEV) makes sure of it before it runs.

The owner gets the certificates of the node's processor, sends a session made for that processor, gets the measurement
of what was launched, and sends secrets that only this guest can read. Conditions and messages are those of the KubeVirt
API (user guide, "Confidential computing").
"""

from __future__ import annotations

from collections.abc import Callable

from turtles.api import node_server
from turtles.api.conditions import condition_of
from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import ENCRYPTION_SEV
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.api.objects import Object, get
from turtles.api.phases import RUNNING, SCHEDULED, phase_of
from turtles.kube.client import Client
from turtles.kube.kubevirt import VMI
from turtles.virt_api.instances import VMI_NOT_RUNNING, fetch, retried
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure, conflict

_NOT_ASKED_FOR = "Attestation not requested for VMI"


class Attestation:
    """The encrypted guests of the VirtualMachineInstances that the client reaches."""

    def __init__(self, client: Client, nodes: Nodes, configuration: Callable[[], ClusterConfiguration]) -> None:
        self._client, self._nodes, self._configuration = client, nodes, configuration

    def certificates(self, namespace: str, name: str, options: Object) -> Object:
        """Return what vouches for the processor of the node that a guest is on, or is to be on."""
        vmi = self._fetch(namespace, name)
        if phase_of(vmi) not in (SCHEDULED, RUNNING):
            raise conflict(VMI_KIND, name, "VMI is not assigned to a node yet")
        _check_asked_for(vmi, name)
        found: Object = self._nodes.call(vmi, node_server.SEV_CERTIFICATES)
        return found

    def measurement(self, namespace: str, name: str, options: Object) -> Object:
        """Return the measurement of what was launched."""
        found: Object = self._nodes.call(self._launched(namespace, name), node_server.SEV_MEASUREMENT)
        return found

    def set_up_session(self, namespace: str, name: str, options: Object) -> None:
        """Give a guest that waits to be launched the session with its owner."""
        self._check_gate()
        if not options:
            raise Failure(400, "Request with no body: SEV session parameters are required")
        for key, words in (("session", "Session blob"), ("dhCert", "DH cert")):
            if not options.get(key):
                raise Failure(400, f"{words} is required")
        retried(VMI_KIND, name, lambda: self._set_up_session(namespace, name, options))

    def _set_up_session(self, namespace: str, name: str, options: Object) -> None:
        vmi = fetch(self._client, namespace, name)
        if phase_of(vmi) != SCHEDULED:
            raise conflict(VMI_KIND, name, f"VMI is not in {SCHEDULED} phase")
        _check_asked_for(vmi, name)
        sev = vmi["spec"]["domain"]["launchSecurity"]["sev"]
        if sev.get("session") or sev.get("dhCert"):
            raise conflict(VMI_KIND, name, "Session already defined")
        session = {"session": options["session"], "dhCert": options["dhCert"]}
        body = {
            "metadata": {"resourceVersion": vmi["metadata"]["resourceVersion"]},
            "spec": {"domain": {"launchSecurity": {"sev": session}}},
        }
        self._client.patch(VMI, namespace, name, body)

    def inject_secret(self, namespace: str, name: str, options: Object) -> None:
        """Put a secret of its owner into the guest's memory."""
        self._check_gate()
        if not options:
            raise Failure(400, "Request with no body: SEV secret parameters are required")
        secret = {key: str(options.get(key) or "") for key in ("header", "secret")}
        self._nodes.call(self._launched(namespace, name), node_server.SEV_SECRET, secret)

    def _launched(self, namespace: str, name: str) -> Object:
        """Return the instance of a guest that was launched and not let run yet."""
        vmi = self._fetch(namespace, name)
        if phase_of(vmi) != RUNNING:
            raise conflict(VMI_KIND, name, VMI_NOT_RUNNING)
        _check_asked_for(vmi, name)
        if condition_of(vmi, "Paused") is None:
            raise conflict(VMI_KIND, name, "VMI is not paused")
        return vmi

    def _fetch(self, namespace: str, name: str) -> Object:
        self._check_gate()
        return fetch(self._client, namespace, name)

    def _check_gate(self) -> None:
        if not self._configuration().has_gate(ENCRYPTION_SEV):
            raise Failure(400, f"'{ENCRYPTION_SEV}' feature gate is not enabled")


def _check_asked_for(vmi: Object, name: str) -> None:
    if get(vmi, "spec", "domain", "launchSecurity", "sev", "attestation") is None:
        raise conflict(VMI_KIND, name, _NOT_ASKED_FOR)
