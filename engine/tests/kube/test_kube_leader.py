# SPDX-License-Identifier: GPL-3.0-or-later
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fakeapi import FakeApi, status

from turtles.kube.client import Client
from turtles.kube.events import Recorder
from turtles.kube.leader import LeaderElector

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/c"
EVENTS = "/api/v1/namespaces/ns/events"


@pytest.fixture
def elect(client: Client) -> Iterator[Callable[..., LeaderElector]]:
    electors = []

    def make(identity: str, on_lost: Callable[[], None] = lambda: None) -> LeaderElector:
        elector = LeaderElector(
            client, "ns", "c", identity, on_lost=on_lost, lease_duration=1.0, renew_deadline=0.5, retry_period=0.1
        )
        electors.append(elector)
        elector.start()
        return elector

    yield make
    for elector in electors:
        elector.stop()


def holder(api: FakeApi) -> str:
    return api.objects[LEASE]["spec"]["holderIdentity"]


def lease(identity: str, seconds: int) -> dict:
    return {
        "metadata": {"name": "c", "namespace": "ns"},
        "spec": {"holderIdentity": identity, "leaseDurationSeconds": seconds, "renewTime": "2026-01-01T00:00:00Z"},
    }


def test_an_absent_lease_is_taken_at_once(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    assert elect("me").leading.wait(30)
    assert api.requests[:2] == [("GET", LEASE), ("POST", LEASE.removesuffix("/c"))], "without a pause for others"
    assert holder(api) == "me"


def test_the_own_lease_is_taken_at_once_after_a_crash(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    api.put(LEASE, lease("me", 3600))
    assert elect("me").leading.wait(30)


def test_another_ones_lease_is_waited_for(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    api.put(LEASE, lease("other", 1))
    elector = elect("me")
    assert not elector.leading.wait(0.5), "its clock may differ: only what we saw ourselves counts"
    assert elector.leading.wait(30)
    assert api.objects[LEASE]["spec"]["leaseTransitions"] == 1


def test_a_leader_that_leaves_makes_room(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    first = elect("first")
    assert first.leading.wait(30)
    second = elect("second")
    first.stop()
    assert holder(api) != "first", "nobody has to wait for the lease to expire"
    assert second.leading.wait(30)


def test_a_lost_lease_is_told(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    lost = threading.Event()
    elector = elect("me", lost.set)
    assert elector.leading.wait(30)
    api.update(LEASE, {"spec": {"holderIdentity": "other"}})
    assert lost.wait(30)
    assert not elector.leading.is_set()


def test_work_pauses_while_the_server_is_away(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    lost = threading.Event()
    elector = elect("me", lost.set)
    assert elector.leading.wait(30)
    api.intercept = lambda method, path: status(500, "InternalError", "broken")
    api.wait(lambda: not elector.leading.is_set())
    api.intercept = lambda method, path: None
    assert elector.leading.wait(30)
    assert not lost.is_set()


def test_a_server_that_was_away_is_told_from_one_that_paused(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    api.put(LEASE, lease("other", 3600))
    elector = elect("me")  # whoever waits for the lease is in touch as well
    first = elector.in_touch_since()
    for away, again in ((0.1, False), (0.8, True)):
        api.intercept = lambda method, path: status(500, "InternalError", "broken")
        time.sleep(away)
        api.intercept = lambda method, path: None
        asked = len(api.requests)
        api.wait(lambda asked=asked: len(api.requests) > asked + 1)
        assert (elector.in_touch_since() > first) is again


def test_work_pauses_while_a_request_hangs(api: FakeApi, elect: Callable[..., LeaderElector]) -> None:
    elector = elect("me")
    assert elector.leading.wait(30)
    answer = threading.Event()

    def hang(method: str, path: str) -> None:
        answer.wait(30)

    api.intercept = hang
    api.wait(lambda: not elector.leading.is_set())
    assert not answer.is_set(), "before the request ends: another one may lead by then"
    answer.set()
    assert elector.leading.wait(30)


def test_two_of_one_identity_on_one_host_keep_apart(elect: Callable[..., LeaderElector]) -> None:
    first = elect("me")
    assert first.leading.wait(30)
    second = elect("me")
    assert not second.leading.wait(0.4)
    first.stop()
    assert second.leading.wait(30)


def test_events_count_up(api: FakeApi, client: Client) -> None:
    recorder = Recorder(client, "test")
    vm = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "a", "namespace": "ns", "uid": "1", "resourceVersion": "7"},
    }
    for _ in range(3):
        recorder.event(vm, "Warning", "Failed", "no memory left")
    recorder.event(vm, "Normal", "Started", "x" * 5000)
    recorder.close()
    events = [obj for path, obj in api.objects.items() if path.startswith(EVENTS)]
    assert sorted((event["reason"], event["count"]) for event in events) == [("Failed", 3), ("Started", 1)]
    assert events[0]["involvedObject"] == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": "a",
        "namespace": "ns",
        "uid": "1",
        "resourceVersion": "7",
    }
    assert max(len(event["message"]) for event in events) == 1024
