# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Iterator
from typing import Any

import pytest
from fakeapi import FakeApi

from turtles.kube.client import AlreadyExists, Client, Conflict, Invalid, NotFound
from turtles.kube.informer import Informer
from turtles.kube.resources import POD
from turtles.kube.writer import Writer

PODS = "/api/v1/namespaces/ns/pods"


def make_pod(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns"}, **more}


@pytest.fixture
def cache(client: Client) -> Iterator[Informer]:
    """A cache without a watch: it shows what the writer put there, and nothing else."""
    informer = Informer(client, POD)
    yield informer
    informer.stop()


@pytest.fixture
def writer(client: Client) -> Writer:
    return Writer(client)


def replace(api: FakeApi) -> None:
    """Have another object of the same name."""
    api.remove(f"{PODS}/a")
    api.put(f"{PODS}/a", make_pod())


def test_the_cache_shows_each_write_at_once(api: FakeApi, cache: Informer, writer: Writer) -> None:
    seen = writer.create(cache, make_pod())
    assert cache.get("ns", "a") == seen
    seen = writer.patch(cache, seen, {"metadata": {"labels": {"x": "1"}}})
    assert cache.get("ns", "a") == seen
    assert seen["metadata"]["labels"] == {"x": "1"}
    seen = writer.store_status(cache, seen, {"phase": "Running"})
    assert cache.get("ns", "a") == seen
    assert seen["status"] == {"phase": "Running"}
    seen = writer.apply(cache, seen, [{"op": "replace", "path": "/metadata/labels/x", "value": "2"}])
    assert cache.get("ns", "a") == seen
    assert api.objects[f"{PODS}/a"]["metadata"]["labels"] == {"x": "2"}


def test_what_is_there_already_is_returned_where_that_will_do(api: FakeApi, cache: Informer, writer: Writer) -> None:
    stored = api.put(f"{PODS}/a", make_pod())
    with pytest.raises(AlreadyExists):
        writer.create(cache, make_pod())
    assert writer.create_or_get(cache, make_pod())["metadata"]["uid"] == stored["metadata"]["uid"]
    assert cache.get("ns", "a") is not None


def test_without_a_difference_nothing_is_written(api: FakeApi, cache: Informer, writer: Writer) -> None:
    seen = writer.store_status(cache, writer.create(cache, make_pod()), {"phase": "Running"})
    api.requests.clear()
    assert writer.store_status(cache, seen, {"phase": "Running"}) is seen
    assert writer.store_members(cache, seen, {**seen, "spec": {"x": 1}}, [("status", "*")]) is seen
    assert api.requests == []


def test_members_are_stored_although_others_have_changed(api: FakeApi, cache: Informer, writer: Writer) -> None:
    seen = writer.store_status(cache, writer.create(cache, make_pod()), {"phase": "Pending"})
    api.update(f"{PODS}/a", {"status": {"message": "theirs"}})
    with pytest.raises(Conflict):
        writer.store_status(cache, seen, {"phase": "Running"})
    stored = writer.store_members(cache, seen, {**seen, "status": {"phase": "Running"}}, [("status", "*")])
    assert stored["status"] == {"phase": "Running", "message": "theirs"}
    with pytest.raises(Invalid):
        writer.store_members(cache, seen, {**seen, "status": {"phase": "Failed"}}, [("status", "*")])


def test_a_change_may_be_for_whatever_version(api: FakeApi, cache: Informer, writer: Writer) -> None:
    seen = writer.create(cache, make_pod())
    api.update(f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}})
    patch = {"metadata": {"annotations": {"y": "2"}}}
    with pytest.raises(Conflict):
        writer.patch(cache, seen, patch)
    assert writer.patch(cache, seen, patch, unchanged=False)["metadata"]["labels"] == {"x": "1"}


def test_another_object_of_the_name_stays_as_it_is(api: FakeApi, cache: Informer, writer: Writer) -> None:
    seen = writer.create(cache, make_pod())
    replace(api)
    before = dict(api.objects[f"{PODS}/a"])
    with pytest.raises(Conflict):
        writer.patch(cache, seen, {"spec": {"x": 1}}, unchanged=False)
    with pytest.raises(Invalid):
        writer.apply(cache, seen, [{"op": "add", "path": "/spec", "value": {}}])
    with pytest.raises(Conflict):
        writer.delete(cache, seen)
    assert api.objects[f"{PODS}/a"] == before


def test_what_is_deleted_may_be_gone_already(api: FakeApi, cache: Informer, writer: Writer) -> None:
    seen = writer.create(cache, make_pod())
    api.update(f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}})
    with pytest.raises(Conflict):
        writer.delete(cache, seen, unchanged=True)
    assert writer.delete(cache, seen)
    assert f"{PODS}/a" not in api.objects
    assert not writer.delete(cache, seen)
    with pytest.raises(NotFound):
        writer.patch(cache, seen, {})


def test_the_cache_shows_that_an_object_is_on_its_way_out(api: FakeApi, cache: Informer, writer: Writer) -> None:
    pod = make_pod()
    pod["metadata"]["finalizers"] = ["example.org/kept"]
    assert writer.delete(cache, writer.create(cache, pod))
    cached = cache.get("ns", "a")
    assert cached is not None
    assert cached["metadata"]["deletionTimestamp"]
    assert f"{PODS}/a" in api.objects
