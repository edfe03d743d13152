# SPDX-License-Identifier: GPL-3.0-or-later
"""How events reach watchers: at once those who read, in order those who don't, and whatever happens to others."""

import asyncio
import contextlib
import http.client
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.views.watch import Form, Selection, Watcher

from ..conftest import Server
from ..http.test_protection import connect, request_head

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


def chunks(connection: ssl.SSLSocket) -> bytes:
    """Return the body of a chunked answer, read as http.client does."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.read()


def test_client_that_reads_late_misses_nothing(server: Server) -> None:
    _, made = server.call("POST", CONFIG_MAPS, {"metadata": {"name": "late"}})
    path = f"{CONFIG_MAPS}?watch=1&timeoutSeconds=4&fieldSelector=metadata.name%3Dlate"
    late = connect(server, buffer=4096)
    late.sendall(request_head(server, "GET", f"{path}&resourceVersion={made['metadata']['resourceVersion']}"))
    expected = []
    for number in range(24):
        # More than the connection holds, then little, so that events come both while it is full and when it is empty.
        data = {"number": str(number), "pad": "x" * (400_000 if number < 8 else 10)}
        code, shown = server.call("PATCH", f"{CONFIG_MAPS}/late", {"data": data}, MERGE)
        assert code == 200
        expected.append((shown["metadata"]["resourceVersion"], str(number)))
    server.call("DELETE", f"{CONFIG_MAPS}/late")
    events = [json.loads(line) for line in chunks(late).splitlines()]
    late.close()
    assert [event["type"] for event in events] == ["MODIFIED"] * 24 + ["DELETED"]
    seen = [(event["object"]["metadata"]["resourceVersion"], event["object"]["data"]["number"]) for event in events]
    assert seen[:-1] == expected


def test_watch_of_a_client_without_chunks(server: Server) -> None:
    """HTTP/1.0 has none: the answer is what comes until the connection ends."""
    old = connect(server)
    path = f"{CONFIG_MAPS}?watch=1&timeoutSeconds=2&labelSelector=http%3Dold"
    old.sendall(request_head(server, "GET", path).replace(b"HTTP/1.1", b"HTTP/1.0"))
    first = old.recv(65536)
    assert b" 200 OK" in first
    assert b"chunked" not in first.lower()
    server.call("POST", CONFIG_MAPS, {"metadata": {"name": "old", "labels": {"http": "old"}}})
    server.call("DELETE", f"{CONFIG_MAPS}/old")
    rest = b""
    with contextlib.suppress(ssl.SSLEOFError):
        while more := old.recv(65536):
            rest += more
    old.close()
    events = [json.loads(line) for line in (first.partition(b"\r\n\r\n")[2] + rest).splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "DELETED"]


class Client:
    """The far end of a watch, without a connection."""

    def __init__(self, store: Store, form: Form) -> None:
        self.ready = True
        self.got: list[bytes] = []
        self.watcher = Watcher(store, "/configmaps", Selection(), form)
        self.watcher.connect(self.take)
        self.watcher.start()

    def take(self, frame: bytes) -> bool:
        if self.ready:
            self.got.append(frame)
        return self.ready


def plain(entry: Entry) -> bytes:
    return entry.raw


def broken(entry: Entry) -> bytes:
    raise ValueError("this form can't show it")


def form(encode=plain, prepare=None) -> Form:
    return Form(encode.__name__, encode, lambda version, notes: b"", prepare)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    one = Store(tmp_path / "db")
    one.start(asyncio.get_running_loop())
    yield one
    one.close()


async def put(store: Store, name: str) -> None:
    await store.put(Key("/configmaps", "default", name), {"metadata": {"name": name}}, 0)


def names(frames: list[bytes]) -> list[str]:
    return [json.loads(line)["object"]["metadata"]["name"] for one in frames for line in one.splitlines()]


async def test_events_come_directly_only_behind_those_that_are_queued(store: Store) -> None:
    client = Client(store, form())
    await put(store, "before")
    assert not client.got, "nobody waits yet: what was sent now could overtake what the stream still has to send"
    assert names([await client.watcher.frames(5)]) == ["before"]

    waiting = asyncio.create_task(client.watcher.frames(60))
    await asyncio.sleep(0)
    await put(store, "direct")
    assert names(client.got) == ["direct"]
    assert not waiting.done()

    client.ready = False
    await put(store, "queued")
    client.ready = True
    await put(store, "behind")
    assert names([await waiting, *([] if client.watcher.idle else [await client.watcher.frames(5)])]) == [
        "queued",
        "behind",
    ]
    assert names(client.got) == ["direct"]


async def test_what_fails_for_one_client_is_told_to_it_alone(store: Store) -> None:
    good, bad = Client(store, form()), Client(store, form(broken))
    waiting = [asyncio.create_task(one.watcher.frames(60)) for one in (good, bad)]
    await asyncio.sleep(0)
    await put(store, "one")
    assert names(good.got) == ["one"]
    with pytest.raises(ValueError, match="can't show it"):
        await waiting[1]
    waiting[0].cancel()


async def test_what_has_to_be_prepared_is_not_sent_directly(store: Store) -> None:
    prepared = []

    async def prepare(entries: list[Entry]) -> None:
        prepared.extend(entry.key.name for entry in entries)

    client = Client(store, form(prepare=prepare))
    waiting = asyncio.create_task(client.watcher.frames(60))
    await asyncio.sleep(0)
    await put(store, "converted")
    assert names([await waiting]) == ["converted"]
    assert prepared == ["converted"]
    assert not client.got
