# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus: themes of requests, read from ``corpus/*.yaml``.

A theme is played in order, in a namespace of its own. Its keys:

- ``about``: a sentence.
- ``objects``: templates by name. ``{of: pod, set: {spec.a: 1}, drop: [spec.b]}`` anywhere in a body is one of them,
  changed; numbers in the dotted paths are places in lists.
- ``requests``: the requests, see :class:`Request`.
- ``cleanup``: paths to delete at the end, beside the namespace.

``$ns`` (the namespace), ``$id`` (a few letters of the run) and what requests ``save`` are filled into paths, headers,
bodies and ``pick``. A path that doesn't begin with ``/`` is one of core/v1 in the namespace.

A request that is new or changed has no recorded answer; one that changes what later requests of its theme meet makes
theirs wrong. So add requests at a theme's end, or in a theme of their own, until the next recording.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "corpus"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")
PATCHES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
ACCEPTS = {
    "table": "application/json;as=Table;v=v1;g=meta.k8s.io",
    "metadata": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "metadatalist": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
}


@dataclass
class Request:
    """One request, or the end of a watch."""

    theme: str
    name: str
    method: str = "GET"
    path: str = ""
    #: An object, ``{of: …}``; text is sent as it is.
    body: Any = None
    #: Content-Type; the patch types have short names.
    type: str = "application/json"
    headers: dict[str, Any] = field(default_factory=dict)
    #: Impersonated user and groups.
    user: str = ""
    groups: list[str] = field(default_factory=list)
    #: Bearer token instead of the administrator's credentials; '' for none at all.
    token: str | None = None
    #: Variables to take from the answer: name -> dotted path.
    save: dict[str, str] = field(default_factory=dict)
    #: Repeat until the answer's code, or the values at dotted paths, are these.
    until: dict[str, Any] = field(default_factory=dict)
    #: Open a watch under this name.
    watch: str = ""
    #: Take that many events from the watch of this name and close it.
    collect: str = ""
    events: int = 0
    #: Compare only these parts of the body.
    pick: list[str] = field(default_factory=list)
    #: Lists (dotted path -> key) of which only items that both servers have are compared.
    common: dict[str, str] = field(default_factory=dict)
    #: Lists that have no order.
    unordered: list[str] = field(default_factory=list)
    #: Parts of the body that aren't compared.
    ignore: list[str] = field(default_factory=list)
    #: Compare metadata.managedFields as well.
    managed: bool = False
    #: What the answer's code must be on the real server, so that a request tests what it means to.
    code: int = 0

    @property
    def id(self) -> str:
        """Name in the whole corpus."""
        return f"{self.theme}: {self.name}"


@dataclass
class Theme:
    """Requests that are played in order."""

    name: str
    about: str
    requests: list[Request]
    cleanup: list[str]
    #: Needs a program on this machine that the servers call.
    calls_back: bool = False


def load() -> list[Theme]:
    """Return all themes, in the order of their files' names."""
    return [_theme(path) for path in sorted(FOLDER.glob("*.yaml"))]


def _theme(path: Path) -> Theme:
    data = yaml.safe_load(path.read_text())
    name = path.stem
    requests = [_request(name, entry, data.get("objects", {})) for entry in data["requests"]]
    names = [one.name for one in requests]
    twice = {one for one in names if names.count(one) > 1}
    if twice:
        raise ValueError(f"{path}: more than one request is named {', '.join(sorted(twice))}")
    return Theme(name, data["about"], requests, data.get("cleanup", []), bool(data.get("calls_back")))


def _request(theme: str, entry: dict[str, Any], objects: dict[str, Any]) -> Request:
    entry = dict(entry)
    method = next((one for one in METHODS if one in entry), "")
    if method:
        entry["method"], entry["path"] = method, entry.pop(method)
    elif "collect" not in entry:
        raise ValueError(f"{theme}: {entry.get('name')}: no method")
    if "as" in entry:
        entry["user"] = entry.pop("as")
    if "accept" in entry:
        accept = entry.pop("accept")
        entry["headers"] = {**entry.get("headers", {}), "Accept": ACCEPTS.get(accept, accept)}
    if method == "PATCH":
        entry["type"] = PATCHES.get(entry.get("type", "merge"), entry.get("type", ""))
    if "body" in entry:
        entry["body"] = expand(entry["body"], objects)
    entry.setdefault("name", f"{method} {entry.get('path', '')}")
    return Request(theme, **entry)


def expand(value: Any, objects: dict[str, Any]) -> Any:
    """Return a body with its templates filled in."""
    if isinstance(value, list):
        return [expand(item, objects) for item in value]
    if not isinstance(value, dict):
        return value
    if "of" not in value or value["of"] not in objects:
        return {key: expand(item, objects) for key, item in value.items()}
    result = expand(copy.deepcopy(objects[value["of"]]), objects)
    for path, item in value.get("set", {}).items():
        *parents, last = steps(path)
        target = result
        for step in parents:
            target = target.setdefault(step, {}) if isinstance(target, dict) else target[int(step)]
        if isinstance(target, list):
            position = int(last)
            target[position : position + 1] = [expand(item, objects)]
        else:
            target[last] = expand(item, objects)
    for path in value.get("drop", []):
        *parents, last = steps(path)
        target = result
        for step in parents:
            target = target[int(step)] if isinstance(target, list) else target[step]
        del target[int(last) if isinstance(target, list) else last]
    return result


def steps(path: str) -> list[str]:
    """Return the steps of a dotted path; a backslash keeps a dot within its step."""
    return [step.replace("\0", ".") for step in path.replace("\\.", "\0").split(".")]


def dig(value: Any, path: str) -> Any:
    """Return what is at a dotted path, None where there is nothing."""
    for step in steps(path):
        if isinstance(value, list) and step.lstrip("-").isdigit() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value
