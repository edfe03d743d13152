# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod that takes an upload into a claim, as pure functions.

The Pod's name and label are CDI's. What it may do, and use, is what an importer may.
"""

from __future__ import annotations

import hashlib

from turtles.api import cdi, uploads
from turtles.api.import_settings import DEFAULT, ImportSettings
from turtles.api.objects import Object, owner_reference
from turtles.controller.data_volume.claim import scratch
from turtles.controller.data_volume.pod import ImporterConfig, importer_pod
from turtles.controller.identity import mount_identity
from turtles.controller.pod.config import METRICS_PORT


def name_of(claim: Object) -> str:
    """Return the name of a claim's Pod. The same one always gets the same name."""
    return cdi.pod_name(uploads.PREFIX, claim["metadata"]["name"])


def upload_pod(
    claim: Object, data_volume: Object | None, config: ImporterConfig, secret: str, authorities: str
) -> Object:
    """Return the Pod.

    :param data_volume: the claim's; None if a user made the claim.
    :param secret: name of the Secret with the server's identity, which doesn't exist so far.
    :param authorities: those that the identity has, in PEM.
    """
    pod = importer_pod(_described(claim, data_volume), claim, config, scratch=True)
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["name"] = name_of(claim)
    metadata["labels"] |= {cdi.COMPONENT: uploads.COMPONENT}
    metadata["annotations"] = {uploads.AUTHORITIES: fingerprint(authorities)}
    metadata["ownerReferences"] = [_owner(claim)]
    container = spec["containers"][0]
    container["name"] = uploads.COMPONENT
    container["ports"].append({"name": "upload", "containerPort": uploads.PORT, "protocol": "TCP"})
    container["readinessProbe"] = {
        "httpGet": {"path": "/readyz", "port": METRICS_PORT, "scheme": "HTTPS"},
        "periodSeconds": 2,
        "timeoutSeconds": 5,
    }
    mount_identity(spec, secret)
    return pod


def fingerprint(authorities: str) -> str:
    """Return what tells authorities from others."""
    return hashlib.sha256(authorities.encode()).hexdigest()[:16]


def scratch_claim(claim: Object, settings: ImportSettings = DEFAULT) -> Object:
    """Return the claim for what has to be stored meanwhile."""
    made = scratch(_described(claim, None), claim, settings)
    made["metadata"]["ownerReferences"] = [_owner(claim)]
    return made


def _owner(claim: Object) -> Object:
    return owner_reference({**claim, "apiVersion": "v1", "kind": "PersistentVolumeClaim"})


def _described(claim: Object, data_volume: Object | None) -> Object:
    """Return a claim's DataVolume, or one that would have made this claim."""
    source: Object = {"upload": {}}
    if data_volume is not None:
        return {**data_volume, "spec": {**data_volume["spec"], "source": source}}
    spec: Object = {"source": source, "pvc": claim["spec"]}
    if content := (claim["metadata"].get("annotations") or {}).get(cdi.CONTENT_TYPE):
        spec["contentType"] = content
    return {
        "apiVersion": f"{cdi.GROUP}/v1beta1",
        "kind": "DataVolume",
        "metadata": claim["metadata"],
        "spec": spec,
    }
