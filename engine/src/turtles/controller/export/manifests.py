# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that make an exported machine again, with disks from the export. Pure.

They are those of KubeVirt's export: a ConfigMap with the authorities of the server, the machine, and a DataVolume for
each of its disks; and one for each of its other claims, with the files. None names a namespace, so that they can be
created in any.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence

from turtles.api import cdi, exports, labels
from turtles.api.kinds.vm import VM
from turtles.api.labels import LAST_APPLIED
from turtles.api.objects import Object, get, owner_reference
from turtles.controller.export.sources import Volume
from turtles.controller.identity import secret_of
from turtles.controller.state_claims import claim_name


def config_map(pod: Object, lists: Mapping[str, Object]) -> Object:
    """Return the ConfigMap that a Pod serves manifests from, and that goes with it.

    :param lists: by link, the objects, as a List.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": secret_of(pod),
            "namespace": pod["metadata"]["namespace"],
            "labels": {labels.APP: exports.APP},
            "ownerReferences": [owner_reference({**pod, "apiVersion": "v1", "kind": "Pod"})],
        },
        "data": {link: json.dumps(found, indent=2) for link, found in lists.items()},
    }


def objects(
    export: Object,
    vm: Object,
    volumes: Sequence[Volume],
    claims: Mapping[str, Object],
    address: str,
    authorities: str,
) -> Object:
    """Return the objects, as a List.

    :param vm: the machine, expanded. :param claims: the specs of its claims, by the names of volumes.
    :param address: of the server, without a slash at its end. :param authorities: of its certificate, in PEM.
    """
    name = export["metadata"]["name"]
    exported = {each.name: each for each in volumes}

    def source(volume: str) -> Object:
        form = exports.GZIP if exported[volume].is_disk else exports.TAR_GZ
        http = {
            "url": f"{address}/{exports.volume_path(volume, form)}",
            "secretExtraHeaders": [exports.header_secret(name)],
        }
        return {"http": {**http, "certConfigMap": exports.authorities_config_map(name)} if authorities else http}

    made = _machine(vm)
    templates = made["spec"].get("dataVolumeTemplates") or []
    for template in templates:
        volume = get(template, "metadata", "name")
        if volume in exported:
            template["spec"] = {key: value for key, value in template["spec"].items() if key != "sourceRef"}
            template["spec"] |= _content(exported[volume], source(volume))
    own = {get(template, "metadata", "name") for template in templates}
    items: list[Object] = []
    if authorities:
        metadata = {"name": exports.authorities_config_map(name)}
        items.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.pem": authorities}})
    items.append(made)
    items += [
        # What a machine keeps beside its disks is none of its volumes, so that nobody would begin to use it
        _data_volume(exported[volume], claims[volume], source(volume), immediately=volume == claim_name(vm))
        for volume in exported
        if volume in claims and volume not in own
    ]
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}


def _machine(vm: Object) -> Object:
    metadata = vm["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    kept = {"name": metadata["name"], "labels": metadata.get("labels"), "annotations": annotations}
    return {
        "apiVersion": VM.api_version,
        "kind": VM.kind,
        "metadata": {key: value for key, value in kept.items() if value},
        "spec": copy.deepcopy(vm["spec"]),
    }


def _content(volume: Volume, source: Object) -> Object:
    """Return the part of a DataVolume's spec that says where its content comes from."""
    return {"source": source} if volume.is_disk else {"source": source, "contentType": "archive"}


def _data_volume(volume: Volume, claim: Object, source: Object, *, immediately: bool) -> Object:
    """Return the DataVolume of a volume whose claim the user made, or the engine for what a machine keeps beside disks.

    That claim may be full of the disk, so the new one has the form that adds what a file system needs for itself.
    """
    kept = ("accessModes", "volumeMode", "resources")
    spec = {key: copy.deepcopy(claim[key]) for key in kept if claim.get(key) is not None}
    metadata: Object = {"name": volume.name}
    if immediately:
        metadata["annotations"] = {cdi.BIND_IMMEDIATELY: "true"}
    return {
        "apiVersion": f"{cdi.GROUP}/v1beta1",
        "kind": "DataVolume",
        "metadata": metadata,
        "spec": {**_content(volume, source), "storage": spec},
    }
