# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api import migrations
from turtles.api.configuration import DEFAULT
from turtles.api.kinds.migration_policy import applied, matching, validate


def make(name: str = "p", of_instance: Any = None, of_namespace: Any = None, **spec: Any) -> dict[str, Any]:
    selectors = {"virtualMachineInstanceSelector": of_instance or {}, "namespaceSelector": of_namespace or {}}
    return {"metadata": {"name": name}, "spec": {"selectors": selectors, **spec}}


@pytest.mark.parametrize(
    ("policies", "name"),
    [
        ([], None),
        ([make("nothing")], None),
        ([make("a", {"app": "web"})], "a"),
        ([make("a", {"app": "db"})], None),
        ([make("a", {"app": "web"}, {"team": "other"})], None),
        ([make("a", {"app": "web"}), make("b", {"app": "web"}, {"team": "shop"})], "b"),
        # As many labels: the instance's count more
        ([make("a", {"app": "web"}, {"team": "shop"}), make("b", {"app": "web", "tier": "front"})], "b"),
        ([make("b", {"app": "web"}), make("a", {"tier": "front"})], "a"),
    ],
)
def test_the_most_specific_one_counts(policies: list[dict[str, Any]], name: str | None) -> None:
    found = matching(policies, {"app": "web", "tier": "front"}, {"team": "shop"})
    assert (found and found["metadata"]["name"]) == name


def test_its_settings_take_the_place_of_the_installations() -> None:
    before = migrations.configuration(DEFAULT)
    assert applied(before, None) == before
    found = applied(before, make(bandwidthPerMigration="64Mi", allowPostCopy=True))
    assert (found["bandwidthPerMigration"], found["allowPostCopy"], found["allowWorkloadDisruption"]) == (
        "64Mi",
        True,
        True,
    )
    assert found["completionTimeoutPerGiB"] == before["completionTimeoutPerGiB"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"completionTimeoutPerGiB": -1}, "spec.completionTimeoutPerGiB"),
        ({"bandwidthPerMigration": "-1Mi"}, "spec.bandwidthPerMigration"),
        ({"allowPostCopy": "yes"}, "spec.allowPostCopy"),
    ],
)
def test_what_is_refused(spec: dict[str, Any], field: str) -> None:
    (cause,) = validate(make(of_instance={"a": "b"}, **spec))
    assert cause.field == field
    assert validate(make(of_instance={"a": "b"}, bandwidthPerMigration="64Mi", completionTimeoutPerGiB=5)) == []
