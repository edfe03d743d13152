# SPDX-License-Identifier: GPL-3.0-or-later
"""What all rules share: types, ways through an object, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.language import NOT_SUPPORTED, Cause

Spec = Mapping[str, Any]
Causes = Iterator[Cause]
Rule = Callable[[Spec, str, ClusterConfiguration], Causes]

MAX_STRING = 256
SERIAL = re.compile(r"[A-Za-z0-9_.+-]+")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def one_of(value: Any, here: str, allowed: tuple[str, ...]) -> Causes:
    """Tell if a value is set and isn't one of those allowed."""
    if value and value not in allowed:
        yield Cause(NOT_SUPPORTED, f"{here} has invalid value {value}, must be one of: [{' '.join(allowed)}]", here)


def label_problems(name: str) -> list[str]:
    """Give what keeps a name from being a DNS label (RFC 1123), in Kubernetes' words."""
    problems = []
    if len(name) > 63:
        problems.append("must be no more than 63 characters")
    if not _LABEL.fullmatch(name):
        problems.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            f"'{_LABEL.pattern}')"
        )
    return problems


def subdomain_problems(name: str) -> list[str]:
    """Give what keeps a name from being a DNS subdomain (RFC 1123), in Kubernetes' words."""
    problems = []
    if len(name) > 253:
        return ["must be no more than 253 characters"]
    if not _SUBDOMAIN.fullmatch(name):
        problems.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SUBDOMAIN.pattern}')"
        )
    return problems
