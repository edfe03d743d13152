# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares two answers: what may differ is made the same first, what does differ is listed by its place."""

from __future__ import annotations

import copy
import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from corpus import Request, dig, steps
from play import Answer

KNOWN = Path(__file__).parent / "differences.yaml"
ABSENT = "<absent>"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_AGE = re.compile(r"\d+(s|m|h|d)(\d+(s|m|h))?")
_SERVER = re.compile(r"\b\d+\.\d+\.\d+\.\d+:\d+")
#: Own versions of a server: numbers that are nowhere else in a message.
_VERSIONS = re.compile(r"(current: |too old resource version: \d+ \(|ResourceVersion in record \()\d+")
_WEBHOOK = re.compile(r"/(real|ours)/")


@dataclass(frozen=True)
class Difference:
    """A place at which the servers' answers differ."""

    path: str
    real: Any
    ours: Any


@dataclass(frozen=True)
class Known:
    """A difference that is meant: where it is to be found, and why."""

    id: str
    title: str
    reason: str
    #: A pattern of ``theme: request``, and one of the path.
    requests: tuple[str, ...]
    paths: tuple[str, ...]
    real: str
    ours: str
    #: A pattern of what differs: without it the values must be the same.
    alike: str = ""

    def matches(self, request: Request, difference: Difference) -> bool:
        """Whether this explains a difference."""
        return (
            any(fnmatch.fnmatchcase(request.id, one) for one in self.requests)
            and any(fnmatch.fnmatchcase(difference.path, one) for one in self.paths)
            and (not self.real or re.search(self.real, str(difference.real)) is not None)
            and (not self.ours or re.search(self.ours, str(difference.ours)) is not None)
            and (not self.alike or self._rest(difference.real) == self._rest(difference.ours))
        )

    def _rest(self, value: Any) -> str:
        return re.sub(self.alike, "", str(value))


def known() -> list[Known]:
    """Return the known differences."""
    entries = yaml.safe_load(KNOWN.read_text())["differences"]
    return [
        Known(
            entry["id"],
            entry["title"],
            entry["reason"],
            tuple(entry.get("requests", ["*"])),
            tuple(entry.get("paths", ["*"])),
            entry.get("real", ""),
            entry.get("ours", ""),
            entry.get("alike", ""),
        )
        for entry in entries
    ]


def differences(request: Request, real: Answer, ours: Answer) -> list[Difference]:
    """Return where two answers differ, when uids, times and versions are left out of account."""
    if real.code != ours.code:
        # What else differs follows from that.
        return [Difference("code", _summary(real), _summary(ours))]
    found = []
    for name in sorted({*real.headers, *ours.headers}):
        one, other = (_text(answer.headers.get(name, ABSENT)) for answer in (real, ours))
        if one != other:
            found.append(Difference(f"headers.{name}", one, other))
    first, second = (_normal(copy.deepcopy(answer.body), request.managed) for answer in (real, ours))
    for path, key in request.common.items():
        _keep_common(first, second, path, key)
    for path in request.unordered:
        for body in (first, second):
            _sort(body, path)
    for path in request.ignore:
        for body in (first, second):
            _drop(body, path)
    found += _columns(first, second)
    found += _repeated(first, second)
    found += _walk("body", first, second)
    return found


def _columns(real: Any, ours: Any) -> list[Difference]:
    """Return how the columns of two tables differ; those that only one has are taken out."""
    tables = [one for one in (real, ours) if isinstance(one, dict) and one.get("columnDefinitions")]
    names = [[column["name"] for column in one["columnDefinitions"]] for one in tables]
    if len(tables) < 2 or names[0] == names[1]:
        return []
    for table, own in zip(tables, names, strict=True):
        both = [place for place, name in enumerate(own) if name in names[0] and name in names[1]]
        table["columnDefinitions"] = [table["columnDefinitions"][place] for place in both]
        for row in table.get("rows") or ():
            row["cells"] = [row["cells"][place] for place in both]
    return [Difference("columns", *(", ".join(one) for one in names))]


def _summary(answer: Answer) -> str:
    message = answer.body.get("message", "") if isinstance(answer.body, dict) else ""
    return _text(f"{answer.code} {message}".rstrip())


def _normal(value: Any, managed: bool, key: str = "") -> Any:
    if isinstance(value, dict):
        result = {name: _normal(item, managed, name) for name, item in value.items()}
        if not managed and "managedFields" in result:
            del result["managedFields"]
        if "generateName" in result and str(result.get("name", "")).startswith(result["generateName"]):
            result["name"] = result["generateName"] + "<random>"
        return result
    if isinstance(value, list):
        return [_normal(item, managed, key) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if key == "resourceVersion":
        # 0 is no version of an object.
        return "0" if value == "0" else "<version>"
    if key == "continue":
        return "<token>"
    if key == "cells" and _AGE.fullmatch(value):
        return "<age>"
    return _text(value)


def _text(value: str) -> str:
    value = _TIME.sub("<time>", value)
    value = _UUID.sub("<uid>", value)
    value = _VERSIONS.sub(r"\1<version>", value)
    value = _WEBHOOK.sub("/<server>/", value)
    return _SERVER.sub("<address>", value)


def _keep_common(real: Any, ours: Any, path: str, key: str) -> None:
    lists = [dig(body, path) if path else body for body in (real, ours)]
    if not all(isinstance(one, list) for one in lists):
        return
    names = [{str(dig(item, key)) for item in one} for one in lists]
    for one in lists:
        one[:] = sorted(
            (item for item in one if str(dig(item, key)) in names[0] & names[1]), key=lambda item: str(dig(item, key))
        )


def _sort(body: Any, path: str) -> None:
    # What a request picks has its whole path for a name.
    found = body[path] if isinstance(body, dict) and path in body else dig(body, path)
    if isinstance(found, list):
        # Whatever order its members have
        found.sort(key=lambda item: json.dumps(item, sort_keys=True))


def _drop(body: Any, path: str) -> None:
    *parents, last = steps(path)
    _drop_in(body, parents, last)


def _drop_in(value: Any, parents: list[str], last: str) -> None:
    if not parents:
        if isinstance(value, dict):
            value.pop(last, None)
        elif isinstance(value, list) and int(last) < len(value):
            value[int(last)] = None
        return
    step, rest = parents[0], parents[1:]
    if isinstance(value, list):
        for index, item in enumerate(value):
            if step in ("*", str(index)):
                _drop_in(item, rest, last)
    elif isinstance(value, dict):
        for name, item in value.items():
            if step in ("*", name):
                _drop_in(item, rest, last)


def _repeated(real: Any, ours: Any) -> list[Difference]:
    """Take causes out that are listed more than once; return it as a difference where that is so in one list only."""
    counts = []
    for body in (real, ours):
        causes = dig(body, "details.causes") or []
        once = [one for place, one in enumerate(causes) if one not in causes[:place]]
        counts.append(len(causes) - len(once))
        if counts[-1]:
            body["details"]["causes"] = once
    return [Difference("repeated causes", *counts)] if counts[0] != counts[1] else []


def _walk(path: str, real: Any, ours: Any) -> Iterator[Difference]:
    if isinstance(real, dict) and isinstance(ours, dict):
        for name in sorted({*real, *ours}, key=str):
            yield from _walk(f"{path}.{name}", real.get(name, ABSENT), ours.get(name, ABSENT))
    elif isinstance(real, list) and isinstance(ours, list):
        for index in range(max(len(real), len(ours))):
            one = real[index] if index < len(real) else ABSENT
            other = ours[index] if index < len(ours) else ABSENT
            yield from _walk(f"{path}.{index}", one, other)
    elif real != ours or type(real) is not type(ours):
        yield Difference(path, real, ours)


def unexplained(
    request: Request, found: list[Difference], explanations: list[Known], seen: Callable[[Known], None]
) -> list[Difference]:
    """Return the differences that no known one explains; tell ``seen`` which known ones there were."""
    rest = []
    for difference in found:
        matching = [one for one in explanations if one.matches(request, difference)]
        for one in matching:
            seen(one)
        if not matching:
            rest.append(difference)
    return rest


def report(request: Request, real: Answer, ours: Answer, found: list[Difference]) -> str:
    """Return the differences for people to read."""
    what = f"{request.method} {request.path}" if not request.collect else f"events of the watch {request.collect}"
    lines = [f"{request.id}   ({what}, {real.code} and {ours.code})"]
    for one in found:
        lines += [f"  {one.path}", f"    Kubernetes: {one.real}", f"    standalone: {one.ours}"]
    return "\n".join(lines)
