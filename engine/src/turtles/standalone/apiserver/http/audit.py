# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: who asked for what, and what came of it.

A line a stage of a request, an ``audit.k8s.io/v1 Event`` as JSON. What is logged says a file of Kubernetes' own form,
``audit.k8s.io/v1 Policy``: the first rule that matches a request gives its level (None, Metadata, Request,
RequestResponse). Source: "Auditing" of the Kubernetes documentation.
"""

import json
import logging
import logging.handlers
import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from turtles.standalone.apiserver.access.auth import User, user_info
from turtles.standalone.apiserver.access.rbac import Attributes
from turtles.standalone.apiserver.wire import bodies
from turtles.standalone.apiserver.wire.errors import Object, StatusError
from turtles.standalone.apiserver.wire.options import readable

log = logging.getLogger(__name__)

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
RECEIVED, STARTED, COMPLETE = "RequestReceived", "ResponseStarted", "ResponseComplete"
_STAGES = (RECEIVED, STARTED, COMPLETE, "Panic")
#: Where a request keeps what is known of it for the log.
_NOTE, BODY = "audit", "body"


class PolicyError(Exception):
    """The policy file can't be used."""


@dataclass(frozen=True)
class Rule:
    """A rule of a policy; an empty tuple matches everything, ``resources`` and ``urls`` both empty all requests."""

    level: str
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    #: (API group, resources, names of objects)
    resources: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    urls: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    managed_fields: bool = True

    def matches(self, user: User, wanted: Attributes) -> bool:
        """Say whether the rule is about a request."""
        if self.users and user.name not in self.users:
            return False
        if self.groups and not set(self.groups) & set(user.groups):
            return False
        if self.verbs and wanted.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not self.resources and not self.urls and not self.namespaces:
            return True
        if wanted.path:
            return any(
                wanted.path == one or (one.endswith("*") and wanted.path.startswith(one[:-1])) for one in self.urls
            )
        if self.namespaces and wanted.namespace not in self.namespaces:
            return False
        if not self.resources:
            return not self.urls
        return any(_names(entry, wanted) for entry in self.resources)


def _names(entry: tuple[str, tuple[str, ...], tuple[str, ...]], wanted: Attributes) -> bool:
    group, resources, names = entry
    if group != wanted.group or (names and wanted.name not in names):
        return False
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    accepted = {
        "*",
        full,
        f"*/{wanted.subresource}" if wanted.subresource else "",
        f"{wanted.resource}/*" if wanted.subresource else "",
    }
    return not resources or any(one in accepted for one in resources)


@dataclass(frozen=True)
class Policy:
    """Which requests are logged, and how much of them."""

    rules: tuple[Rule, ...] = (Rule("Metadata"),)

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Return the policy in a file.

        :raises PolicyError: when it can't be read or isn't one.
        """
        try:
            document = yaml.safe_load(path.read_bytes())
            if not isinstance(document, dict) or document.get("kind") != "Policy":
                raise ValueError("kind must be Policy")
            everywhere = _stages(document.get("omitStages"))
            hidden = bool(document.get("omitManagedFields"))
            return cls(tuple(_rule(entry, everywhere, hidden) for entry in document["rules"]))
        except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise PolicyError(f"{path} is not a usable audit.k8s.io/v1 Policy: {error}") from None

    def rule(self, user: User, wanted: Attributes) -> Rule | None:
        """Return the rule for a request; None when it isn't logged."""
        rule = next((one for one in self.rules if one.matches(user, wanted)), None)
        return rule if rule is not None and rule.level != "None" else None


def _texts(values: Any) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{values!r} must be a list of strings")
    return tuple(values)


def _stages(values: Any) -> tuple[str, ...]:
    stages = _texts(values)
    for one in stages:
        if one not in _STAGES:
            raise ValueError(f"omitStages: {one!r} must be one of {', '.join(_STAGES)}")
    return stages


def _rule(entry: Any, everywhere: tuple[str, ...], hidden: bool) -> Rule:
    level = entry.get("level")
    if level not in LEVELS:
        raise ValueError(f"level {level!r} must be one of {', '.join(LEVELS)}")
    resources = tuple(
        (str(one.get("group") or ""), _texts(one.get("resources")), _texts(one.get("resourceNames")))
        for one in entry.get("resources") or ()
    )
    shown = entry.get("omitManagedFields")
    return Rule(
        level,
        _texts(entry.get("users")),
        _texts(entry.get("userGroups")),
        _texts(entry.get("verbs")),
        _texts(entry.get("namespaces")),
        resources,
        _texts(entry.get("nonResourceURLs")),
        (*everywhere, *_stages(entry.get("omitStages"))),
        not (hidden if shown is None else shown),
    )


class _File(logging.handlers.RotatingFileHandler):
    """A file of mode 0600 that is renamed when it is large; the server goes on when it can't be written."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return open(descriptor, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell the server's own log."""
        log.error("the audit log can't be written", extra={"path": self.baseFilename}, exc_info=True)


@dataclass
class _Note:
    """What is known of a request."""

    rule: Rule
    event: Object


class Audit:
    """Writes the log. Without a ``path`` it does nothing."""

    def __init__(
        self, path: Path | None = None, policy: Policy | None = None, megabytes: int = 100, backups: int = 10
    ) -> None:
        """Open the log.

        :param megabytes: size at which the file is renamed.
        :param backups: renamed files that are kept.
        :raises OSError: when the file can't be written.
        """
        self._policy = policy or Policy()
        self._file: _File | None = None
        if path is not None:
            self._file = _File(path, maxBytes=megabytes * 1_000_000, backupCount=max(1, backups))

    def received(self, request: web.BaseRequest, sender: User, user: User, wanted: Attributes) -> None:
        """Log that a request is here.

        :param sender: who sent it; ``user`` is who it is done as.
        """
        if self._file is None:
            return
        rule = self._policy.rule(sender, wanted)
        if rule is None:
            return
        event: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": rule.level,
            "auditID": readable(request.headers.get("Audit-Id", "")) or str(uuid.uuid4()),
            "stage": RECEIVED,
            "requestURI": request.raw_path,
            "verb": wanted.verb,
            "user": user_info(sender),
        }
        if user is not sender:
            event["impersonatedUser"] = user_info(user)
        event["sourceIPs"] = [request.remote] if request.remote else []
        event["userAgent"] = readable(request.headers.get("User-Agent", ""))
        if wanted.resource:
            names = {
                "resource": wanted.resource,
                "namespace": wanted.namespace,
                "name": wanted.name,
                "apiGroup": wanted.group,
                "apiVersion": wanted.version,
                "subresource": wanted.subresource,
            }
            event["objectRef"] = {name: value for name, value in names.items() if value}
        event["requestReceivedTimestamp"] = _now()
        request[_NOTE] = _Note(rule, event)
        self._tell(request[_NOTE], RECEIVED)

    def decided(self, request: web.BaseRequest, error: StatusError | None) -> None:
        """Note whether the request was allowed."""
        note: _Note | None = request.get(_NOTE)
        if note is not None:
            decision = {"authorization.k8s.io/decision": "forbid" if error else "allow"}
            note.event["annotations"] = {**decision, "authorization.k8s.io/reason": error.message if error else ""}

    def annotations(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the annotations of a request's event, to which others may be added."""
        note: _Note | None = request.get(_NOTE)
        annotations: dict[str, str] = note.event.setdefault("annotations", {}) if note is not None else {}
        return annotations

    def started(self, request: web.BaseRequest) -> None:
        """Log that a long answer begins."""
        note: _Note | None = request.get(_NOTE)
        if note is not None:
            note.event["responseStatus"] = {"metadata": {}, "code": 200}
            self._tell(note, STARTED)

    def completed(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Log what came of a request."""
        note: _Note | None = request.get(_NOTE)
        if note is None:
            return
        body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
        answer = _object(body, response.content_type) if body else None
        status: Object = {"metadata": {}, "code": response.status}
        if isinstance(answer, dict) and answer.get("kind") == "Status":
            status |= {name: answer[name] for name in ("status", "message", "reason") if answer.get(name)}
        note.event["responseStatus"] = status
        if note.rule.level in ("Request", "RequestResponse"):
            asked = _object(request.get(BODY, b""), request.content_type)
            if asked is not None:
                note.event["requestObject"] = _shown(asked, note.rule)
        if note.rule.level == "RequestResponse" and answer is not None:
            note.event["responseObject"] = _shown(answer, note.rule)
        self._tell(note, COMPLETE)

    def _tell(self, note: _Note, stage: str) -> None:
        if self._file is not None and stage not in note.rule.omitted:
            event = {**note.event, "stage": stage, "stageTimestamp": _now()}
            line = json.dumps(event, separators=(",", ":"), default=str)
            self._file.handle(logging.LogRecord("", logging.INFO, "", 0, line, None, None))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _object(raw: bytes, media_type: str) -> Any:
    """Return a body's data, None when it has none that can be shown."""
    if not raw:
        return None
    try:
        if media_type.endswith("yaml"):
            return bodies.parse_yaml(raw)
        return bodies.parse_json(raw) if media_type.endswith("json") else bodies.read(raw, media_type, "object")
    except (StatusError, ValueError, bodies.Unreadable):
        return None


def _shown(value: Any, rule: Rule) -> Any:
    if rule.managed_fields or not isinstance(value, dict):
        return value
    items = value.get("items")
    if isinstance(items, list):
        return {**value, "items": [_shown(one, rule) for one in items]}
    meta = value.get("metadata")
    if not isinstance(meta, dict):
        return value
    return {**value, "metadata": {name: inner for name, inner in meta.items() if name != "managedFields"}}
