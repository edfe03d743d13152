# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that ask what the user of a request may do."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from turtles.standalone.apiserver.schema.cel.library.function import Function, Tagged, member, tagged_value

AUTHORIZER, PATH_CHECK, GROUP_CHECK = "kubernetes.authorization.Authorizer", "PathCheck", "GroupCheck"
RESOURCE_CHECK, DECISION = "ResourceCheck", "Decision"


class AccessCheck(Protocol):
    """Answers what the variable ``authorizer`` is asked."""

    def __call__(self, wanted: dict[str, str]) -> bool:
        """Say whether the request's user may do what is wanted."""


#: Who answers ``authorizer`` during an evaluation.
ACCESS: ContextVar[AccessCheck | None] = ContextVar("ACCESS", default=None)


def _authz(value: Tagged, **more: str) -> Tagged:
    return {"@authz": {**tagged_value(value, "@authz"), **more}}


def _check(value: Tagged, verb: str) -> Tagged:
    access = ACCESS.get()
    wanted = {**tagged_value(value, "@authz"), "verb": verb}
    return {"@decision": bool(access is not None and access(wanted))}


def _service_account(value: Tagged, namespace: str, name: str) -> Tagged:
    return _authz(value, user=f"system:serviceaccount:{namespace}:{name}")


FUNCTIONS: tuple[Function, ...] = (
    member("path", PATH_CHECK, lambda value, path: _authz(value, path=path), AUTHORIZER, "string"),
    member("group", GROUP_CHECK, lambda value, group: _authz(value, group=group), AUTHORIZER, "string"),
    member("serviceAccount", AUTHORIZER, _service_account, AUTHORIZER, "string", "string"),
    member("resource", RESOURCE_CHECK, lambda value, name: _authz(value, resource=name), GROUP_CHECK, "string"),
    member(
        "subresource", RESOURCE_CHECK, lambda value, name: _authz(value, subresource=name), RESOURCE_CHECK, "string"
    ),
    member("namespace", RESOURCE_CHECK, lambda value, name: _authz(value, namespace=name), RESOURCE_CHECK, "string"),
    member("name", RESOURCE_CHECK, lambda value, name: _authz(value, name=name), RESOURCE_CHECK, "string"),
    member("check", DECISION, _check, PATH_CHECK, "string"),
    member("check", DECISION, _check, RESOURCE_CHECK, "string"),
    member("allowed", "bool", lambda value: tagged_value(value, "@decision"), DECISION),
    member("errored", "bool", lambda value: False, DECISION),
    member("error", "string", lambda value: "", DECISION),
    member("reason", "string", lambda value: "", DECISION),
)
