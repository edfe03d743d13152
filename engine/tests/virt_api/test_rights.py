# SPDX-License-Identifier: GPL-3.0-or-later
"""What users' roles may do with subresources, where KubeVirt's differ from one another."""

from __future__ import annotations

import pytest

from turtles.virt_api import rights


def may(role: str, verb: str, resource: str) -> bool:
    rules = rights._rights()[role]
    return any(
        resource in rule["resources"] and verb in rule["verbs"] and "subresources.kubevirt.io" in rule["apiGroups"]
        for rule in rules
    )


@pytest.mark.parametrize(
    ("verb", "subresource", "roles"),
    [
        ("get", "console", {"admin", "edit"}),
        ("get", "vnc", {"admin", "edit"}),
        ("get", "vnc/screenshot", {"admin"}),
        ("get", "guestosinfo", {"admin", "edit", "view"}),
        ("get", "sev/fetchcertchain", {"admin", "edit", "view"}),
        ("get", "sev/querylaunchmeasurement", {"admin", "edit", "view"}),
        ("update", "sev/setupsession", {"admin", "edit"}),
        ("update", "pause", {"admin", "edit"}),
    ],
)
def test_who_may_use_a_subresource(verb: str, subresource: str, roles: set[str]) -> None:
    resource = f"virtualmachineinstances/{subresource}"
    assert {role for role in ("admin", "edit", "view") if may(role, verb, resource)} == roles
