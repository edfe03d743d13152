# SPDX-License-Identifier: GPL-3.0-or-later
"""Defaults of built-in kinds, and what the server alone sets when an object is made.

Source: Kubernetes' pkg/apis/*/v1/defaults.go and the strategies in pkg/registry. Objects have been decoded before
(decode.py), so that types are right and zero values gone.
"""

import base64
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from turtles.standalone.apiserver.builtin import services
from turtles.standalone.apiserver.custom import crd
from turtles.standalone.apiserver.schema.kinds import ADMISSION, RBAC, REGISTRATION, Kind
from turtles.standalone.apiserver.schema.metadata import now
from turtles.standalone.apiserver.schema.types import of_kind, zero_value
from turtles.standalone.apiserver.wire.errors import Object
from turtles.standalone.podrunner.status import qos_class

_MODE = 0o644
#: Sources of volumes and the defaults that they have.
_VOLUMES: dict[str, Object] = {
    "secret": {"defaultMode": _MODE},
    "configMap": {"defaultMode": _MODE},
    "downwardAPI": {"defaultMode": _MODE},
    "projected": {"defaultMode": _MODE},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_SECONDS = 300


def _set(obj: Object, values: Object) -> None:
    for name, value in values.items():
        obj.setdefault(name, value)


def containers(spec: Object) -> Iterator[Object]:
    """Yield the containers of a Pod's spec, of all three sorts."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


# -- Pods


def _pod(obj: Object) -> None:
    spec = obj["spec"]
    _set(
        spec,
        {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": True,
        },
    )  # fmt: skip
    # Two names of one field.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    status = obj["status"]
    if status.get("podIP") and not status.get("podIPs"):
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif status.get("podIPs") and not status.get("podIP"):
        status["podIP"] = status["podIPs"][0].get("ip", "")
    for container in containers(spec):
        _container(container, spec.get("hostNetwork") is True)
    for volume in spec.get("volumes") or ():
        _volume_source(volume)


def _container(container: Object, host_network: bool) -> None:
    _set(container, {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    image = container.get("image")
    if image:
        reference = image.rpartition("/")[2]
        latest = ":" not in reference or reference.endswith(":latest")
        container.setdefault("imagePullPolicy", "Always" if latest and "@" not in reference else "IfNotPresent")
    resources = container["resources"]
    if resources.get("limits"):
        _set(resources.setdefault("requests", {}), resources["limits"])
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network and port.get("containerPort"):
            port.setdefault("hostPort", port["containerPort"])
    for variable in container.get("env") or ():
        _field_reference((variable.get("valueFrom") or {}).get("fieldRef"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is not None:
            _set(probe, _PROBE)
            _handler(probe)
    for name in ("postStart", "preStop"):
        _handler((container.get("lifecycle") or {}).get(name) or {})


def _handler(handler: Object) -> None:
    if handler.get("httpGet") is not None:
        _set(handler["httpGet"], {"path": "/", "scheme": "HTTP"})
    if handler.get("grpc") is not None:
        handler["grpc"].setdefault("service", "")


def _field_reference(reference: Object | None) -> None:
    if reference is not None:
        reference.setdefault("apiVersion", "v1")


def _volume_source(volume: Object) -> None:
    if not any(name != "name" for name in volume):
        volume["emptyDir"] = {}
    for name, values in _VOLUMES.items():
        if volume.get(name) is not None:
            _set(volume[name], values)
    sources = [{"downwardAPI": volume.get("downwardAPI")}, *((volume.get("projected") or {}).get("sources") or ())]
    for source in sources:
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _field_reference(item.get("fieldRef"))
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}
    if template.get("spec") is not None:
        template["spec"].setdefault("volumeMode", "Filesystem")


# -- the others


def _node(obj: Object) -> None:
    spec, status = obj["spec"], obj["status"]
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    strings = obj.pop("stringData", None)
    if strings:
        data = obj.setdefault("data", {})
        for name, value in strings.items():
            data[name] = base64.b64encode(value.encode()).decode()


def _namespace(obj: Object) -> None:
    metadata = obj["metadata"]
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
    obj["status"].setdefault("phase", "Active")


def _endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        _set(port, {"name": "", "protocol": "TCP"})


def _claim(obj: Object) -> None:
    obj["spec"].setdefault("volumeMode", "Filesystem")
    obj["status"].setdefault("phase", "Pending")


def _volume(obj: Object) -> None:
    spec = obj["spec"]
    _set(spec, {"volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain"})
    for name in ("hostPath", "iscsi", "rbd", "azureDisk", "scaleIO"):
        if spec.get(name) is not None:
            _set(spec[name], _VOLUMES[name])
    obj["status"].setdefault("phase", "Pending")


def _limit_range(obj: Object) -> None:
    for item in obj["spec"].get("limits") or ():
        if item.get("type") == "Container":
            for target, source in (("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")):
                if item.get(source):
                    _set(item.setdefault(target, {}), item[source])


def _storage_class(obj: Object) -> None:
    _set(obj, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})


def _binding(obj: Object) -> None:
    if not obj["roleRef"].get("apiGroup"):
        obj["roleRef"]["apiGroup"] = RBAC
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", RBAC)


def _webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks") or ():
        _set(
            webhook,
            {
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "timeoutSeconds": 10,
            },
        )  # fmt: skip
        if obj["kind"] == "MutatingWebhookConfiguration":
            webhook.setdefault("reinvocationPolicy", "Never")
        service = webhook["clientConfig"].get("service")
        if service is not None:
            service.setdefault("port", 443)
        for rule in webhook.get("rules") or ():
            rule.setdefault("scope", "*")


def _api_service(obj: Object) -> None:
    service = obj["spec"].get("service")
    if service is not None:
        service.setdefault("port", 443)
    elif not obj["status"].get("conditions"):
        obj["status"]["conditions"] = [
            {
                "type": "Available", "status": "True", "lastTransitionTime": now(), "reason": "Local",
                "message": "Local APIServices are always available",
            }
        ]  # fmt: skip


def _priority_class(obj: Object) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "/namespaces": _namespace,
    "/nodes": _node,
    "/pods": _pod,
    "/secrets": _secret,
    services.RESOURCE: services.default,
    "/endpoints": _endpoints,
    "/limitranges": _limit_range,
    "/persistentvolumeclaims": _claim,
    "/persistentvolumes": _volume,
    "discovery.k8s.io/endpointslices": _endpoint_slice,
    "storage.k8s.io/storageclasses": _storage_class,
    "scheduling.k8s.io/priorityclasses": _priority_class,
    f"{RBAC}/rolebindings": _binding,
    f"{RBAC}/clusterrolebindings": _binding,
    f"{ADMISSION}/mutatingwebhookconfigurations": _webhooks,
    f"{ADMISSION}/validatingwebhookconfigurations": _webhooks,
    f"{REGISTRATION}/apiservices": _api_service,
    crd.RESOURCE: crd.prepare,
}


def default(obj: Object, kind: Kind) -> None:
    """Set a built-in kind's defaults."""
    hook = _DEFAULTS.get(kind.resource)
    if hook is not None:
        hook(obj)


# -- creation


#: Kinds whose status may be given when they are made: whoever makes them is who knows it.
_OWN_STATUS = ("/nodes", "/persistentvolumes")


def prepare(obj: Object, kind: Kind) -> None:
    """Do to a new object of a built-in kind what clients can't: its first status, its finalizers."""
    if kind.status and kind.resource not in _OWN_STATUS:
        obj["status"] = zero_value(of_kind(kind).fields["status"])
    if kind.resource == "/namespaces":
        obj["spec"].setdefault("finalizers", ["kubernetes"])
    elif kind.resource == "/pods":
        obj["status"]["phase"] = "Pending"


def classify(pod: Object) -> None:
    """Write down the quality of service that a new Pod gets, once admission has given it all its resources."""
    with contextlib.suppress(ValueError):  # validation names what can't be read
        pod.setdefault("status", {})["qosClass"] = qos_class(pod["spec"])


# -- admission


def admit_pod(pod: Object, classes: Callable[[], Iterator[Object]]) -> None:
    """Do to a new Pod what the admission plugins ServiceAccount, Priority and DefaultTolerationSeconds do.

    :param classes: gives the PriorityClasses.
    :raises LookupError: the Pod's priority class isn't there, or the Pod says another priority than its class.
    """
    spec = pod["spec"]
    if not spec.get("serviceAccountName") and not pod["metadata"].get("annotations", {}).get(_MIRROR):
        spec["serviceAccountName"] = spec["serviceAccount"] = "default"
    _admit_priority(spec, classes)
    admit_tolerations(spec)


def admit_tolerations(spec: Object) -> None:
    """Let a Pod stay for five minutes on a node that isn't ready, if it says nothing about that."""
    tolerations: list[Any] = spec.get("tolerations") or []
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(one.get("key", key) == key and one.get("effect", "NoExecute") == "NoExecute" for one in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS})
    spec["tolerations"] = tolerations


_MIRROR = "kubernetes.io/config.mirror"


def _admit_priority(spec: Object, classes: Callable[[], Iterator[Object]]) -> None:
    name = spec.get("priorityClassName")
    chosen: Object | None = None
    if name:
        chosen = next((one for one in classes() if one["metadata"]["name"] == name), None)
        if chosen is None:
            raise LookupError(f"no PriorityClass with name {name} was found")
    else:
        defaults = [one for one in classes() if one.get("globalDefault")]
        chosen = min(defaults, key=lambda one: int(one["value"]), default=None)
        if chosen is not None:
            spec["priorityClassName"] = chosen["metadata"]["name"]
    priority = chosen["value"] if chosen is not None else 0
    if spec.get("priority") not in (None, priority):
        text = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {priority} from the given PriorityClass name"
        )
        raise LookupError(text)
    spec["priority"] = priority
    policy = (chosen or {}).get("preemptionPolicy", "PreemptLowerPriority")
    if spec.get("preemptionPolicy") not in (None, policy):
        text = (
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
            f"priority admission controller computed {policy} from the given PriorityClass name"
        )
        raise LookupError(text)
    spec["preemptionPolicy"] = policy
