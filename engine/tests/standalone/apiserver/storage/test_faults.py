# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts, compaction, a second server, init. test_crash.py has kill -9, test_storage.py disks."""

import asyncio
import sqlite3
import time
from pathlib import Path

import psutil
import pytest

from turtles.standalone.apiserver.storage.database import DatabaseError
from turtles.standalone.apiserver.storage.entries import Key
from turtles.standalone.apiserver.storage.store import Stale, Store

from ..conftest import Server


def test_starts_fast(stopped: Server) -> None:
    stopped.start().stop()
    stopped.start()
    used = psutil.Process(stopped.process.pid).cpu_times()
    assert used.user + used.system < 4  # 1 s; processor time, for the machine may have other work


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
