# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of admission that have to ask the API server, by the names under which kinds refer to them.

They come after a kind's own validation, and only if that found nothing wrong.
"""

from __future__ import annotations

from typing import Any

from turtles.api import cdi, configuration_reader
from turtles.api.kind import CREATE, DELETE
from turtles.api.language import DUPLICATE, INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import Object
from turtles.kube.client import Client, NotFound
from turtles.kube.kubevirt import KUBEVIRT, VM, VMI
from turtles.kube.resources import PVC
from turtles.virt_api.admission import Check

_WORKLOADS = ((VMI, "Virtual Machine Instances"), (VM, "Virtual Machines"))


def checks(client: Client, namespace: str) -> dict[str, Check]:
    """Return all checks.

    :param namespace: the engine's.
    """
    return {"data_volume": DataVolumeCheck(client), "kubevirt": KubeVirtCheck(client, namespace)}


class DataVolumeCheck:
    """Refuses a DataVolume whose claim exists already (CDI's rule), unless it says that the claim is filled."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, request: Object) -> list[Cause]:
        """Return what is wrong with creating a DataVolume."""
        metadata = (request.get("object") or {}).get("metadata") or {}
        namespace, name = request.get("namespace"), metadata.get("name")
        if request.get("operation") != CREATE or not name:
            return []
        if (metadata.get("annotations") or {}).get(cdi.PRE_POPULATED) == name:
            return []
        try:
            self._client.get(PVC, str(namespace), name)
        except NotFound:
            return []
        return [Cause(DUPLICATE, f"Destination PVC {namespace}/{name} already exists", "DataVolume.Name")]


class KubeVirtCheck:
    """Allows one KubeVirt object, in the engine's namespace, and no deletion while it protects machines."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def __call__(self, request: Object) -> list[Cause]:
        """Return what is wrong with creating or deleting a KubeVirt object."""
        if request.get("operation") == DELETE:
            return self._deletion(request.get("oldObject"))
        return self._place(request) if request.get("operation") == CREATE else []

    def _place(self, request: Object) -> list[Cause]:
        namespace = request.get("namespace")
        if namespace != self._namespace:
            message = f"a KubeVirt object belongs in the engine's namespace {self._namespace}, not in {namespace}"
            return [Cause(INVALID, message, "metadata.namespace")]
        for found in self._client.list(KUBEVIRT, self._namespace)["items"]:
            name = found["metadata"]["name"]
            if name != request.get("name"):
                message = f"KubeVirt object {self._namespace}/{name} already exists; change that one"
                return [Cause(DUPLICATE, message, "metadata.name")]
        return []

    def _deletion(self, kubevirt: Any) -> list[Cause]:
        # Somebody else's, left over or written before the webhook was there: deleting it ends nothing
        ours = configuration_reader.in_force(self._client.list(KUBEVIRT, self._namespace)["items"])
        if not isinstance(kubevirt, dict) or not ours or ours["metadata"]["uid"] != kubevirt["metadata"].get("uid"):
            return []
        if not configuration_reader.from_kubevirt(kubevirt).uninstall_blocked:
            return []
        for resource, words in _WORKLOADS:
            if count := len(self._client.list(resource)["items"]):
                message = (
                    f"Rejecting the uninstall request, since there are still {words} present ({count}). Either delete "
                    "all KubeVirt related workloads or change the uninstall strategy "
                    "(spec.uninstallStrategy: RemoveWorkloads) before uninstalling KubeVirt."
                )
                return [Cause(NOT_SUPPORTED, message, "spec.uninstallStrategy")]
        return []
