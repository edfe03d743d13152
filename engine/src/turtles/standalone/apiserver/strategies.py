# SPDX-License-Identifier: GPL-3.0-or-later
"""What is particular to a built-in kind: immutable fields, validation."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from turtles.standalone.apiserver import crd, services
from turtles.standalone.apiserver.cel import conditions
from turtles.standalone.apiserver.errors import (
    Cause,
    Object,
    StatusError,
    bad_request,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
)
from turtles.standalone.apiserver.kinds import ADMISSION, RBAC, REGISTRATION, Kind
from turtles.standalone.apiserver.metadata import label_causes, validate_keys
from turtles.standalone.podrunner.quantity import parse

MAX_SECRET = 1024 * 1024


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


#: What reading a field of a wrong type raises. Only fields that the server depends on have their types checked one
#: by one (shapes.py); elsewhere the error itself tells.
_MALFORMED = (AttributeError, TypeError, KeyError, IndexError, ValueError)


def _undecodable(kind: Kind, error: Exception) -> StatusError:
    text = f"a field has the wrong type: {error}"
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {text}')


# -- validation


def _quantities(values: Any, path: str) -> list[Cause]:
    causes = []
    for name, value in _map(values).items():
        try:
            parse(value)
        except ValueError:
            text = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            causes.append(invalid_value(f"{path}[{name}]", value, text))
    return causes


def _validate_pod(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return [required("spec.containers")]
    causes: list[Cause] = []
    containers = _list(spec.get("containers"))
    if not containers:
        causes.append(required("spec.containers"))
    names: set[str] = set()
    volumes = [volume.get("name") for volume in _list(spec.get("volumes"))]
    for index, name in enumerate(volumes):
        if not name:
            causes.append(required(f"spec.volumes[{index}].name"))
        elif name in volumes[:index]:
            causes.append(duplicate(f"spec.volumes[{index}].name", name))
        else:
            causes += label_causes(name, f"spec.volumes[{index}].name")
    for field in ("initContainers", "containers"):
        for index, container in enumerate(_list(spec.get(field))):
            path = f"spec.{field}[{index}]"
            name = container.get("name")
            if not name:
                causes.append(required(f"{path}.name"))
            elif name in names:
                causes.append(duplicate(f"{path}.name", name))
            else:
                causes += label_causes(name, f"{path}.name")
            names.add(str(name))
            for part in ("limits", "requests"):
                causes += _quantities(_map(container.get("resources")).get(part), f"{path}.resources.{part}")
            if not container.get("image"):
                causes.append(required(f"{path}.image"))
            for number, mount in enumerate(_list(container.get("volumeMounts"))):
                if not isinstance(mount, dict) or not mount.get("mountPath"):
                    causes.append(required(f"{path}.volumeMounts[{number}].mountPath"))
                elif mount.get("name") not in volumes:
                    text = f'Not found: "{mount.get("name")}"'
                    causes.append(Cause("FieldValueNotFound", text, f"{path}.volumeMounts[{number}].name"))
    policy = spec.get("restartPolicy")
    if policy not in ("Always", "OnFailure", "Never"):
        causes.append(not_supported("spec.restartPolicy", policy, ["Always", "OnFailure", "Never"]))
    if old is not None and _fixed_pod_spec(spec) != _fixed_pod_spec(_map(old.get("spec"))):
        text = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        causes.append(field_forbidden("spec", text))
    return causes


def _fixed_pod_spec(spec: Object) -> Object:
    fixed = {name: value for name, value in spec.items() if name not in ("activeDeadlineSeconds", "tolerations")}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [{n: v for n, v in one.items() if n != "image"} for one in _list(fixed[field])]
    return fixed


def _validate_secret(obj: Object, old: Object | None) -> list[Cause]:
    causes = validate_keys(obj.get("data"), "data")
    total = 0
    for name, value in _map(obj.get("data")).items():
        try:
            total += len(base64.b64decode(value or "", validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise bad_request(
                'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in field data.' + name
            ) from None
    if total > MAX_SECRET:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {MAX_SECRET} bytes", "data"))
    if obj.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in _map(obj.get("data")):
        causes.append(required("data[.dockerconfigjson]"))
    if old is not None:
        if obj.get("type") != old.get("type"):
            causes.append(invalid_value("type", obj.get("type"), "field is immutable"))
        if old.get("immutable") and obj.get("data") != old.get("data"):
            causes.append(field_forbidden("data", "field is immutable when `immutable` is set"))
    return causes


def _validate_config_map(obj: Object, old: Object | None) -> list[Cause]:
    for name, value in _map(obj.get("data")).items():
        if not isinstance(value, str):
            raise bad_request(
                'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal into Go struct '
                f"field ConfigMap.data.{name} of type string"
            )
    causes = validate_keys(obj.get("data"), "data") + validate_keys(obj.get("binaryData"), "binaryData")
    if old is not None and old.get("immutable") and obj.get("data") != old.get("data"):
        causes.append(field_forbidden("data", "field is immutable when `immutable` is set"))
    return causes


def _validate_claim(obj: Object, old: Object | None) -> list[Cause]:
    spec = _map(obj.get("spec"))
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(required("spec.accessModes", "at least 1 access mode is required"))
    if not _map(_map(spec.get("resources")).get("requests")).get("storage"):
        causes.append(required("spec.resources[storage]"))
    causes += _quantities(_map(spec.get("resources")).get("requests"), "spec.resources.requests")
    if old is not None:
        before = {name: value for name, value in _map(old.get("spec")).items() if name not in _CLAIM_MUTABLE}
        after = {name: value for name, value in spec.items() if name not in _CLAIM_MUTABLE}
        if before != after:
            text = (
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
                "claims"
            )
            causes.append(field_forbidden("spec", text))
    return causes


_CLAIM_MUTABLE = ("resources", "volumeName", "volumeAttributesClassName", "storageClassName")


def _validate_volume(obj: Object, old: Object | None) -> list[Cause]:
    spec = _map(obj.get("spec"))
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(required("spec.accessModes"))
    if not _map(spec.get("capacity")).get("storage"):
        causes.append(required("spec.capacity"))
    causes += _quantities(spec.get("capacity"), "spec.capacity")
    return causes


def _validate_role(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(_list(obj.get("rules"))):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return causes


def _validate_binding(obj: Object, old: Object | None) -> list[Cause]:
    reference = _map(obj.get("roleRef"))
    causes: list[Cause] = []
    kinds = ["ClusterRole"] if obj["kind"] == "ClusterRoleBinding" else ["Role", "ClusterRole"]
    if reference.get("kind") not in kinds:
        causes.append(not_supported("roleRef.kind", reference.get("kind", ""), kinds))
    if not reference.get("name"):
        causes.append(required("roleRef.name"))
    for index, subject in enumerate(_list(obj.get("subjects"))):
        if not subject.get("name"):
            causes.append(required(f"subjects[{index}].name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            allowed = ["ServiceAccount", "User", "Group"]
            causes.append(not_supported(f"subjects[{index}].kind", subject.get("kind", ""), allowed))
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace") and len(kinds) == 1:
            causes.append(required(f"subjects[{index}].namespace"))
    if old is not None and old.get("roleRef") != obj.get("roleRef"):
        causes.append(invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef"))
    return causes


def _validate_webhooks(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, webhook in enumerate(_list(obj.get("webhooks"))):
        path = f"webhooks[{index}]"
        if not webhook.get("name"):
            causes.append(required(f"{path}.name"))
        elif str(webhook["name"]).count(".") < 2:
            text = "should be a domain with at least three segments separated by dots"
            causes.append(invalid_value(f"{path}.name", webhook["name"], text))
        causes += crd.validate_client(_map(webhook.get("clientConfig")), f"{path}.clientConfig")
        before = [_map(one) for one in _list(_map(old).get("webhooks"))]
        if webhook.get("matchConditions") not in [one.get("matchConditions") for one in before]:
            causes += conditions.check(webhook.get("matchConditions"), f"{path}.matchConditions")
        if webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            causes.append(not_supported(f"{path}.sideEffects", webhook.get("sideEffects"), ["None", "NoneOnDryRun"]))
        if not webhook.get("admissionReviewVersions"):
            causes.append(required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1"))
        if webhook.get("failurePolicy") not in ("Fail", "Ignore"):
            value = webhook.get("failurePolicy")
            causes.append(not_supported(f"{path}.failurePolicy", value, ["Fail", "Ignore"]))
        timeout = webhook.get("timeoutSeconds")
        if not isinstance(timeout, int) or not 1 <= timeout <= 30:
            text = "the timeout value must be between 1 and 30 seconds"
            causes.append(invalid_value(f"{path}.timeoutSeconds", timeout, text))
    return causes


def _validate_api_service(obj: Object, old: Object | None) -> list[Cause]:
    spec = _map(obj.get("spec"))
    name = f"{spec.get('version')}.{spec.get('group')}"
    causes: list[Cause] = []
    if obj["metadata"].get("name") not in (name, f"{spec.get('version')}."):
        text = 'must be `spec.version+"."+spec.group`'
        causes.append(invalid_value("metadata.name", obj["metadata"].get("name"), f'{text}: "{name}"'))
    service = spec.get("service")
    if isinstance(service, dict) and not (service.get("namespace") and service.get("name")):
        causes.append(required("spec.service.name"))
    return causes


def _validate_storage_class(obj: Object, old: Object | None) -> list[Cause]:
    return [] if obj.get("provisioner") else [required("provisioner")]


def _validate_event(obj: Object, old: Object | None) -> list[Cause]:
    involved = _map(obj.get("involvedObject")).get("namespace") or ""
    namespace = obj["metadata"].get("namespace")
    # Events about objects without a namespace belong in default or kube-system.
    if involved == namespace or (not involved and namespace in ("default", "kube-system")):
        return []
    return [invalid_value("involvedObject.namespace", involved, "does not match event.namespace")]


_VALIDATORS: dict[str, Callable[[Object, Object | None], list[Cause]]] = {
    "/pods": _validate_pod,
    "/secrets": _validate_secret,
    "/configmaps": _validate_config_map,
    services.RESOURCE: services.validate,
    "/persistentvolumeclaims": _validate_claim,
    "/persistentvolumes": _validate_volume,
    "/events": _validate_event,
    "storage.k8s.io/storageclasses": _validate_storage_class,
    f"{RBAC}/roles": _validate_role,
    f"{RBAC}/clusterroles": _validate_role,
    f"{RBAC}/rolebindings": _validate_binding,
    f"{RBAC}/clusterrolebindings": _validate_binding,
    f"{ADMISSION}/mutatingwebhookconfigurations": _validate_webhooks,
    f"{ADMISSION}/validatingwebhookconfigurations": _validate_webhooks,
    f"{REGISTRATION}/apiservices": _validate_api_service,
    crd.RESOURCE: crd.validate,
}


def validate(obj: Object, old: Object | None, kind: Kind) -> list[Cause]:
    """Return what is wrong with an object of a built-in kind."""
    validator = _VALIDATORS.get(kind.resource)
    if validator is None:
        return []
    try:
        return validator(obj, old)
    except _MALFORMED as error:
        raise _undecodable(kind, error) from None
