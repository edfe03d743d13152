# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from turtles.api.cdi import PRE_POPULATED
from turtles.kube.resources import PVC
from turtles.virt_api.checks import DataVolumeCheck

from .fakes import FakeClient

CLAIM = {"metadata": {"name": "disk", "namespace": "ns"}}


def ask(*claims: dict, operation: str = "CREATE", annotations: dict | None = None) -> list[str]:
    check = DataVolumeCheck(FakeClient(*((PVC, claim) for claim in claims)))  # type: ignore[arg-type]
    metadata = {"name": "disk", "annotations": annotations or {}}
    request = {"operation": operation, "namespace": "ns", "object": {"metadata": metadata}}
    return [cause.message for cause in check(request)]


def test_a_claim_that_exists() -> None:
    assert ask() == []
    assert ask(CLAIM) == ["Destination PVC ns/disk already exists"]
    assert ask(CLAIM, operation="UPDATE") == []


@pytest.mark.parametrize(("name", "refused"), [("disk", False), ("other", True)])
def test_a_claim_that_is_said_to_be_filled(name: str, refused: bool) -> None:
    assert bool(ask(CLAIM, annotations={PRE_POPULATED: name})) is refused
