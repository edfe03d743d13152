# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets at admission: read by watches, applied on creation, never passed over."""

from __future__ import annotations

from typing import Any

import pytest
from api.objects import talk_vmi

from turtles.virt_api.admission import Admission
from turtles.virt_api.caches import Caches
from turtles.virt_api.status import Failure

from .fakes import FakeClient

PATH = "/virtualmachineinstances-mutate"


def preset(name: str, cores: int) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {}, "domain": {"devices": {}, "cpu": {"cores": cores}}}}


def review(*presets: dict[str, Any], operation: str = "CREATE") -> dict[str, Any]:
    request = {"uid": "1", "operation": operation, "object": talk_vmi(), "oldObject": talk_vmi()}
    admission = Admission((), others=lambda kind, namespace: presets)
    response: dict[str, Any] = admission.review(PATH, {"request": request})["response"]
    return response


def test_presets_that_contradict_each_other_are_an_answer_of_422() -> None:
    response = review(preset("small", 1), preset("large", 8))
    assert not response["allowed"]
    assert response["status"]["code"] == 422
    assert response["status"]["message"].startswith(
        "VirtualMachinePresets cannot be applied due to conflicts: presets "
    )


def test_updates_have_nothing_to_do_with_presets() -> None:
    assert review(preset("small", 1), preset("large", 8), operation="UPDATE") == {"allowed": True, "uid": "1"}


def test_nothing_is_admitted_before_the_presets_are_known() -> None:
    caches = Caches(FakeClient())  # type: ignore[arg-type]
    with pytest.raises(Failure) as refused:
        caches.objects("VirtualMachineInstancePreset", "default")
    assert refused.value.code == 503
    assert len(caches.informers) == 3, "presets, and migrations and restores that others might come on top of"
