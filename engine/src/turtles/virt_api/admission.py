# SPDX-License-Identifier: GPL-3.0-or-later
"""The admission webhooks: AdmissionReview in, AdmissionReview out. They call nothing, so they answer at once.

Protocol: Kubernetes documentation, "Dynamic Admission Control" (admission.k8s.io/v1).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from turtles.api import defaults, model, times, validation
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.language import Cause
from turtles.api.objects import Object, is_deleted
from turtles.virt_api import status

log = logging.getLogger(__name__)

Review = Callable[[Object], Object]

#: Paths the webhooks are served under.
MUTATE_VM = "/virtualmachines-mutate"
MUTATE_VMI = "/virtualmachineinstances-mutate"
VALIDATE_VM = "/virtualmachines-validate"
VALIDATE_VMI_CREATE = "/virtualmachineinstances-validate-create"
VALIDATE_VMI_UPDATE = "/virtualmachineinstances-validate-update"

_encode = msgspec.json.Encoder().encode


def engine_users(namespace: str) -> tuple[str, ...]:
    """Give the user names of the engine's own service accounts."""
    return tuple(
        f"system:serviceaccount:{namespace}:{name}" for name in ("virt-api", "virt-controller", "virt-handler")
    )


class Admission:
    """The webhooks of one installation. `users` are the engine's own: only they write statuses and reserved labels."""

    def __init__(self, users: Sequence[str], config: ClusterConfiguration = DEFAULT) -> None:
        self._users = frozenset(users)
        self._config = config
        #: Paths whose review asks the API server, and so takes a while.
        self.slow: set[str] = set()
        self.reviews: dict[str, Review] = {
            MUTATE_VM: self._mutate_vm,
            MUTATE_VMI: self._mutate_vmi,
            VALIDATE_VM: self._validate_vm,
            VALIDATE_VMI_CREATE: self._validate_vmi_create,
            VALIDATE_VMI_UPDATE: self._validate_vmi_update,
        }

    def configure(self, config: ClusterConfiguration) -> None:
        """Take over another configuration, from the next review on."""
        self._config = config

    def add(self, path: str, review: Review) -> None:
        """Serve a further webhook, which asks the API server before it answers."""
        self.reviews[path] = review
        self.slow.add(path)

    def review(self, path: str, body: Any) -> Object:
        """Answer one AdmissionReview.

        Raises status.Failure where the body is none, or the path isn't a webhook's.
        """
        review = self.reviews.get(path)
        if review is None:
            raise status.Failure(404, status.NO_SUCH_PATH)
        request = body.get("request") if isinstance(body, dict) else None
        if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
            raise status.Failure(400, "the body is not an AdmissionReview with a request")
        response = review(request)
        response["uid"] = request["uid"]
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    def _is_engine(self, request: Object) -> bool:
        user = request.get("userInfo")
        return isinstance(user, dict) and user.get("username") in self._users

    def _mutate_vm(self, request: Object) -> Object:
        vm, old = request.get("object"), request.get("oldObject")
        if not isinstance(vm, dict) or is_deleted(vm) or not _has_shape(vm, model.VM_SPEC):
            return {"allowed": True}
        if not isinstance(vm.get("metadata"), dict) or not _lists_and_maps(vm["metadata"]):
            return {"allowed": True}
        if not isinstance(old, dict) or not _has_shape(old, model.VM_SPEC):
            old = None
        if request.get("operation") == "UPDATE" and old is None:
            return {"allowed": True}
        return _patched(vm, defaults.default_vm(vm, old, self._config))

    def _mutate_vmi(self, request: Object) -> Object:
        vmi, old = request.get("object"), request.get("oldObject")
        if not isinstance(vmi, dict):
            return {"allowed": True}
        if request.get("operation") == "UPDATE":
            if self._is_engine(request) or not isinstance(old, dict):
                return {"allowed": True}
            # Without a status subresource this is what keeps users from writing the status
            after = {key: value for key, value in vmi.items() if key != "status"}
            if old.get("status") is not None:
                after["status"] = old["status"]
            return _patched(vmi, after)
        # What hasn't the right shape can't be defaulted; the validating webhook says what is wrong
        if not _has_shape(vmi, model.VMI_SPEC) or not isinstance(vmi.get("metadata") or {}, dict):
            return {"allowed": True}
        if not _lists_and_maps(vmi.get("metadata") or {}):
            return {"allowed": True}
        after = defaults.default_vmi(vmi, self._config, times.now())
        revision = vmi["status"].get("virtualMachineRevisionName") if isinstance(vmi.get("status"), dict) else None
        if revision and self._is_engine(request):
            after["status"]["virtualMachineRevisionName"] = revision
        return _patched(vmi, after)

    def _validate_vm(self, request: Object) -> Object:
        vm = request.get("object")
        if isinstance(vm, dict) and is_deleted(vm):
            return {"allowed": True}
        causes = validation.validate_vm(vm, self._config, privileged=self._is_engine(request))
        return judged(causes, validation.warnings_vm(vm))

    def _validate_vmi_create(self, request: Object) -> Object:
        privileged = self._is_engine(request)
        return judged(validation.validate_vmi(request.get("object"), self._config, privileged=privileged))

    def _validate_vmi_update(self, request: Object) -> Object:
        privileged = self._is_engine(request)
        old, new = request.get("oldObject"), request.get("object")
        return judged(validation.validate_vmi_update(old, new, privileged=privileged))


def _has_shape(obj: Object, spec_model: Any) -> bool:
    causes: list[Cause] = []
    spec_model.check(obj.get("spec"), "spec", causes)
    return not causes


def _lists_and_maps(metadata: Object) -> bool:
    finalizers, annotations = metadata.get("finalizers") or [], metadata.get("annotations") or {}
    return isinstance(finalizers, list) and isinstance(annotations, dict)


def judged(causes: Sequence[Cause], warnings: Sequence[str] = ()) -> Object:
    """Give the response that refuses an object for the causes, or admits it where there are none."""
    if causes:
        return {"allowed": False, "status": status.invalid(causes)}
    response: Object = {"allowed": True}
    if warnings:
        response["warnings"] = list(warnings)
    return response


def _patched(before: Object, after: Object) -> Object:
    """Give the response that turns `before` into `after`: a JSON patch (RFC 6902) of whole parts."""
    operations: list[Object] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key == "metadata" and isinstance(old, dict) and isinstance(new, dict):
            # Only what changed: the API server has its own view of the rest
            operations += [
                {"op": "add", "path": f"/metadata/{name}", "value": value}
                for name, value in new.items()
                if old.get(name) != value
            ]
        elif new is None:
            operations.append({"op": "remove", "path": f"/{key}"})
        else:
            operations.append({"op": "add", "path": f"/{key}", "value": new})
    if not operations:
        return {"allowed": True}
    return {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(_encode(operations)).decode()}
