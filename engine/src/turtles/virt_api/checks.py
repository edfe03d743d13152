# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of admission that have to ask the API server, by the names under which kinds refer to them.

They come after a kind's own validation, and only if that found nothing wrong.
"""

from __future__ import annotations

from typing import Any

from turtles.api import cdi, configuration_reader, data_sources
from turtles.api.kind import CREATE, DELETE, Missing
from turtles.api.kinds.cdi import BLOCK, ERROR
from turtles.api.language import DUPLICATE, INVALID, NOT_FOUND, NOT_SUPPORTED, Cause
from turtles.api.objects import Object, get
from turtles.api.phases import phase_of
from turtles.kube import copy_rights
from turtles.kube.client import Client
from turtles.kube.kubevirt import DATA_VOLUME, KUBEVIRT, VM, VMI
from turtles.kube.lookup import Lookup
from turtles.kube.resources import PVC
from turtles.virt_api.admission import Check, engine_users

_WORKLOADS = ((VMI, "Virtual Machine Instances"), (VM, "Virtual Machines"))


def checks(client: Client, namespace: str) -> dict[str, Check]:
    """Return all checks.

    :param namespace: the engine's.
    """
    return {
        "cdi": CDICheck(client),
        "data_import_cron": DataImportCronCheck(client),
        "data_volume": DataVolumeCheck(client, namespace),
        "kubevirt": KubeVirtCheck(client, namespace),
    }


class CDICheck:
    """Refuses to delete a CDI object that protects DataVolumes, while there are any (CDI's rule, in its words)."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, request: Object) -> list[Cause]:
        """Return what is wrong with deleting a CDI object."""
        cdi = request.get("oldObject") if request.get("operation") == DELETE else None
        is_in_force = phase_of(cdi) not in (None, "", ERROR)
        if not is_in_force or get(cdi, "spec", "uninstallStrategy") != BLOCK:
            return []
        if not self._client.list(DATA_VOLUME, limit=500)["items"]:
            return []
        message = (
            "Rejecting the uninstall request, since there are still DataVolumes present. Either delete all DataVolumes "
            "or change the uninstall strategy before uninstalling CDI."
        )
        return [Cause(NOT_SUPPORTED, message, "spec.uninstallStrategy")]


class DataImportCronCheck:
    """Refuses a DataImportCron that copies a claim which its user may not copy; each copy asks again."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, request: Object) -> list[Cause]:
        """Return what is wrong with creating a DataImportCron."""
        if request.get("operation") != CREATE:
            return []
        namespace = str(request.get("namespace"))
        source = data_sources.CopySource.of(get(request, "object", "spec", "template", "spec", "source"), namespace)
        if source is None:
            return []
        message = copy_rights.refusal(self._client, request.get("userInfo") or {}, source, namespace)
        return [Cause(INVALID, message, "spec.template.spec.source.pvc")] if message else []


class DataVolumeCheck:
    """Refuses a DataVolume whose claim exists already, unless it says that the claim is filled, one whose DataSource
    leads to nothing, and a copy of a disk that its user may not copy (CDI's rules).
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._engine = engine_users(namespace)

    def __call__(self, request: Object) -> list[Cause]:
        """Return what is wrong with creating a DataVolume."""
        obj = request.get("object") or {}
        metadata = obj.get("metadata") or {}
        namespace, name = str(request.get("namespace")), metadata.get("name")
        if request.get("operation") != CREATE:
            return []
        is_filled = bool(name) and (metadata.get("annotations") or {}).get(cdi.PRE_POPULATED) == name
        causes = [] if is_filled else self._of_claim(namespace, name)
        # Also of one whose claim is filled: that it is, its user may take back
        return causes or self._of_source(obj, namespace, request.get("userInfo") or {}, may_be_missing=is_filled)

    def _of_claim(self, namespace: str, name: str | None) -> list[Cause]:
        if not name or self._client.find(PVC, namespace, name) is None:
            return []
        return [Cause(DUPLICATE, f"Destination PVC {namespace}/{name} already exists", "DataVolume.Name")]

    def _of_source(self, data_volume: Object, namespace: str, user: Object, *, may_be_missing: bool) -> list[Cause]:
        reference = data_sources.reference_of(data_volume)
        source = data_sources.copy_source(data_volume)
        if reference is not None and source is None:
            return [] if may_be_missing else [self._unresolved(*reference)]
        # The engine has checked for itself whether the user it creates one for may
        if source is None or user.get("username") in self._engine:
            return []
        message = copy_rights.refusal(self._client, user, source, namespace)
        here = "spec.sourceRef" if reference else f"spec.source.{source.kind}"
        return [Cause(INVALID, message, here)] if message else []

    def _unresolved(self, namespace: str, name: str) -> Cause:
        """Return why there was nothing to note of a DataSource."""

        def find(namespace: str, name: str) -> Object:
            return Lookup(self._client)(data_sources.KIND, namespace, name)

        try:
            data_sources.resolve(find(namespace, name), find)
        except Missing:
            message = f"SourceRef {data_sources.KIND}/{namespace}/{name} not found"
            return Cause(NOT_FOUND, message, "spec.sourceRef")
        except data_sources.Unresolved as error:
            return Cause(INVALID, f"SourceRef {data_sources.KIND}/{namespace}/{name}: {error}", "spec.sourceRef")
        message = f"SourceRef {data_sources.KIND}/{namespace}/{name} changed in the meantime; try again"
        return Cause(INVALID, message, "spec.sourceRef")


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
            message = f"the KubeVirt object must be in the engine's namespace {self._namespace}, not in {namespace}"
            return [Cause(INVALID, message, "metadata.namespace")]
        for kubevirt in self._client.list(KUBEVIRT, self._namespace)["items"]:
            name = kubevirt["metadata"]["name"]
            if name != request.get("name"):
                message = f"KubeVirt object {self._namespace}/{name} already exists; change it instead"
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
