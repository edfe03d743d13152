# SPDX-License-Identifier: GPL-3.0-or-later
"""Replicas of two builds beside each other, as while a Deployment is rolled out."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakeapi import FakeApi

from turtles.api.kind import Kind
from turtles.api.objects import Object
from turtles.kube.client import Client
from turtles.kube.resources import APISERVICE, DEPLOYMENT, POD, SECRET, VALIDATINGWEBHOOK, Resource
from turtles.virt_api import registered
from turtles.virt_api.certificates import Certificates
from turtles.virt_api.names import CERTIFICATES_SECRET
from turtles.virt_api.registration import Registration

VALIDATOR = VALIDATINGWEBHOOK.path(None, "virt-api-validator")
V1 = APISERVICE.path(None, "v1.subresources.kubevirt.io")


class Next(Registration):
    """One of the version to come: it validates something else, too."""

    def _wanted(self, bundle: str, kinds: list[Kind]) -> list[tuple[Resource, Object]]:
        found = super()._wanted(bundle, kinds)
        for resource, obj in found:
            if resource == VALIDATINGWEBHOOK:
                obj["webhooks"].append({**obj["webhooks"][0], "name": "pool-validator.kubevirt.io"})
        return found


@pytest.fixture
def replica(api: FakeApi, tmp_path: Path) -> Iterator[Any]:
    """Starts a replica that is the Pod of this name."""
    running: list[Registration] = []

    def start(kind: type[Registration], pod: str) -> Registration:
        api.put(POD.path("kubevirt", pod), {"metadata": {"name": pod, "namespace": "kubevirt"}})
        client = Client.from_kubeconfig(api.kubeconfig(tmp_path))
        running.append(kind(client, "kubevirt", lambda _: None, spread=0.0, pod=pod))
        running[-1].prepare()
        running[-1].start()
        api.wait(running[-1].done.is_set)
        return running[-1]

    yield start
    for each in running:
        each.stop()


def put_deployment(api: FakeApi, replicas: int, updated: int, observed: int = 1) -> None:
    path = DEPLOYMENT.path("kubevirt", "virt-api")
    status = {"observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated}
    if path in api.objects:
        api.update(path, {"status": status})
    else:
        api.put(path, {"metadata": {"name": "virt-api", "namespace": "kubevirt"}, "status": status})


def hooks(api: FakeApi) -> list[str]:
    return [hook["name"] for hook in api.objects[VALIDATOR]["webhooks"]]


def writes(api: FakeApi) -> int:
    """How often the registration has been written."""
    return len([path for method, path in api.requests if method != "GET" and "registration" in path])


def settled(api: FakeApi, most: int) -> bool:
    """Whether writing has come to an end, after at most that many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = writes(api)
        time.sleep(1)
        if writes(api) == before:
            return before <= most
    return False


def bundles(api: FakeApi) -> set[str]:
    found = [hook["clientConfig"]["caBundle"] for hook in api.objects[VALIDATOR]["webhooks"]]
    return {base64.b64decode(text).decode() for text in [*found, api.objects[V1]["spec"]["caBundle"]]}


def test_two_versions_beside_each_other_settle(api: FakeApi, replica: Any) -> None:
    put_deployment(api, 2, 2)
    replica(Registration, "old")
    before = hooks(api)
    put_deployment(api, 3, 1)
    replica(Next, "new")
    # What only the next version serves isn't asked of the one of before
    assert settled(api, 5)
    assert hooks(api) == before
    # Authorities are everybody's
    api.remove(SECRET.path("kubevirt", CERTIFICATES_SECRET))

    def trusted() -> bool:
        found = Certificates.from_secret(api.objects.get(SECRET.path("kubevirt", CERTIFICATES_SECRET)))
        return found is not None and bundles(api) == {found.bundle}

    api.wait(trusted)
    assert settled(api, 15), "each of both may have tried each of the five"
    assert hooks(api) == before
    # The old one is told to end, is no replica any more, and goes on for a while
    api.update(
        POD.path("kubevirt", "old"), {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["test"]}}
    )
    put_deployment(api, 2, 2)
    api.wait(lambda: hooks(api) == [*before, "pool-validator.kubevirt.io"])
    assert settled(api, 16)
    # What somebody changes is still taken back
    api.update(VALIDATOR, {"webhooks": []})
    api.wait(lambda: hooks(api) == [*before, "pool-validator.kubevirt.io"])
    assert settled(api, 17)


def test_who_goes_back_to_an_earlier_version_gets_its_list(api: FakeApi, replica: Any) -> None:
    put_deployment(api, 1, 1)
    newer = replica(Next, "newer")
    put_deployment(api, 2, 2, observed=0)
    replica(Registration, "earlier")
    assert "pool-validator.kubevirt.io" in hooks(api), "of the Deployment as it was before"
    newer.stop()
    put_deployment(api, 1, 1, observed=1)
    api.wait(lambda: "pool-validator.kubevirt.io" not in hooks(api))


def test_what_is_registered_says_by_which_version(api: FakeApi, replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put_deployment(api, 1, 1)
    replica(Registration, "one").stop()
    key = "kubevirt.io/install-strategy-version"
    assert api.objects[V1]["metadata"]["annotations"][key] == f"v{registered.__version__}"
    monkeypatch.setattr(registered, "__version__", "9.9.9")
    replica(Registration, "two")
    api.wait(lambda: api.objects[V1]["metadata"]["annotations"][key] == "v9.9.9")


@pytest.mark.parametrize(("owner", "ours"), [("turtles.kubevirt", True), ("cdi-operator", False), (None, True)])
def test_who_judges_data_volumes(api: FakeApi, replica: Any, owner: str | None, ours: bool) -> None:
    if owner:
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": "datavolumes.cdi.kubevirt.io",
                "labels": {"app.kubernetes.io/managed-by": owner},
            },
        }
        api.put(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/datavolumes.cdi.kubevirt.io",
            definition,
        )
    put_deployment(api, 1, 1)
    replica(Registration, "virt-api-1")
    api.wait(lambda: hooks(api))
    assert ("datavolume-validate.cdi.kubevirt.io" in hooks(api)) is ours
