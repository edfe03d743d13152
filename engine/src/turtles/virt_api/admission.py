# SPDX-License-Identifier: GPL-3.0-or-later
"""The admission webhooks: AdmissionReview in, AdmissionReview out. Defaults and rules are those of `turtles.api.kinds`.

Reviews are answered immediately, except for checks that ask the API server (`turtles.virt_api.checks`).

Protocol: Kubernetes documentation, "Dynamic Admission Control" (admission.k8s.io/v1).
"""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import msgspec

from turtles.api import times
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.kind import CREATE, DELETE, UPDATE, Context, Kind, Refusal, find_nothing, no_others
from turtles.api.kinds import KINDS
from turtles.api.language import Cause
from turtles.api.objects import Object, get, is_deleted
from turtles.virt_api import status

log = logging.getLogger(__name__)

Review = Callable[[Object], Object]
#: Returns what is wrong with an AdmissionReview's request. It asks the API server, and may raise ApiError.
Check = Callable[[Object], list[Cause]]

_ALLOWED: Object = {"allowed": True}
#: Which node the Pod is on that a token of a service account is bound to (Kubernetes 1.30 and later).
_NODE_NAME = "authentication.kubernetes.io/node-name"

_encode = msgspec.json.Encoder().encode


def engine_users(namespace: str) -> tuple[str, ...]:
    """Return the user names of the engine's own service accounts."""
    return tuple(
        f"system:serviceaccount:{namespace}:{name}" for name in ("virt-api", "virt-controller", "virt-handler")
    )


class Admission:
    """The webhooks of one installation, for all kinds.

    :param users: the engine's own: only they write statuses and reserved labels.
    :param checks: by the names under which kinds refer to them.
    :param others: returns the objects of a kind that another reads, in a namespace (`Context.others`).
    :param find: returns an object of a kind that another looks up (`Context.find`). It asks the API server.
    """

    def __init__(
        self,
        users: Sequence[str],
        config: ClusterConfiguration = DEFAULT,
        checks: Mapping[str, Check] | None = None,
        others: Callable[[str, str], Sequence[Object]] = no_others,
        find: Callable[[str, str, str], Object] = find_nothing,
    ) -> None:
        self._users = frozenset(users)
        self._config = config
        self._checks = checks or {}
        self._others = others
        self._find = find
        #: How many objects were admitted that somebody creates, by kind and namespace.
        self.created: Counter[tuple[str, str]] = Counter()
        #: Paths whose review asks the API server, and so takes a while.
        self.slow: set[str] = set()
        self.reviews: dict[str, Review] = {}
        for kind in KINDS:
            for webhook in kind.webhooks:
                review = self._mutate if webhook.mutating else self._validate
                self.reviews[webhook.path] = partial(self._validate_status if webhook.status else review, kind)
                if kind.looks_up or (kind.check and not webhook.mutating):
                    self.slow.add(webhook.path)

    @property
    def configuration(self) -> ClusterConfiguration:
        """The configuration in use."""
        return self._config

    def configure(self, config: ClusterConfiguration) -> None:
        """Use another configuration, from the next review on."""
        self._config = config

    def add(self, path: str, review: Review) -> None:
        """Add another webhook, which asks the API server before it answers."""
        self.reviews[path] = review
        self.slow.add(path)

    def review(self, path: str, body: Any) -> Object:
        """Answer one AdmissionReview.

        Raises status.Failure if the body isn't one, or the path isn't a webhook's.
        """
        review = self.reviews.get(path)
        if review is None:
            raise status.Failure(404, status.NO_SUCH_PATH)
        request = body.get("request") if isinstance(body, dict) else None
        if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
            raise status.Failure(400, "the body is not an AdmissionReview with a request")
        _complete(request)
        response = review(request)
        response["uid"] = request["uid"]
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    def _context(self, request: Object) -> Context:
        user = get(request, "userInfo", "username")
        node = _node(request) if user in self._users and user.endswith(":virt-handler") else None
        # What is looked up twice for one request is asked for once
        writer = request.get("userInfo") or {}
        return Context(self._config, user in self._users, node, times.now(), self._others, cache(self._find), writer)

    def _mutate(self, kind: Kind, request: Object) -> Object:
        new, old = request.get("object"), request.get("oldObject")
        if not isinstance(new, dict):
            return dict(_ALLOWED)
        after = new
        try:
            if request.get("operation") != UPDATE:
                if kind.default:
                    after = kind.default(new, self._context(request))
            elif kind.default_update and isinstance(old, dict):
                after = kind.default_update(new, old, self._context(request))
        except Refusal as error:
            return _refused(error)
        return _patched(new, after)

    def _validate(self, kind: Kind, request: Object) -> Object:
        operation, new = request.get("operation"), request.get("object")
        context = self._context(request)
        causes: list[Cause] = []
        try:
            if operation == UPDATE and kind.validate_update:
                causes = kind.validate_update(new, request.get("oldObject"), context)
            elif operation != DELETE and kind.validate:
                causes = kind.validate(new, context)
        except Refusal as error:
            return _refused(error)
        if kind.check and not causes:
            causes = self._checks[kind.check](request)
        if operation == CREATE and not causes and not request.get("dryRun"):
            self.created[kind.kind, str(request.get("namespace") or "")] += 1
        return judged(causes, _remedies(kind, new) if causes else _warnings(kind, new, context))

    def _validate_status(self, kind: Kind, request: Object) -> Object:
        assert kind.validate_status
        return judged(kind.validate_status(request.get("object"), request.get("oldObject"), self._context(request)))


def _node(request: Object) -> str | None:
    names = (get(request, "userInfo", "extra") or {}).get(_NODE_NAME)
    return str(names[0]) if isinstance(names, list) and names else None


def _refused(error: Refusal) -> Object:
    return {"allowed": False, "status": status.failure(error.code, str(error))}


def _complete(request: Object) -> None:
    """Give a request's object its namespace: Kubernetes before 1.21 stores it after admission only."""
    namespace, obj = request.get("namespace"), request.get("object")
    if namespace and isinstance(obj, dict) and isinstance(obj.get("metadata"), dict):
        obj["metadata"].setdefault("namespace", namespace)


def _warnings(kind: Kind, obj: Any, context: Context) -> list[str]:
    """Return the warnings about an object that is admitted. One that is being deleted draws none."""
    if not isinstance(obj, dict) or is_deleted(obj):
        return []
    return [*(kind.warn(obj) if kind.warn else ()), *(kind.missing(obj, context) if kind.missing else ())]


def _remedies(kind: Kind, obj: Any) -> list[str]:
    """Return what to write instead in an object that is refused."""
    return kind.remedies(obj) if kind.remedies else []


def judged(causes: Sequence[Cause], warnings: Sequence[str] = ()) -> Object:
    """Return the response that refuses an object for the causes, or admits it where there are none."""
    response: Object = {"allowed": False, "status": status.invalid(causes)} if causes else {"allowed": True}
    if warnings:
        response["warnings"] = list(warnings)
    return response


def _patched(before: Object, after: Object) -> Object:
    """Return the response that turns `before` into `after`: a JSON patch (RFC 6902) of whole parts."""
    operations: list[Object] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key == "metadata" and isinstance(old, dict) and isinstance(new, dict):
            # Only what changed: the API server has its own view of the rest
            operations += [
                {"op": "add", "path": f"/metadata/{name}", "value": value}
                for name, value in new.items()
                if old.get(name) != value
            ]
        elif new is None:
            operations.append({"op": "remove", "path": f"/{key}"})
        else:
            operations.append({"op": "add", "path": f"/{key}", "value": new})
    if not operations:
        return dict(_ALLOWED)
    return {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(_encode(operations)).decode()}
