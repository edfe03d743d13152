# SPDX-License-Identifier: GPL-3.0-or-later
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from aiohttp import web
from fakeapi import FakeApi, status

from turtles.kube.client import Client
from turtles.kube.informer import Informer, index_by_owner, wait_synced
from turtles.kube.resources import CONFIGMAP

MAPS = "/api/v1/namespaces/ns/configmaps"


def config_map(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": data}


class Seen:
    """What an informer told, as (name, before, after) with data or None."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def __call__(self, old: dict | None, new: dict | None) -> None:
        self.events.append(((new or old)["metadata"]["name"], old and old["data"], new and new["data"]))


@pytest.fixture
def informer(client: Client) -> Iterator[Informer]:
    informer = Informer(client, CONFIGMAP)
    yield informer
    informer.stop()


def test_list_and_watch(api: FakeApi, informer: Informer) -> None:
    api.put(f"{MAPS}/a", config_map("a", x="1"))
    seen, late = Seen(), Seen()
    informer.add_handler(seen)
    assert not informer.wait_synced(0)
    informer.start()
    assert wait_synced([informer], 5)
    assert informer.get("ns", "a")["data"] == {"x": "1"}
    api.put(f"{MAPS}/b", config_map("b"))
    api.update(f"{MAPS}/a", {"data": {"x": "2"}})
    api.remove(f"{MAPS}/b")
    api.wait(lambda: len(seen.events) == 4)
    assert seen.events == [("a", None, {"x": "1"}), ("b", None, {}), ("a", {"x": "1"}, {"x": "2"}), ("b", {}, None)]
    informer.add_handler(late)
    assert late.events == [("a", None, {"x": "2"})]
    assert informer.list("other") == []
    assert len(informer.list("ns")) == 1


def test_the_cache_keeps_no_field_owners_and_equal_strings_once(api: FakeApi, informer: Informer) -> None:
    api.put(f"{MAPS}/a", config_map("a", word="as long as a name"))
    informer.start()
    assert wait_synced([informer], 5)
    seen = Seen()
    informer.add_handler(seen)
    owned = config_map("b", word="as long as a name")
    owned["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    api.put(f"{MAPS}/b", owned)
    api.wait(lambda: len(seen.events) == 2)
    first, second = (informer.get("ns", name) for name in ("a", "b"))
    assert "managedFields" not in second["metadata"]
    assert first["data"]["word"] is second["data"]["word"]


def test_indices(api: FakeApi, informer: Informer) -> None:
    informer.add_index("owner", index_by_owner)
    informer.start()
    owned = config_map("a")
    owned["metadata"]["ownerReferences"] = [{"uid": "1", "controller": True}, {"uid": "2"}]
    api.put(f"{MAPS}/a", owned)
    api.wait(lambda: informer.by_index("owner", "1"))
    assert informer.by_index("owner", "2") == []
    informer.add_index("x", lambda obj: [obj["data"].get("x", "")])
    assert len(informer.by_index("x", "")) == 1
    api.update(f"{MAPS}/a", {"data": {"x": "1"}})
    api.wait(lambda: informer.by_index("x", "1"))
    assert informer.by_index("x", "") == []
    api.remove(f"{MAPS}/a")
    api.wait(lambda: not informer.by_index("owner", "1"))


def test_a_restarted_server_is_found_within_half_a_second(api: FakeApi, informer: Informer) -> None:
    seen = Seen()
    informer.add_handler(seen)
    informer.start()
    assert informer.wait_synced(60)
    api.stop()
    time.sleep(1.0)  # long enough for the longest pause between two tries
    api.start()
    api.requests.clear()
    api.put(f"{MAPS}/a", config_map("a"))
    api.wait(lambda: seen.events, 0.6)
    assert seen.events == [("a", None, {})]
    assert api.requests == [("GET", "/api/v1/configmaps")], "the watch was resumed, nothing listed again"


def test_a_server_that_is_down_is_not_bombarded(api: FakeApi, informer: Informer) -> None:
    api.intercept = lambda method, path: status(403, "Forbidden", "not yet")
    informer.start()
    time.sleep(1.0)
    assert len(api.requests) < 15
    api.intercept = lambda method, path: None
    assert informer.wait_synced(60)


def test_gone_lists_again_and_tells_what_was_missed(api: FakeApi, informer: Informer) -> None:
    for name in "abc":
        api.put(f"{MAPS}/{name}", config_map(name))
    seen = Seen()
    informer.add_handler(seen)
    informer.start()
    assert informer.wait_synced(60)
    seen.events.clear()
    api.stop()
    api.start()
    real, gone = api._watch, threading.Event()

    async def refuse(request, collection):
        gone.set()
        return status(410, "Expired", "too old")

    api._watch = refuse
    assert gone.wait(60)
    api.remove(f"{MAPS}/a")
    api.update(f"{MAPS}/b", {"data": {"x": "1"}})
    api.put(f"{MAPS}/d", config_map("d"))
    api.forget_history()
    api._watch = real
    api.wait(lambda: len(seen.events) == 3)
    assert sorted(seen.events, key=str) == [("a", {}, None), ("b", {}, {"x": "1"}), ("d", None, {})]


def stopped_with_one_map(api: FakeApi, informer: Informer) -> None:
    """Fill the cache with one ConfigMap, then stop the server."""
    api.put(f"{MAPS}/a", config_map("a"))
    informer.start()
    assert informer.wait_synced(60)
    api.stop()


def test_410_inside_the_watch(api: FakeApi, informer: Informer) -> None:
    stopped_with_one_map(api, informer)
    api.oldest = api.version + 1
    api.objects.clear()
    api.version += 5
    api.start()
    api.wait(lambda: informer.list() == [])


def test_a_server_that_starts_anew_empties_the_cache(api: FakeApi, informer: Informer) -> None:
    stopped_with_one_map(api, informer)
    api.objects.clear()
    api.history.clear()
    api.version, api.oldest = 5, 10_000
    api.start()
    api.oldest = 10_000
    api.wait(lambda: informer.list() == [])


def test_versions_of_a_restored_server_are_smaller(api: FakeApi, informer: Informer) -> None:
    """A watch from a version that isn't there yet gets 504, not 410."""
    stopped_with_one_map(api, informer)
    api.objects.clear()
    real, asked = api._watch, []

    async def refuse(request, collection):
        if asked:
            return await real(request, collection)
        asked.append(request)
        details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
        body = {"kind": "Status", "code": 504, "reason": "Timeout", "message": "Too large", "details": details}
        return web.json_response(body, status=504)

    api._watch = refuse
    api.start()
    api.wait(lambda: informer.list() == [])


def test_own_writes_are_seen_at_once_but_never_go_back(api: FakeApi, client: Client, informer: Informer) -> None:
    informer.start()
    assert informer.wait_synced(60)
    made = client.create(CONFIGMAP, config_map("a"))
    informer.observe(made)
    assert informer.get("ns", "a") == made
    newer = client.patch(CONFIGMAP, "ns", "a", {"data": {"x": "1"}})
    informer.observe(newer)
    informer.observe(made)
    assert informer.get("ns", "a") == newer
    api.remove(f"{MAPS}/a")
    api.wait(lambda: informer.get("ns", "a") is None)
    informer.observe(newer)
    assert informer.get("ns", "a") is None, "the watch already told of its deletion"


def test_handlers_are_told_what_own_writes_changed(api: FakeApi, client: Client, informer: Informer) -> None:
    seen = Seen()
    informer.add_handler(seen)
    informer.start()
    assert wait_synced([informer], 5)
    informer.observe(client.create(CONFIGMAP, config_map("a", x="1")))
    informer.observe(client.patch(CONFIGMAP, "ns", "a", {"data": {"x": "2"}}))
    api.wait(lambda: ("a", None, {"x": "2"}) in seen.events or len(seen.events) == 2)
    informer.observe(client.patch(CONFIGMAP, "ns", "a", {"data": {"x": "3"}}))
    api.wait(lambda: seen.events[-1][2] == {"x": "3"})
    assert seen.events[0][1] is None
    for before, after in pairwise(seen.events):
        assert before[2] == after[1]
        assert after[1] != after[2]
    assert not informer._unreported


def test_handlers_are_told_of_own_writes_whose_events_were_missed(
    api: FakeApi, client: Client, informer: Informer
) -> None:
    api.put(f"{MAPS}/a", config_map("a", x="1"))
    seen = Seen()
    informer.add_handler(seen)
    informer._relist()
    informer.observe(client.patch(CONFIGMAP, "ns", "a", {"data": {"x": "2"}}))
    informer.observe(client.create(CONFIGMAP, config_map("b")))
    informer.observe(client.create(CONFIGMAP, config_map("c")))
    api.remove(f"{MAPS}/c")
    informer._relist()
    assert seen.events[:1] == [("a", None, {"x": "1"})]
    assert sorted(seen.events[1:], key=str) == [("a", {"x": "1"}, {"x": "2"}), ("b", None, {}), ("c", {}, None)]
    assert not informer._unreported


def test_a_failing_handler_hurts_nobody(api: FakeApi, informer: Informer) -> None:
    seen = Seen()
    informer.add_handler(lambda old, new: 1 / 0)
    informer.add_handler(seen)
    informer.start()
    api.put(f"{MAPS}/a", config_map("a"))
    api.wait(lambda: seen.events)


def test_it_can_be_stopped_while_it_starts(informer: Informer, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def late(thread: threading.Thread) -> None:
        informer.stop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    informer.start()


def test_stop_wakes_the_watch(api: FakeApi, informer: Informer) -> None:
    informer.start()
    assert informer.wait_synced(60)
    api.wait(lambda: len(api.requests) == 2)
    time.sleep(0.05)
    informer.stop(30)
    assert informer._thread is not None
    assert not informer._thread.is_alive()
