# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 again and again, while clients write and watch.

``TURTLES_CRASH_ROUNDS`` says how often (`make test-faults`: 500).
"""

import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

from ..conftest import Server

ROUNDS = int(os.environ.get("TURTLES_CRASH_ROUNDS", "12"))
WRITERS, KEYS = 6, 8
PATH = "/api/v1/namespaces/default/configmaps"
BROKEN = (OSError, http.client.HTTPException)


class Connection:
    """A kept connection to the server."""

    def __init__(self, server: Server) -> None:
        self._headers = {"Authorization": f"Bearer {server.token()}"}
        self._connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.tls, timeout=60)

    def send(self, method: str, path: str, body: object = None, content_type: str = "application/json"):
        raw = json.dumps(body) if body is not None else None
        self._connection.request(method, path, raw, {**self._headers, "Content-Type": content_type})
        return self._connection.getresponse()

    def call(self, method: str, path: str, body: object = None, content_type: str = "application/json"):
        answer = self.send(method, path, body, content_type)
        return answer.status, json.loads(answer.read())


def shown(obj: dict) -> tuple[int, str]:
    return int(obj["metadata"]["resourceVersion"]), obj["data"]["v"]


class Writer:
    """Writes objects of its own, and knows what was acknowledged."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.names = [f"w{number}-{key}" for key in range(KEYS)]
        #: Acknowledged: version and value, None when there is no such object.
        self.state: dict[str, tuple[int, str] | None] = dict.fromkeys(self.names)
        #: Asked for and not answered: the value, None for a deletion.
        self.doubt: dict[str, str | None] = {}
        self.acknowledged: list[int] = []
        self.problems: list[str] = []
        self._count = 0

    def run(self, server: Server) -> None:
        """Write until the server is gone."""
        try:
            connection = Connection(server)
            while True:
                self._write(connection, self.random.choice(self.names))
        except BROKEN:
            pass

    def _write(self, connection: Connection, name: str) -> None:
        self._count += 1
        value = f"{self._count} {'x' * self.random.choice((10, 3000))}"
        before = self.state[name]
        if before is None:
            self.doubt = {name: value}
            body = {"metadata": {"name": name}, "data": {"v": value}}
            code, obj = connection.call("POST", PATH, body)
        elif self.random.random() < 0.2:
            self.doubt = {name: None}
            code, obj = connection.call("DELETE", f"{PATH}/{name}")
        else:
            self.doubt = {name: value}
            patch = {"metadata": {"resourceVersion": str(before[0])}, "data": {"v": value}}
            code, obj = connection.call("PATCH", f"{PATH}/{name}", patch, "application/merge-patch+json")
        if code not in (200, 201):
            self.problems.append(f"{name}: {code} {obj.get('message')}")
            raise OSError
        self.state[name] = None if self.doubt[name] is None else shown(obj)
        if self.state[name] is not None:
            self.acknowledged.append(self.state[name][0])
        self.doubt = {}

    def compare(self, found: dict[str, tuple[int, str]]) -> None:
        """After a restart: what was acknowledged is there; what wasn't answered is there whole, or not at all."""
        for name in self.names:
            now = found.get(name)
            if now == self.state[name]:
                continue
            if name in self.doubt and (now[1] if now else None) == self.doubt[name]:
                self.state[name] = now
                if now:
                    self.acknowledged.append(now[0])
                continue
            self.problems.append(f"{name}: acknowledged {self.state[name]}, found {now}")
        self.doubt = {}


class Watcher:
    """Follows all objects over all restarts, each time from the last version it has seen."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.state: dict[str, tuple[int, str]] = {}
        self.seen: set[int] = set()
        self.problems: list[str] = []

    def run(self, server: Server) -> None:
        """Watch until the server is gone."""
        try:
            path = f"{PATH}?watch=1&allowWatchBookmarks=true&resourceVersion={self.version}"
            answer = Connection(server).send("GET", path)
            while line := answer.readline():
                if not line.endswith(b"\n"):
                    return
                self._take(json.loads(line))
        except (*BROKEN, ValueError):
            pass

    def _take(self, event: dict) -> None:
        obj = event["object"]
        if event["type"] == "ERROR":
            self.problems.append(f"from {self.version}: {obj}")
            return
        version = int(obj["metadata"]["resourceVersion"])
        if event["type"] == "BOOKMARK":
            self.version = max(version, self.version)
            return
        if version <= self.version:
            self.problems.append(f"{obj['metadata']['name']} at {version} after {self.version}")
        self.version = version
        self.seen.add(version)
        name = obj["metadata"]["name"]
        expected = "MODIFIED" if name in self.state else "ADDED"
        if event["type"] not in (expected, "DELETED") or (event["type"] == "DELETED" and name not in self.state):
            self.problems.append(f"{name} at {version}: {event['type']}, known before: {name in self.state}")
        if event["type"] == "DELETED":
            self.state.pop(name, None)
        else:
            self.state[name] = shown(obj)


def listed(server: Server) -> tuple[int, dict[str, tuple[int, str]]]:
    code, body = Connection(server).call("GET", PATH)
    assert code == 200, body
    items = {item["metadata"]["name"]: shown(item) for item in body["items"] if "v" in item.get("data", {})}
    return int(body["metadata"]["resourceVersion"]), items


def check_integrity(data: Path, scratch: Path) -> None:
    """Check a copy: SQLite's own recovery of the files is left to the server."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for path in data.glob("apiserver.db*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, scratch)
    connection = sqlite3.connect(scratch / "apiserver.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_kill_during_writes_and_watches(stopped: Server, tmp_path: Path) -> None:
    writers = [Writer(number) for number in range(WRITERS)]
    stopped.start()
    highest, _ = listed(stopped)
    watchers = [Watcher(highest) for _ in range(2)]
    dice = random.Random(1)
    for number in range(ROUNDS):
        threads = [threading.Thread(target=one.run, args=(stopped,)) for one in (*writers, *watchers)]
        before = sum(len(one.acknowledged) for one in writers)
        for thread in threads:
            thread.start()
        stopped.until(lambda before=before: sum(len(one.acknowledged) for one in writers) >= before + 30, 60)
        time.sleep(dice.random() * 0.1)
        stopped.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()
        if number % 10 == 0 or number == ROUNDS - 1:
            check_integrity(stopped.data, tmp_path / "copy")
        stopped.start()
        version, found = listed(stopped)
        told = max(*(one.version for one in watchers), *(max(one.acknowledged) for one in writers), highest)
        assert version >= told, f"round {number}: the resourceVersion went back from {told} to {version}"
        highest = version
        for writer in writers:
            writer.compare(found)
        problems = [problem for one in (*writers, *watchers) for problem in one.problems]
        assert not problems, f"round {number}: {problems}"

    version, found = listed(stopped)
    threads = [threading.Thread(target=one.run, args=(stopped,), daemon=True) for one in watchers]
    for thread in threads:
        thread.start()
    acknowledged = {version for one in writers for version in one.acknowledged}
    stopped.until(lambda: all(one.version >= max(acknowledged) and one.state == found for one in watchers), 60)
    stopped.stop(signal.SIGKILL)
    for thread, watcher in zip(threads, watchers, strict=True):
        thread.join()
        assert not watcher.problems
        assert acknowledged <= watcher.seen, "a gap"
    print(f"{ROUNDS} rounds, {len(acknowledged)} acknowledged writes")
