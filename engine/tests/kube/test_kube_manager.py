# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers over shared caches."""

import threading
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web
from fakeapi import FakeApi, status

from turtles.kube.client import Client
from turtles.kube.informer import Key
from turtles.kube.manager import Controller, Manager, Trigger, each, owner_of
from turtles.kube.resources import NODE, PDB, PDB_BETA, POD

A_POD = "/api/v1/namespaces/ns/pods/a"


@pytest.fixture
def manager(client: Client) -> Iterator[Manager]:
    manager = Manager(client)
    yield manager
    manager.stop()


@pytest.fixture
def gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate


def pod(name: str = "a", **metadata: object) -> dict:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", **metadata}}


def requests_for(api: FakeApi, path: str) -> int:
    return sum(asked == path for _, asked in api.requests)


def recorder(seen: list[Key]) -> Callable[[Key], None]:
    return lambda key: seen.append(key)


def test_two_controllers_share_one_cache(api: FakeApi, manager: Manager, gate: threading.Event) -> None:
    first, second = [], []
    pods = manager.informer(POD)
    assert manager.informer(POD) is pods
    assert manager.informer(POD, namespace="ns") is not pods
    manager.add(Controller("first", recorder(first), [each(pods)]))
    manager.add(Controller("second", recorder(second), [owner_of(pods, "Owner")]))
    api.put(A_POD, pod(ownerReferences=[{"kind": "Owner", "name": "o", "uid": "1", "controller": True}]))
    manager.start(gate)
    api.wait(lambda: first and second)
    assert set(first) == {("ns", "a")}
    assert set(second) == {("ns", "o")}
    # A list and a watch, for both controllers. The watch may begin after the first reconciliation
    api.wait(lambda: requests_for(api, "/api/v1/pods") >= 2)
    assert requests_for(api, "/api/v1/pods") == 2


def test_work_waits_for_all_that_a_controller_reads(api: FakeApi, manager: Manager, gate: threading.Event) -> None:
    seen: list[Key] = []
    api.intercept = lambda method, path: status(503, "ServiceUnavailable", "not yet") if "nodes" in path else None
    pods, nodes = manager.informer(POD), manager.informer(NODE)
    manager.add(Controller("reader", recorder(seen), [each(pods)], reads=[nodes]))
    manager.add(Controller("other", lambda key: None, [each(pods)], essential=False))
    api.put(A_POD, pod())
    manager.start(gate)
    api.wait(lambda: pods.synced)
    assert not nodes.synced
    assert not manager.ready.is_set()
    assert not seen
    api.intercept = lambda method, path: None
    api.wait(lambda: seen)
    # Work and readiness wait for the same, on two threads
    assert manager.ready.wait(60)


def test_readiness_does_not_wait_for_what_is_not_essential(
    api: FakeApi, manager: Manager, gate: threading.Event
) -> None:
    api.intercept = lambda method, path: status(403, "Forbidden", "no") if "nodes" in path else None
    manager.add(Controller("main", lambda key: None, [each(manager.informer(POD))]))
    manager.add(Controller("aside", lambda key: None, [each(manager.informer(NODE))], essential=False))
    manager.start(gate)
    assert manager.ready.wait(60)


def test_the_version_that_the_server_has(api: FakeApi, manager: Manager, gate: threading.Event) -> None:
    def without_stable(method: str, path: str) -> web.Response | None:
        return status(404, "NotFound", "no such kind") if path.startswith("/apis/policy/v1/") else None

    api.intercept = without_stable
    budgets = manager.informer(PDB, alternatives=[PDB_BETA])
    manager.start(gate)
    assert budgets.wait_synced(5)
    assert budgets.resource == PDB_BETA


def test_an_optional_kind_that_comes_later(api: FakeApi, manager: Manager, gate: threading.Event) -> None:
    seen: list[Key] = []
    api.intercept = lambda method, path: status(404, "NotFound", "no such kind") if "nodes" in path else None
    nodes = manager.informer(NODE, optional=True)
    manager.add(Controller("nodes", recorder(seen), [Trigger(nodes, lambda old, new: [("", "any")])]))
    manager.start(gate)
    assert manager.ready.wait(60)
    assert not nodes.list()
    api.put("/api/v1/nodes/n", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    api.intercept = lambda method, path: None
    api.wait(lambda: seen == [("", "any")])
