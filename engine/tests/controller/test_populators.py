# SPDX-License-Identifier: GPL-3.0-or-later
"""Populators against an API server: the test plays the user, the storage and the kubelet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakeapi import FakeApi
from test_data_volume_plan import AT_ONCE
from test_populator_plan import claim, source

from turtles.api.crd import crd
from turtles.api.kinds.data_volume import DATA_VOLUME

BASE = "/api/v1/namespaces/ns"
CLAIM = f"{BASE}/persistentvolumeclaims/disk"
CDI = "/apis/cdi.kubevirt.io/v1beta1/namespaces/ns"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/datavolumes.cdi.kubevirt.io"
VOLUME = "/api/v1/persistentvolumes/pv"


@pytest.fixture
def begin(api: FakeApi, start: Callable[..., Any]) -> Callable[..., None]:
    """Start the controller."""

    def begin(definition: dict | None = None) -> None:
        api.put(CRD, definition or crd(DATA_VOLUME))
        api.put("/apis/storage.k8s.io/v1/storageclasses/at-once", {**AT_ONCE, "kind": "StorageClass"})
        start()

    return begin


def told(api: FakeApi) -> list[str]:
    return [str(each["reason"]) for each in list(api.objects.values()) if each.get("kind") == "Event"]


def test_from_a_claim_to_a_disk(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    wanted = claim()
    del wanted["metadata"]["uid"]
    api.put(CLAIM, {**wanted, "kind": "PersistentVolumeClaim", "apiVersion": "v1"})
    api.wait(lambda: "doesn't exist" in str(api.objects[CLAIM]))
    api.put(f"{CDI}/volumeimportsources/web", {**source(), "kind": "VolumeImportSource"})
    uid = api.objects[CLAIM]["metadata"]["uid"]
    filling, prime = f"{CDI}/datavolumes/prime-{uid}", f"{BASE}/persistentvolumeclaims/prime-{uid}"
    api.wait(lambda: prime in api.objects)
    api.wait(lambda: "CreatedPVCPrimeSuccessfully" in told(api))
    api.update(prime, {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}})
    reference = {"namespace": "ns", "name": f"prime-{uid}", "uid": api.objects[prime]["metadata"]["uid"]}
    api.put(VOLUME, {"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"claimRef": reference}})
    pod = f"{BASE}/pods/importer-prime-{uid}"
    api.wait(lambda: pod in api.objects)
    assert api.objects[CLAIM]["status"]["phase"] == "Pending"
    api.update(pod, {"status": {"phase": "Succeeded"}})
    api.wait(lambda: api.objects[VOLUME]["spec"]["claimRef"]["uid"] == uid)
    assert api.objects[VOLUME]["spec"]["claimRef"]["name"] == "disk"
    assert filling in api.objects
    # Whoever binds claims sees it
    api.update(CLAIM, {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}})
    api.wait(lambda: filling not in api.objects)
    noted = api.objects[CLAIM]["metadata"]["annotations"]
    assert noted["cdi.kubevirt.io/storage.pod.phase"] == "Succeeded"
    assert noted["cdi.kubevirt.io/storage.populator.progress"] == "100.0%"
    api.wait(lambda: "importSucceeded" in told(api))


def test_upstreams_populators_do_it(api: FakeApi, begin: Callable[..., None]) -> None:
    theirs = crd(DATA_VOLUME)
    theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "cdi-operator"}
    begin(theirs)
    api.put(f"{CDI}/volumeimportsources/web", {**source(), "kind": "VolumeImportSource"})
    api.put(CLAIM, {**claim(), "kind": "PersistentVolumeClaim", "apiVersion": "v1"})
    # Something that the controller does look at, so that it has had the time
    api.put(f"{BASE}/persistentvolumeclaims/other", {**claim(), "kind": "PersistentVolumeClaim", "apiVersion": "v1"})
    api.wait(lambda: any("volumeimportsources" in each[1] for each in api.requests))
    assert not api.objects[CLAIM]["metadata"]["annotations"]
    assert not [path for path in api.objects if "/datavolumes/" in path]
