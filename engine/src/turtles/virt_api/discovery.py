# SPDX-License-Identifier: GPL-3.0-or-later
"""What the aggregated API says about itself (Kubernetes documentation, "API discovery")."""

from __future__ import annotations

import platform

from turtles import __version__
from turtles.api import uploads
from turtles.api.kind import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS, Kind, Subresource
from turtles.api.kinds import KINDS
from turtles.api.kinds.vm import VM
from turtles.api.objects import Object

#: The version of KubeVirt whose image `libguestfs-tools` is used.
_GUESTFS_TAG = "v1.9.0"

#: Kinds and their subresources, by the names of both: `virtualmachines/start`.
SUBRESOURCES: dict[str, tuple[Kind, Subresource]] = {
    f"{kind.plural}/{subresource.name}": (kind, subresource) for kind in KINDS for subresource in kind.subresources
}

#: Aggregated APIs and their versions, the preferred one first.
GROUPS: dict[str, tuple[str, ...]] = {
    SUBRESOURCES_GROUP: SUBRESOURCES_VERSIONS,
    uploads.GROUP: (uploads.VERSION,),
}

#: Operations in a namespace on objects that aren't stored: the client sends them.
NAMESPACE_OPERATIONS: dict[str, tuple[Kind, Subresource]] = {
    "expand-vm-spec": (
        VM,
        Subresource("expand-vm-spec", handler="expand_vm_spec", code=200, body=True, roles=("admin", "edit", "view")),
    ),
}


def find(resource: str, path: str) -> tuple[Kind, Subresource, str] | None:
    """Return the subresource that a path below an object means, its kind, and what follows its name in the path."""
    known = SUBRESOURCES.get(f"{resource}/{path}")
    if known is not None:
        return *known, ""
    name, _, rest = path.partition("/")
    known = SUBRESOURCES.get(f"{resource}/{name}")
    return (*known, rest) if known is not None and known[1].path else None


def group(name: str = SUBRESOURCES_GROUP) -> Object:
    """Return an APIGroup; its preferred version is the first."""
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in GROUPS[name]]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def groups() -> Object:
    """Return the APIGroupList of this server."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in GROUPS]}


def resources(version: str) -> Object:
    """Return the APIResourceList of a version."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{SUBRESOURCES_GROUP}/{version}",
        "resources": [
            {
                "name": name,
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": [subresource.verb],
            }
            for name, (kind, subresource) in {**SUBRESOURCES, **NAMESPACE_OPERATIONS}.items()
        ],
    }


def upload_resources() -> Object:
    """Return the APIResourceList of the group of uploads."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{uploads.GROUP}/{uploads.VERSION}",
        "resources": [
            {
                "name": uploads.PLURAL,
                "singularName": uploads.KIND.lower(),
                "namespaced": True,
                "kind": uploads.KIND,
                "verbs": ["create"],
            }
        ],
    }


def version() -> Object:
    """Return the engine's version under the names of Kubernetes' version.Info."""
    return {
        "gitVersion": f"v{__version__}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine()}",
    }


def guestfs() -> Object:
    """Return where `virtctl guestfs` finds the image that it works with: KubeVirt's own."""
    return {"registry": "quay.io/kubevirt", "tag": _GUESTFS_TAG, "imagePrefix": "", "digest": "", "gsImage": ""}


def openapi_v2() -> Object:
    """Return the OpenAPI v2 document: subresources take no documented bodies."""
    return {"swagger": "2.0", "info": {"title": "virt-api", "version": f"v{__version__}"}, "paths": {}}


def openapi_v3() -> Object:
    """Return the index of OpenAPI v3 documents: there are none."""
    return {"paths": {}}
