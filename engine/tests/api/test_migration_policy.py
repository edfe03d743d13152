# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api import migrations
from turtles.api.configuration import DEFAULT
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import Context
from turtles.api.kinds.migration_policy import applied, matching, validate, validate_update, warn


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


STALLS, DOWNTIME = "MigrationStallDetection", "MigrationDowntimeTuning"
TRIED_OUT = {
    "maxDowntimeMs": (500, "maxDowntimeMs", f"{STALLS} or {DOWNTIME}"),
    "downtimeTuning": ({"downtimeTuning": {"steps": 3}}, "experimental.downtimeTuning", DOWNTIME),
    "stallDetector": ({"stallDetector": {"stallMargin": 5}}, "experimental.stallDetector", STALLS),
}


def with_gates(*names: str) -> Context:
    spec = {"configuration": {"developerConfiguration": {"featureGates": list(names)}}}
    return Context(config=from_kubevirt({"spec": spec}))


@pytest.mark.parametrize("name", TRIED_OUT)
def test_what_is_tried_out_needs_a_gate(name: str) -> None:
    value, path, gates = TRIED_OUT[name]
    policy = make(of_instance={"a": "b"}, **{path.partition(".")[0]: value})
    (cause,) = validate(policy)
    message = f"{path} cannot be modified without enabling the {gates} feature gate"
    assert (cause.type, cause.message, cause.field) == ("FieldValueInvalid", message, f"spec.{path}")
    assert validate(policy, with_gates(gates.rpartition(" ")[2])) == []
    # What is there already stays
    assert validate_update({**policy, "metadata": {"name": "p", "labels": {}}}, policy) == []
    assert all("has no effect in this engine" in warning for warning in warn(policy))
    assert bool(warn(policy)) == (name != "maxDowntimeMs")


def test_compression_needs_no_gate() -> None:
    assert validate(make(of_instance={"a": "b"}, experimental={"compression": "zstd"})) == []
    (cause,) = validate(make(of_instance={"a": "b"}, experimental={"compression": "lz4"}))
    assert cause.field == "spec.experimental.compression"
    assert warn(make(experimental={"compression": "none"})) == []


@pytest.mark.parametrize(
    ("factor", "value", "message"),
    [
        ("ewmaAlpha", "0", "must be greater than 0"),
        ("ewmaAlpha", "1.5", "must be less than or equal to 1"),
        ("ewmaAlpha", "-0.5", 'invalid scalar "-500m": must not be negative'),
        ("precopyPossibleFactor", "0.5", "must be greater than or equal to 1"),
        ("patienceWindowDecayFactor", 2, "must be less than or equal to 1"),
        ("completionTimeoutFactor", "0", "must be greater than or equal to 1"),
    ],
)
def test_factors(factor: str, value: Any, message: str) -> None:
    spec = {"experimental": {"stallDetector": {factor: value}}}
    (cause,) = validate(make(of_instance={"a": "b"}, **spec), with_gates(STALLS))
    assert (cause.message, cause.field) == (message, f"spec.experimental.stallDetector.{factor}")
