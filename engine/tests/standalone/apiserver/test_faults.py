# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9, restarts, resuming watches, compaction, a full disk, init."""

import asyncio
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from turtles.standalone.apiserver.database import DatabaseError
from turtles.standalone.apiserver.store import Key, Stale, Store

from .conftest import Server

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def test_kill_during_writes_loses_nothing(stopped: Server) -> None:
    acknowledged: dict[str, int] = {}
    highest = 0
    for round_number in range(5):
        stopped.start()
        end = threading.Event()

        def write(worker: int, round_number: int = round_number, end: threading.Event = end) -> None:
            number = 0
            while not end.is_set():
                name = f"w-{round_number}-{worker}-{number}"
                try:
                    code, obj = stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": name}})
                except OSError:
                    return
                assert code == 201
                acknowledged[name] = int(obj["metadata"]["resourceVersion"])
                number += 1

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        wanted = len(acknowledged) + 20
        stopped.until(lambda wanted=wanted: len(acknowledged) >= wanted)
        stopped.stop(signal.SIGKILL)
        end.set()
        for thread in threads:
            thread.join()
        stopped.start()
        _, listed = stopped.call("GET", CONFIG_MAPS)
        found = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in listed["items"]}
        assert {name: found.get(name) for name in acknowledged} == acknowledged
        assert int(listed["metadata"]["resourceVersion"]) >= max(highest, *found.values())
        highest = int(listed["metadata"]["resourceVersion"])
        events = stopped.watch(f"{CONFIG_MAPS}?resourceVersion=1")
        names = [event["object"]["metadata"]["name"] for event in events if event["type"] == "ADDED"]
        assert len(names) == len(set(names)), "no event is told twice"
        assert set(acknowledged) <= set(names), "a watch resumes over a restart without a gap"
        assert stopped.stop() == 0
    connection = sqlite3.connect(stopped.data / "apiserver.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_starts_fast(stopped: Server) -> None:
    stopped.start().stop()
    before = time.monotonic()
    stopped.start()
    assert time.monotonic() - before < 5  # 1 s on an idle machine


def test_second_server_is_kept_out(stopped: Server) -> None:
    stopped.start()
    with pytest.raises(DatabaseError, match=f"in use by the process {stopped.process.pid}"):
        Store(stopped.data / "apiserver.db")


def test_init_is_idempotent_and_checks(stopped: Server) -> None:
    unchanged = stopped.init()
    assert (unchanged["changed"], unchanged["files"]) == (False, [])
    kubeconfig = stopped.config / "virt-api.kubeconfig"
    before = stopped.token("virt-api")
    kubeconfig.unlink()
    planned = stopped.init("--check")
    assert planned["changed"] is True
    assert not kubeconfig.exists()
    done = stopped.init()
    assert sorted(done["files"]) == sorted(planned["files"])
    assert stopped.token("virt-api") != before
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    assert stopped.init() == unchanged
    done = stopped.init("--san", "api.example.org")
    assert done["fingerprint"] != unchanged["fingerprint"]
    assert {Path(one).name for one in done["files"]} == {"apiserver.key", "apiserver.crt"}


def obj(name: str, **labels: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "uid": name, "labels": labels}}


async def test_store_compaction_and_reload(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.start(asyncio.get_running_loop())
    key = Key("/configmaps", "default", "a")
    first = await store.put(key, obj("a", v="1"), 0)
    with pytest.raises(Stale):
        await store.put(key, obj("a"), 0)
    second = await store.put(key, obj("a", v="2"), first.version)
    store.compact(time.time() + 1000)
    third = await store.put(key, obj("a", v="3"), second.version)
    with pytest.raises(LookupError):
        store.since("/configmaps", first.version)
    store.close()
    again = Store(tmp_path / "db")
    assert (again.version, again.compacted) == (third.version, second.version)
    assert again.get(key).labels == {"v": "3"}
    (event,) = again.since("/configmaps", second.version)
    assert event.previous.labels == {"v": "2"}, "the state before a write in the window survives compaction"
    again.close()
    rows = sqlite3.connect(tmp_path / "db").execute("SELECT version FROM log").fetchall()
    assert [row[0] for row in rows] == [second.version, third.version]


async def test_concurrent_writes_share_a_commit(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.start(asyncio.get_running_loop())
    names = [f"n{number}" for number in range(200)]
    entries = await asyncio.gather(*(store.put(Key("/c", "d", name), obj(name), 0) for name in names))
    assert sorted(entry.version for entry in entries) == [entry.version for entry in entries]
    store.close()
