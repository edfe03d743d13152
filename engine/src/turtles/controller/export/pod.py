# SPDX-License-Identifier: GPL-3.0-or-later
"""What an export consists of: the Pod with its server, the Service that leads there, the token. Pure.

Names and labels are KubeVirt's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

from turtles.api import exports, labels
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.objects import Object, annotations_of
from turtles.controller.export.sources import Volume
from turtles.controller.identity import mount_identity
from turtles.controller.pod.config import METRICS_PORT
from turtles.controller.pod.worker import set_arguments, worker_spec

#: Annotation of the Pod: what it serves, so that it is seen when that is to be something else.
_VOLUMES = "kubevirt.io/export-volumes"
_REQUESTS, _LIMITS = {"cpu": "100m", "memory": "60M"}, {"cpu": "1", "memory": "300M"}
_MANIFESTS = "manifests"


@dataclass(frozen=True)
class ExporterConfig:
    """What the installation says about the Pods of export servers.

    :param image: of the container. :param cluster: what the KubeVirt object says.
    """

    image: str
    cluster: ClusterConfiguration = DEFAULT


def exporter_pod(
    export: Object, volumes: Sequence[Volume], config: ExporterConfig, secret: str, deadline: str, *, manifests: bool
) -> Object:
    """Return the Pod.

    :param secret: name of the Secret with the server's identity, and of the ConfigMap with manifests. Neither exists.
    :param deadline: when the server ends, as the API writes it.
    :param manifests: there are some.
    """
    metadata = export["metadata"]
    spec = worker_spec(
        "exporter",
        "/usr/bin/virt-exportserver",
        config.image,
        config.cluster,
        requests=_REQUESTS,
        limits=_LIMITS,
        ports=({"name": "exports", "containerPort": exports.PORT, "protocol": "TCP"},),
        grace_period=2,
    )
    (container,) = spec["containers"]
    container["readinessProbe"] = {
        "httpGet": {"path": "/readyz", "port": METRICS_PORT, "scheme": "HTTPS"},
        "periodSeconds": 2,
        "timeoutSeconds": 5,
    }
    arguments = [f"--export={metadata['name']}", f"--deadline={deadline}", f"--health-port={METRICS_PORT}"]
    for index, volume in enumerate(volumes):
        arguments.append(_add(spec, f"volume-{index}", volume))
    mount_identity(spec, secret)
    _mount(spec, "token", {"secret": {"secretName": exports.token_secret(export)}}, "/token")
    if manifests:
        _mount(spec, _MANIFESTS, {"configMap": {"name": secret}}, "/manifests")
    set_arguments(container, arguments)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": exports.name_of(export),
            "namespace": metadata["namespace"],
            "labels": {labels.APP: exports.APP, exports.SERVICE_LABEL: exports.name_of(export)},
            "annotations": {_VOLUMES: _told(volumes)},
            "ownerReferences": [exports.reference(export)],
        },
        "spec": spec,
    }


def serves(pod: Object, volumes: Sequence[Volume]) -> bool:
    """Say whether a Pod serves these volumes."""
    return bool(annotations_of(pod).get(_VOLUMES) == _told(volumes))


def has_manifests(pod: Object) -> bool:
    """Say whether a Pod serves manifests."""
    return any(volume["name"] == _MANIFESTS for volume in pod["spec"]["volumes"])


def service(export: Object) -> Object:
    """Return the Service that leads to the Pod."""
    port = {"name": "exports", "protocol": "TCP", "port": exports.SERVICE_PORT, "targetPort": exports.PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": exports.name_of(export),
            "namespace": export["metadata"]["namespace"],
            "labels": {labels.APP: exports.APP},
            "ownerReferences": [exports.reference(export)],
        },
        "spec": {"ports": [port], "selector": {exports.SERVICE_LABEL: exports.name_of(export)}},
    }


def server_names(export: Object) -> list[str]:
    """Return the names that the Service has, for the server's certificate."""
    service = f"{exports.name_of(export)}.{export['metadata']['namespace']}"
    return [exports.name_of(export), service, f"{service}.svc", f"{service}.svc.cluster.local"]


def address(export: Object) -> str:
    """Return where Pods reach the server."""
    return f"https://{exports.name_of(export)}.{export['metadata']['namespace']}.svc"


def token(export: Object, value: str) -> Object:
    """Return the Secret with the token of an export that names none."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": exports.token_secret(export),
            "namespace": export["metadata"]["namespace"],
            "labels": {labels.APP: exports.APP},
            "ownerReferences": [exports.reference(export)],
        },
        "type": "Opaque",
        "data": {exports.TOKEN_KEY: base64.b64encode(value.encode()).decode()},
    }


def _add(spec: Object, name: str, volume: Volume) -> str:
    """Mount a claim, to be read only; return how the server is told of it."""
    claim = {"claimName": volume.claim, "readOnly": True}
    if not volume.is_block:
        _mount(spec, name, {"persistentVolumeClaim": claim}, f"/export-volumes/{name}")
        return f"--{'disk' if volume.is_disk else 'files'}={volume.name}=/export-volumes/{name}"
    device = f"/dev/export-volumes/{name}"
    spec["volumes"].append({"name": name, "persistentVolumeClaim": claim})
    spec["containers"][0].setdefault("volumeDevices", []).append({"name": name, "devicePath": device})
    return f"--disk={volume.name}={device}"


def _mount(spec: Object, name: str, source: Object, path: str) -> None:
    spec["volumes"].append({"name": name, **source})
    spec["containers"][0]["volumeMounts"].append({"name": name, "mountPath": path, "readOnly": True})


def _told(volumes: Sequence[Volume]) -> str:
    return json.dumps([[each.name, each.claim, each.is_disk] for each in volumes])
