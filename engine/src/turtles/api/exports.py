# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of disks: what virt-api, virt-controller and an export server agree on. Pure.

virt-controller starts a Pod that serves the claims of an export over HTTPS to those who have its token. Inside the
cluster it is reached by a Service, from outside through virt-api, which passes requests on and believes nobody.

Source: KubeVirt user guide, "Export API"; KubeVirt API, group export.kubevirt.io: paths, reasons, names, headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from turtles.api import cdi, durations
from turtles.api.objects import Object, get, owner_reference
from turtles.api.times import parse_time

GROUP = "export.kubevirt.io"
VERSIONS = ("v1", "v1beta1")
PLURAL = "virtualmachineexports"
KIND = "VirtualMachineExport"

#: Header, or parameter of a query, with the token.
TOKEN_HEADER = "x-kubevirt-export-token"  # noqa: S105
#: Key of a Secret with a token.
TOKEN_KEY = "token"  # noqa: S105

#: ``spec.source.kind``: what is exported.
CLAIM, SNAPSHOT, MACHINE = "PersistentVolumeClaim", "VirtualMachineSnapshot", "VirtualMachine"

#: ``status.phase``.
PENDING, READY, TERMINATED, SKIPPED = "Pending", "Ready", "Terminated", "Skipped"

#: Conditions.
READY_CONDITION, CLAIM_CONDITION, VOLUMES_CONDITION = "Ready", "PVCReady", "VolumesCreated"

#: Formats of a disk, and of a claim that isn't one.
RAW, GZIP, DIR, TAR_GZ = "raw", "gzip", "dir", "tar.gz"
#: Paths of the formats below a volume.
FILES = {RAW: "disk.img", GZIP: "disk.img.gz", DIR: "dir/", TAR_GZ: "disk.tar.gz"}
DISK_FORMATS, ARCHIVE_FORMATS = (RAW, GZIP), (DIR, TAR_GZ)

#: Types of manifests, and their paths.
ALL_MANIFESTS, AUTH_HEADER = "all", "auth-header-secret"
MANIFESTS = {ALL_MANIFESTS: "manifests/all", AUTH_HEADER: "manifests/secret"}
#: Whose addresses a manifest has.
INTERNAL, EXTERNAL = "internal", "external"

#: Port of an export server; that of the Service.
PORT, SERVICE_PORT = 8444, 443
#: Label of an export server's Pod, and what the Service selects it by.
SERVICE_LABEL = "kubevirt.io.virt-export-service"
#: Value of the label ``kubevirt.io`` of what belongs to an export.
APP = "virt-exporter"
#: Annotation of the Pod: the certificate that it shows, in PEM.
CERTIFICATE = "kubevirt.io/export-server-certificate"
#: Annotation of virt-api's APIService: the address at which users reach virt-api, where virt-api knows it.
ADDRESS = "export.kubevirt.io/address"
#: Service of a cluster that an Ingress leads to for exports to be reached from outside.
PROXY_SERVICE = "virt-exportproxy"

#: How long an export is there.
DEFAULT_TTL = timedelta(hours=2)
#: Longest label of a domain name (RFC 1035): names of Services, and so of what is called as they are.
_LONGEST = 63


def name_of(export: Mapping[str, Any]) -> str:
    """Return the name of an export's Service and Pod. The same one always gets the same name."""
    return _name("virt-export", export["metadata"]["name"])


def token_secret(export: Mapping[str, Any]) -> str:
    """Return the name of the Secret with an export's token: the user's, or one that is made."""
    return str(export["spec"].get("tokenSecretRef") or _name("export-token", export["metadata"]["name"]))


def header_secret(name: str) -> str:
    """Return the name of the Secret in the manifests of an export, with the token as CDI sends it."""
    return f"header-secret-{name}"


def authorities_config_map(name: str) -> str:
    """Return the name of the ConfigMap in the manifests of an export, with the authorities of its server."""
    return f"export-ca-cm-{name}"


def proxy_path(export: Mapping[str, Any]) -> str:
    """Return the path below which virt-api passes requests on to an export's server."""
    metadata = export["metadata"]
    return f"/api/{GROUP}/{VERSIONS[0]}/namespaces/{metadata['namespace']}/{PLURAL}/{metadata['name']}"


def volume_path(volume: str, format: str) -> str:
    """Return the path of a volume in a format, without the slash in front."""
    return f"volumes/{volume}/{FILES[format]}"


def expires_at(export: Mapping[str, Any]) -> datetime | None:
    """Return when an export is to be deleted; None if it doesn't say when it was created."""
    created = parse_time(export["metadata"].get("creationTimestamp"))
    return None if created is None else created + ttl(export)


def ttl(export: Mapping[str, Any]) -> timedelta:
    """Return how long an export is there.

    :raises DurationError: ``spec.ttlDuration`` isn't a duration.
    """
    duration = export["spec"].get("ttlDuration")
    return DEFAULT_TTL if duration is None else durations.parse(duration)


def is_disk(claim: Object, data_volume: Object | None) -> bool:
    """Say whether a claim holds a machine's disk, and not files.

    :param data_volume: the one that controls it.
    """
    if claim["spec"].get("volumeMode") == "Block":
        return True
    annotations = claim["metadata"].get("annotations") or {}
    if annotations.get(cdi.CONTENT_TYPE) in ("kubevirt", ""):
        return True
    return data_volume is not None and get(data_volume, "spec", "contentType") in (None, "", "kubevirt")


def reference(export: Mapping[str, Any]) -> Object:
    """Return the reference that makes something go with an export."""
    return owner_reference({**export, "apiVersion": f"{GROUP}/{VERSIONS[0]}", "kind": KIND})


def _name(prefix: str, name: str) -> str:
    whole = f"{prefix}-{name}"
    if len(whole) <= _LONGEST and "." not in whole:
        return whole
    digits = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{whole.replace('.', '-')[: _LONGEST - len(digits) - 1].rstrip('-')}-{digits}"


def host_of(ingress: Object) -> str:
    """Return the host of an Ingress that leads to virt-api for exports, empty if it does not.

    Source: KubeVirt user guide, "Export API".
    """
    spec = ingress.get("spec") or {}
    rules = spec.get("rules") or ()
    default = get(spec, "defaultBackend", "service", "name")
    for rule in rules:
        backends = [get(path, "backend", "service", "name") for path in get(rule, "http", "paths") or ()]
        if rule.get("host") and PROXY_SERVICE in (default, *backends):
            return str(rule["host"])
    return ""
