# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions made from kinds and model."""

from __future__ import annotations

from typing import Any

from turtles.api import kinds, model
from turtles.api.kinds import Column, Kind

_API_VERSION = "Version of the API the object is written in."
_KIND = "Kind of the object."


def crd(kind: Kind) -> dict[str, Any]:
    """Give the CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind.

    All versions share one schema, so none needs a conversion webhook.
    """
    schema = _schema(kind)
    versions = []
    for version in kind.versions:
        entry: dict[str, Any] = {
            "name": version.name,
            "served": True,
            "storage": version.storage,
            "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [_column(column) for column in kind.columns],
        }
        if kind.status_subresource:
            entry["subresources"] = {"status": {}}
        if version.deprecation_warning:
            entry["deprecated"] = True
            entry["deprecationWarning"] = version.deprecation_warning
        versions.append(entry)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "kubevirt"}},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": kind.list_kind,
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": list(kind.categories),
            },
            "conversion": {"strategy": "None"},
            "versions": versions,
        },
    }


def crds() -> list[dict[str, Any]]:
    """Give the CustomResourceDefinitions of all kinds."""
    return [crd(kind) for kind in kinds.KINDS]


def _schema(kind: Kind) -> dict[str, Any]:
    root = model.MODELS[kind.kind]
    schema = root.openapi()
    schema["description"] = root.doc
    schema["properties"] = {
        "apiVersion": {"description": _API_VERSION, "type": "string"},
        "kind": {"description": _KIND, "type": "string"},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    return schema


def _column(column: Column) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        entry["description"] = column.description
    if column.priority:
        entry["priority"] = column.priority
    return entry
