# SPDX-License-Identifier: GPL-3.0-or-later
"""What the aggregated API says about itself (Kubernetes documentation, "API discovery")."""

from __future__ import annotations

import platform

from turtles import __version__
from turtles.api.kinds import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS
from turtles.api.objects import Object

#: Subresources by resource; each with the kind of its parent and its verbs.
RESOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "virtualmachines/start": ("VirtualMachine", ("update",)),
    "virtualmachines/stop": ("VirtualMachine", ("update",)),
    "virtualmachines/restart": ("VirtualMachine", ("update",)),
}


def group() -> Object:
    """Give the APIGroup; its preferred version is the first."""
    versions = [{"groupVersion": f"{SUBRESOURCES_GROUP}/{name}", "version": name} for name in SUBRESOURCES_VERSIONS]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": SUBRESOURCES_GROUP,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def groups() -> Object:
    """Give the APIGroupList of this server."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}


def resources(version: str) -> Object:
    """Give the APIResourceList of a version."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{SUBRESOURCES_GROUP}/{version}",
        "resources": [
            {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": list(verbs)}
            for name, (kind, verbs) in RESOURCES.items()
        ],
    }


def version() -> Object:
    """Give the engine's version under the names of Kubernetes' version.Info."""
    return {
        "gitVersion": f"v{__version__}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine()}",
    }


def openapi_v2() -> Object:
    """Give the OpenAPI v2 document: subresources take no documented bodies."""
    return {"swagger": "2.0", "info": {"title": "virt-api", "version": f"v{__version__}"}, "paths": {}}


def openapi_v3() -> Object:
    """Give the index of OpenAPI v3 documents: there are none."""
    return {"paths": {}}
