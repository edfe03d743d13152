# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission says about the object CDI."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kinds.cdi import validate, warn


def cdi(**spec: Any) -> dict:
    return {"metadata": {"name": "cdi"}, "spec": spec}


def test_what_is_sound() -> None:
    assert validate(cdi()) == []
    spec = {"imagePullPolicy": "IfNotPresent", "infra": {"nodeSelector": {"a": "b"}}, "config": {"preallocation": True}}
    assert validate(cdi(**spec)) == []
    assert warn(cdi(**spec)) == [f"spec.{name} has no effect in this engine" for name in ("imagePullPolicy", "infra")]


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (cdi(config={"filesystemOverhead": {"global": "2"}}), "spec.config.filesystemOverhead.global"),
        (cdi(config={"importProxy": {"HTTPProxy": "proxy"}}), "spec.config.importProxy.HTTPProxy"),
        (cdi(config={"featureGates": ["X"]}), "spec.config.featureGates"),
        (cdi(uninstallStrategy="Never"), "spec.uninstallStrategy"),
    ],
)
def test_what_is_refused(obj: dict, field: str) -> None:
    assert [cause.field for cause in validate(obj)] == [field]
