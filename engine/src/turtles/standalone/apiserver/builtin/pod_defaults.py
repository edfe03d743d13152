# SPDX-License-Identifier: GPL-3.0-or-later
"""Defaults of Pods.

Source: Kubernetes' pkg/apis/core/v1/defaults.go. Objects have been decoded before (schema/decode.py), so that types are
right and zero values gone.
"""

from collections.abc import Iterator

from turtles.standalone.apiserver.builtin.fields import set_missing
from turtles.standalone.apiserver.builtin.persistent_volumes import SOURCES
from turtles.standalone.apiserver.wire.errors import Object

_MODE = 0o644
#: Sources of volumes and the defaults that they have.
_VOLUMES: dict[str, Object] = {
    "secret": {"defaultMode": _MODE},
    "configMap": {"defaultMode": _MODE},
    "downwardAPI": {"defaultMode": _MODE},
    "projected": {"defaultMode": _MODE},
    **SOURCES,
}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def set_defaults(obj: Object) -> None:
    """Set a Pod's defaults."""
    spec = obj["spec"]
    set_missing(
        spec,
        {
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
            "enableServiceLinks": True,
        },
    )
    # Two names of one field.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    status = obj["status"]
    if status.get("podIP") and not status.get("podIPs"):
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif status.get("podIPs") and not status.get("podIP"):
        status["podIP"] = status["podIPs"][0].get("ip", "")
    for container in _containers(spec):
        _container(container, spec.get("hostNetwork") is True)
    for volume in spec.get("volumes") or ():
        _volume_source(volume)


def _containers(spec: Object) -> Iterator[Object]:
    """Yield the _containers of a Pod's spec, of all three sorts."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _container(container: Object, host_network: bool) -> None:
    set_missing(container, {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    image = container.get("image")
    if image:
        reference = image.rpartition("/")[2]
        latest = ":" not in reference or reference.endswith(":latest")
        container.setdefault("imagePullPolicy", "Always" if latest and "@" not in reference else "IfNotPresent")
    resources = container["resources"]
    if resources.get("limits"):
        set_missing(resources.setdefault("requests", {}), resources["limits"])
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network and port.get("containerPort"):
            port.setdefault("hostPort", port["containerPort"])
    for variable in container.get("env") or ():
        _field_reference((variable.get("valueFrom") or {}).get("fieldRef"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is not None:
            set_missing(probe, _PROBE)
            _handler(probe)
    for name in ("postStart", "preStop"):
        _handler((container.get("lifecycle") or {}).get(name) or {})


def _handler(handler: Object) -> None:
    if handler.get("httpGet") is not None:
        set_missing(handler["httpGet"], {"path": "/", "scheme": "HTTP"})
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
            set_missing(volume[name], values)
    sources = [{"downwardAPI": volume.get("downwardAPI")}, *((volume.get("projected") or {}).get("sources") or ())]
    for source in sources:
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _field_reference(item.get("fieldRef"))
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}
    if template.get("spec") is not None:
        template["spec"].setdefault("volumeMode", "Filesystem")
