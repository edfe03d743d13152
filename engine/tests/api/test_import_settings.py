# SPDX-License-Identifier: GPL-3.0-or-later
"""What a CDIConfig says about imports."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.import_settings import DEFAULT, ImportSettings, status
from turtles.api.kinds.cdi_config import validate


def config(**spec: Any) -> dict:
    return {"metadata": {"name": "config"}, "spec": spec}


FULL = config(
    uploadProxyURLOverride="https://uploads.example.com",
    filesystemOverhead={"global": "0.1", "storageClass": {"fast": "0"}},
    scratchSpaceStorageClass="scratch",
    insecureRegistries=["registry.example.com:5000"],
    importProxy={"HTTPProxy": "http://proxy:3128", "HTTPSProxy": "http://proxy:3128", "noProxy": ".example.com"},
    preallocation=True,
)


def test_nobody_says_anything() -> None:
    for nothing in (None, {}, config(), {"metadata": {"name": "config"}}):
        assert ImportSettings.of(nothing) == DEFAULT
        assert validate(nothing) == []
    assert DEFAULT.overhead_of("any") == 0.06


def test_what_is_said() -> None:
    assert validate(FULL) == []
    settings = ImportSettings.of(FULL)
    assert [settings.overhead_of(name) for name in ("fast", "slow", None)] == [0.0, 0.1, 0.1]
    assert (settings.scratch_class, settings.preallocation) == ("scratch", True)
    assert settings.insecure == {"registry.example.com:5000"}
    assert settings.proxies["NO_PROXY"] == ".example.com"
    said = status(FULL, ["slow", "fast"])
    assert said["filesystemOverhead"] == {"global": "0.1", "storageClass": {"fast": "0", "slow": "0.1"}}
    assert said["importProxy"]["HTTPProxy"] == "http://proxy:3128"
    assert status(config(), ["a"])["filesystemOverhead"] == {"global": "0.06", "storageClass": {"a": "0.06"}}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"filesystemOverhead": {"global": "6%"}}, "spec.filesystemOverhead.global"),
        ({"filesystemOverhead": {"global": "1"}}, "spec.filesystemOverhead.global"),
        ({"filesystemOverhead": {"storageClass": {"a": "-1"}}}, "spec.filesystemOverhead.storageClass[a]"),
        ({"importProxy": {"HTTPProxy": "proxy"}}, "spec.importProxy.HTTPProxy"),
        ({"importProxy": {"trustedCAProxy": "ca"}}, "spec.importProxy.trustedCAProxy"),
        ({"podResourceRequirements": {"limits": {"cpu": "4"}}}, "spec.podResourceRequirements"),
    ],
)
def test_what_is_refused(spec: dict, path: str) -> None:
    (cause,) = validate(config(**spec))
    assert cause.field == path
