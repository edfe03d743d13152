# SPDX-License-Identifier: GPL-3.0-or-later
"""The webhook of KubeVirt objects: one, well-formed, in the engine's namespace, and not deleted under machines."""

from __future__ import annotations

from typing import Any

from turtles.api import configuration
from turtles.api.kubevirt_validation import validate_kubevirt, warnings_kubevirt
from turtles.api.language import DUPLICATE, INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import Object
from turtles.kube.client import ApiError, Client
from turtles.kube.kubevirt import KUBEVIRT, VM, VMI
from turtles.virt_api.admission import judged
from turtles.virt_api.status import Failure

#: Path the webhook is served under.
VALIDATE = "/kubevirt-validate"

_WORKLOADS = ((VMI, "Virtual Machine Instances"), (VM, "Virtual Machines"))


class KubeVirtReview:
    """Judges creation, change and deletion of KubeVirt objects. Called on threads: it asks the API server."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def __call__(self, request: Object) -> Object:
        """Give the response of an AdmissionReview's request. Raises Failure where the API server doesn't answer."""
        try:
            causes = self._causes(request)
        except ApiError as error:
            raise Failure(503, f"the API server didn't answer: {error.message}") from error
        kubevirt = request.get("object")
        return judged(causes, warnings_kubevirt(kubevirt) if not causes and isinstance(kubevirt, dict) else ())

    def _causes(self, request: Object) -> list[Cause]:
        operation, kubevirt = request.get("operation"), request.get("object")
        if operation == "DELETE":
            return self._deletion(request.get("oldObject"))
        if isinstance(kubevirt, dict) and (kubevirt.get("metadata") or {}).get("deletionTimestamp"):
            return []
        causes = validate_kubevirt(kubevirt)
        return causes or (self._place(request) if operation == "CREATE" else [])

    def _place(self, request: Object) -> list[Cause]:
        namespace = request.get("namespace")
        if namespace != self._namespace:
            message = f"a KubeVirt object belongs in the engine's namespace {self._namespace}, not in {namespace}"
            return [Cause(INVALID, message, "metadata.namespace")]
        for found in self._client.list(KUBEVIRT, self._namespace)["items"]:
            name = found["metadata"]["name"]
            if name != request.get("name"):
                message = f"there is a KubeVirt object {self._namespace}/{name} already; change that one"
                return [Cause(DUPLICATE, message, "metadata.name")]
        return []

    def _deletion(self, kubevirt: Any) -> list[Cause]:
        # Somebody else's, left over or written before the webhook was there: deleting it ends nothing
        ours = configuration.in_force(self._client.list(KUBEVIRT, self._namespace)["items"])
        if not isinstance(kubevirt, dict) or not ours or ours["metadata"]["uid"] != kubevirt["metadata"].get("uid"):
            return []
        if not configuration.from_kubevirt(kubevirt).uninstall_blocked:
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
