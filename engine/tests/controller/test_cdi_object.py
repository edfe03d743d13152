# SPDX-License-Identifier: GPL-3.0-or-later
"""The object CDI: what it says, and what the CDIConfig gets of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakeapi import FakeApi

from turtles import __version__
from turtles.api.conditions import get_condition
from turtles.api.crd import crd
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.controller.cdi_object import AUTHORITY, active, plan

NOW = "2026-11-30T20:00:00Z"
GROUP = "/apis/cdi.kubevirt.io/v1beta1"
CONFIG = f"{GROUP}/cdiconfigs/config"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/datavolumes.cdi.kubevirt.io"


def cdi(name: str = "cdi", created: str = NOW, in_force: bool = True, **spec: Any) -> dict:
    annotations = {AUTHORITY: ""} if in_force else {}
    metadata = {"name": name, "uid": name, "creationTimestamp": created, "annotations": annotations}
    return {"kind": "CDI", "metadata": metadata, "spec": spec}


def config(**spec: Any) -> dict:
    return {"kind": "CDIConfig", "metadata": {"name": "config"}, "spec": spec}


def test_one_counts() -> None:
    first, second = cdi("z", "2026-01-01T00:00:00Z"), cdi("a")
    assert active([second, first]) is first
    first["metadata"]["deletionTimestamp"] = NOW
    assert active([second, first]) is second
    assert active([]) is None
    status = plan(first, second, config(), NOW).status
    assert status["phase"] == "Error"
    assert "CDI a is already in use" in (get_condition(status["conditions"], "Degraded") or {})["message"]


def test_its_settings_become_the_configs() -> None:
    wanted = {"filesystemOverhead": {"global": "0.1"}}
    decided = plan(cdi(config=wanted), cdi(), config(preallocation=True), NOW)
    assert (decided.config, decided.take_over) == (wanted, None)
    assert decided.status["phase"] == "Deployed"
    versions = {key: value for key, value in decided.status.items() if key.endswith("Version")}
    assert versions == dict.fromkeys(("operatorVersion", "targetVersion", "observedVersion"), f"v{__version__}")
    assert (get_condition(decided.status["conditions"], "Available") or {})["reason"] == "DeployCompleted"
    # None in it: none in force
    assert plan(cdi(), cdi(), config(preallocation=True), NOW).config == {}
    # virt-api creates it
    assert plan(cdi(config=wanted), cdi(), None, NOW).config is None


def test_a_new_one_takes_over_what_was_in_force() -> None:
    decided = plan(cdi(in_force=False), cdi(), config(preallocation=True), NOW)
    assert decided.take_over == {
        "metadata": {"annotations": {AUTHORITY: ""}},
        "spec": {"config": {"preallocation": True}},
    }
    assert decided.config == {"preallocation": True}
    # Unless it says something itself
    decided = plan(cdi(in_force=False, config={}), cdi(), config(preallocation=True), NOW)
    assert (decided.take_over, decided.config) == ({"metadata": {"annotations": {AUTHORITY: ""}}}, {})


def test_with_an_api_server(api: FakeApi, start: Callable[..., Any]) -> None:
    api.put(CRD, crd(DATA_VOLUME))
    api.put(CONFIG, config(preallocation=True, insecureRegistries=["a:5000"]))
    start()
    path = f"{GROUP}/cdis/cdi"
    api.put(
        path,
        {"kind": "CDI", "metadata": {"name": "cdi"}, "spec": {"config": {"filesystemOverhead": {"global": "0.1"}}}},
    )
    api.wait(lambda: (api.objects[path].get("status") or {}).get("phase") == "Deployed")
    api.wait(lambda: api.objects[CONFIG]["spec"] == {"filesystemOverhead": {"global": "0.1"}})
    api.wait(lambda: ((api.objects[CONFIG].get("status") or {}).get("filesystemOverhead") or {}).get("global") == "0.1")
    # What somebody else writes there doesn't last
    api.update(CONFIG, {"spec": {"preallocation": True}})
    api.wait(lambda: "preallocation" not in api.objects[CONFIG]["spec"])
    api.put(f"{GROUP}/cdis/other", {"kind": "CDI", "metadata": {"name": "other"}, "spec": {}})
    api.wait(lambda: (api.objects[f"{GROUP}/cdis/other"].get("status") or {}).get("phase") == "Error")
    assert api.objects[CONFIG]["spec"] == {"filesystemOverhead": {"global": "0.1"}}


@pytest.mark.parametrize("manager", ["cdi-operator"])
def test_upstreams_is_left_alone(api: FakeApi, start: Callable[..., Any], manager: str) -> None:
    theirs = crd(DATA_VOLUME)
    theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": manager}
    api.put(CRD, theirs)
    api.put(CONFIG, config())
    path = f"{GROUP}/cdis/cdi"
    api.put(path, {"kind": "CDI", "metadata": {"name": "cdi"}, "spec": {"config": {"preallocation": True}}})
    start()
    api.wait(lambda: any(each[1].endswith("/cdis") for each in api.requests))
    assert api.objects[CONFIG]["spec"] == {}
    assert "status" not in api.objects[path]
