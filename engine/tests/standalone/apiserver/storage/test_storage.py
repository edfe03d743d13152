# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption at rest, backup and restore, and disks that are full, read-only or damaged."""

import asyncio
import base64
import contextlib
import json
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from turtles.standalone.apiserver.storage import store as store_module
from turtles.standalone.apiserver.storage.encryption import Encryption, configuration, new_key
from turtles.standalone.apiserver.storage.entries import Key
from turtles.standalone.apiserver.storage.store import Store

from ..conftest import COMMAND, Server

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
NEEDLE = "c3dvcmRmaXNo"  # base64 of "swordfish"


def command(server: Server, name: str, *arguments: str) -> tuple[int, dict, str]:
    where = ["--config-dir", str(server.config), "--data-dir", str(server.data)]
    done = subprocess.run([*COMMAND, name, *where, *arguments], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def last_words(server: Server) -> str:
    """What a server says that can't start."""
    done = subprocess.run(
        [
            *COMMAND,
            "apiserver",
            "--config-dir",
            str(server.config),
            "--data-dir",
            str(server.data),
            "--port",
            str(server.port),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return str(json.loads(done.stderr.splitlines()[-1])["reason"])


def on_disk(server: Server) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(server.data.iterdir()))


# -- encryption


def test_secrets_are_encrypted_at_rest(stopped: Server) -> None:
    assert (stopped.config / "encryption.yaml").stat().st_mode & 0o777 == 0o600
    stopped.start()
    stopped.call("POST", SECRETS, {"metadata": {"name": "one"}, "data": {"password": NEEDLE}})
    merge = "application/merge-patch+json"
    stopped.call("PATCH", f"{SECRETS}/one", {"data": {"more": NEEDLE}}, merge)
    stopped.call("POST", SECRETS, {"metadata": {"name": "gone"}, "data": {"password": NEEDLE}})
    stopped.call("DELETE", f"{SECRETS}/gone")
    stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "plain"}, "data": {"word": "visible-on-disk"}})
    stopped.stop(signal.SIGKILL)
    raw = on_disk(stopped)
    assert b"visible-on-disk" in raw
    assert NEEDLE.encode() not in raw, "neither the object nor its history may be readable"
    stopped.start()
    assert stopped.call("GET", f"{SECRETS}/one")[1]["data"] == {"password": NEEDLE, "more": NEEDLE}
    types = [event["type"] for event in stopped.watch(f"{SECRETS}?resourceVersion=1")]
    assert types == ["ADDED", "MODIFIED", "ADDED", "DELETED"]


def test_secrets_of_before_are_encrypted_when_a_key_appears(stopped: Server) -> None:
    path = stopped.config / "encryption.yaml"
    with_key = path.read_bytes()
    document = yaml.safe_load(with_key)
    document["resources"][0]["providers"].reverse()
    path.write_text(yaml.safe_dump(document))
    stopped.start()
    stopped.call("POST", SECRETS, {"metadata": {"name": "one"}, "data": {"password": NEEDLE}})
    stopped.stop()
    assert NEEDLE.encode() in on_disk(stopped), "identity first: stored as it is"
    with contextlib.closing(sqlite3.connect(stopped.data / "apiserver.db")) as database, database:
        # As a history that was cut leaves them: pages of no row, with what was in it.
        large = base64.b64encode(NEEDLE.encode() * 1000)
        database.execute("PRAGMA secure_delete=OFF")
        database.execute("INSERT INTO log VALUES (999999, 'DELETED', '/secrets', 'default', 'old', 0, ?)", (large,))
        database.execute("DELETE FROM log WHERE version = 999999")
    assert large[:1000] in on_disk(stopped)
    path.write_bytes(with_key)
    stopped.start()
    assert stopped.call("GET", f"{SECRETS}/one")[1]["data"] == {"password": NEEDLE}
    assert NEEDLE.encode() not in on_disk(stopped)
    assert large[:1000] not in on_disk(stopped)


def test_rotation_rewrites_and_old_backups_stay_readable(stopped: Server, tmp_path: Path) -> None:
    stopped.start()
    stopped.call("POST", SECRETS, {"metadata": {"name": "one"}, "data": {"password": NEEDLE}})
    assert command(stopped, "backup", str(tmp_path / "backup"))[0] == 0
    assert command(stopped, "rotate-key")[:2] == (0, {"file": str(stopped.config / "encryption.yaml"), "key": "key2"})
    assert (stopped.config / "encryption.yaml").stat().st_mode & 0o777 == 0o600
    stopped.stop()
    stopped.start().stop()
    assert b"aesgcm:v1:key2:" in on_disk(stopped)
    assert b"aesgcm:v1:key1:" not in on_disk(stopped)
    assert command(stopped, "restore", str(tmp_path / "backup"))[0] == 0
    stopped.start()
    assert stopped.call("GET", f"{SECRETS}/one")[1]["data"] == {"password": NEEDLE}


def test_wrong_keys_are_told(stopped: Server, tmp_path: Path) -> None:
    stopped.start()
    stopped.call("POST", SECRETS, {"metadata": {"name": "one"}, "data": {"password": NEEDLE}})
    assert command(stopped, "backup", str(tmp_path / "backup"))[0] == 0
    stopped.stop()
    path = stopped.config / "encryption.yaml"
    path.write_bytes(configuration([new_key()]))
    assert "secrets default/one" in (reason := last_words(stopped))
    assert "another key of that name" in reason
    assert "another key" in command(stopped, "restore", str(tmp_path / "backup"))[2]
    path.write_bytes(configuration([{**new_key(), "name": "other"}]))
    assert "key 'key1', which" in last_words(stopped)
    path.chmod(0o644)
    assert "chmod 600" in last_words(stopped)
    path.unlink()
    assert "is missing" in last_words(stopped)
    path.touch(0o600)
    path.write_text("kind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: [{kms: {}}]}]")
    assert "provider kms is not supported" in last_words(stopped)
    assert stopped.init()["changed"] is False, "a file that can't be read isn't replaced"


def test_a_value_can_t_be_another_object_s(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(configuration([new_key()]))
    path.chmod(0o600)
    keys = Encryption.load(path)
    stored = keys.encrypt("/secrets", "default", "mine", b"{}")
    assert keys.decrypt("/secrets", "default", "mine", stored) == b"{}"
    with pytest.raises(Exception, match=r"secrets default/yours .* can't be decrypted"):
        keys.decrypt("/secrets", "default", "yours", stored)


# -- backup and restore


def test_backup_of_a_running_server_and_restore(stopped: Server, tmp_path: Path) -> None:
    stopped.start()
    written: list[int] = []
    end = threading.Event()

    def write() -> None:
        while not end.is_set():
            code, obj = stopped.call("POST", CONFIG_MAPS, {"metadata": {"generateName": "w-"}})
            assert code == 201
            written.append(int(obj["metadata"]["resourceVersion"]))

    thread = threading.Thread(target=write)
    thread.start()
    stopped.until(lambda: len(written) > 20)
    before = written[-1]
    code, told, _ = command(stopped, "backup", str(tmp_path / "backup"))
    end.set()
    thread.join()
    assert (code, (tmp_path / "backup").stat().st_mode & 0o777) == (0, 0o600)
    assert int(told["resourceVersion"]) >= before, "what was acknowledged before the backup is in it"
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == ["backup"], "one file"
    stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "later"}})
    newest = int(stopped.call("GET", CONFIG_MAPS)[1]["metadata"]["resourceVersion"])

    code, _, error = command(stopped, "restore", str(tmp_path / "backup"))
    assert (code, f"in use by the process {stopped.process.pid}" in error) == (1, True)
    stopped.stop()
    code, told, _ = command(stopped, "restore", str(tmp_path / "backup"))
    assert code == 0
    assert int(told["resourceVersion"]) > newest
    assert Path(told["replaced"]).exists()
    stopped.start()
    listed = stopped.call("GET", CONFIG_MAPS)[1]
    names = {item["metadata"]["name"] for item in listed["items"]}
    assert "later" not in names
    assert len(names) >= 20
    assert int(listed["metadata"]["resourceVersion"]) > newest
    (event,) = stopped.watch(f"{CONFIG_MAPS}?resourceVersion={newest}")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410), "a watcher of before lists again"
    code, obj = stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "after"}})
    assert int(obj["metadata"]["resourceVersion"]) > int(listed["metadata"]["resourceVersion"])
    (event,) = stopped.watch(f"{CONFIG_MAPS}?resourceVersion={listed['metadata']['resourceVersion']}")
    assert event["object"]["metadata"]["name"] == "after"


def test_restore_on_a_new_machine_and_what_is_no_backup(stopped: Server, tmp_path: Path) -> None:
    stopped.start()
    stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "kept"}})
    assert command(stopped, "backup", str(tmp_path / "backup"))[0] == 0
    stopped.stop()
    for path in stopped.data.iterdir():
        path.unlink()
    assert command(stopped, "backup", str(tmp_path / "none"))[0] == 1
    (tmp_path / "text").write_text("no database at all, and long enough to look at" * 100)
    for name, why in (("text", "not a backup of an API server"), ("missing", "there is no backup")):
        code, _, error = command(stopped, "restore", str(tmp_path / name))
        assert (code, why in error) == (1, True), error
    damaged = bytearray((tmp_path / "backup").read_bytes())
    for position in range(4096 * 3, len(damaged) - 4096, 4096):
        damaged[position : position + 64] = b"\xff" * 64
    (tmp_path / "damaged").write_bytes(damaged)
    assert command(stopped, "restore", str(tmp_path / "damaged"))[0] == 1
    assert not (stopped.data / "apiserver.db").exists()
    assert command(stopped, "restore", str(tmp_path / "backup"))[1]["replaced"] is None
    stopped.start()
    for target, why in ((tmp_path, "is a folder"), (tmp_path / "none/backup", f"there is no folder {tmp_path}/none")):
        code, _, text = command(stopped, "backup", str(target))
        assert (code, why in text) == (1, True)
    assert stopped.call("GET", f"{CONFIG_MAPS}/kept")[0] == 200


# -- disks


def test_damaged_database_is_told(stopped: Server) -> None:
    stopped.start()
    for number in range(50):
        stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": f"n{number}"}, "data": {"a": "x" * 3000}})
    stopped.stop()
    path = stopped.data / "apiserver.db"
    good = path.read_bytes()
    assert len(good) > 20 * 4096
    for damage in (b"no database", good[: 9 * 4096], good[:4096] + b"\xff" * (len(good) - 4096)):
        path.write_bytes(damage)
        reason = last_words(stopped)
        assert (str(path) in reason, "virt-standalone restore" in reason) == (True, True), reason
    position = good.index(b'"name":"n7"')
    path.write_bytes(good[:position] + b"\0" * 40 + good[position + 40 :])
    assert "configmaps default/n7" in last_words(stopped)


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting isn't possible here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.root
def test_full_disk_is_told_and_recovers(stopped: Server) -> None:
    with small_disk(stopped.data, 12):
        try:
            stopped.start()
            stored, refused = 0, 0
            for number in range(60):
                body = {"metadata": {"name": f"n{number}"}, "data": {"a": "x" * 500_000}}
                code, answer = stopped.call("POST", CONFIG_MAPS, body)
                if code == 201:
                    stored += 1
                    continue
                refused += 1
                assert (code, answer["kind"], answer["reason"]) == (507, "Status", "InsufficientStorage"), answer
                assert "disk of the API server is full" in answer["message"]
                if refused == 3:
                    break
            assert stored > 3
            assert refused == 3
            listed = stopped.call("GET", CONFIG_MAPS)[1]
            assert len([one for one in listed["items"] if one["metadata"]["name"].startswith("n")]) == stored
            subprocess.run(["mount", "-o", "remount,size=64m", str(stopped.data)], check=True)
            assert stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "after"}})[0] == 201, "without a restart"
            stopped.stop(signal.SIGKILL)
            stopped.start()
            assert len(stopped.call("GET", CONFIG_MAPS)[1]["items"]) == len(listed["items"]) + 1
        finally:
            stopped.stop(signal.SIGKILL)


@pytest.mark.root
def test_read_only_disk_is_told_and_recovers(stopped: Server) -> None:
    with small_disk(stopped.data, 16):
        try:
            stopped.start().stop()
            subprocess.run(["mount", "-o", "remount,ro", str(stopped.data)], check=True)
            assert "Read-only file system" in last_words(stopped)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(stopped.data)], check=True)
        stopped.start()
        assert stopped.call("POST", CONFIG_MAPS, {"metadata": {"name": "after"}})[0] == 201
        stopped.stop()


async def test_history_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "HISTORY_BYTES", 100_000)
    one = Store(tmp_path / "db")
    one.start(asyncio.get_running_loop())
    version = 0
    for number in range(30):
        obj = {"metadata": {"name": "a", "uid": "a", "labels": {"n": str(number)}}, "data": "x" * 10_000}
        version = (await one.put(Key("/configmaps", "default", "a"), obj, version)).version
    with pytest.raises(LookupError):
        one.since("/configmaps", 1)
    assert 5 <= len(one.since("/configmaps", version - 5)) <= 11
    one.close()
    connection = sqlite3.connect(tmp_path / "db")
    assert connection.execute("SELECT count(*) FROM log").fetchone()[0] <= 13, "on disk too"
    connection.close()
    before = time.time()
    again = Store(tmp_path / "db")
    again.compact(before + 10_000)
    assert again.since("/configmaps", again.version) == []
    again.close()


async def test_a_clock_that_is_set_ends_no_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Store(tmp_path / "db")
    one.start(asyncio.get_running_loop())
    version = 0
    for number in range(3):
        obj = {"metadata": {"name": "a", "uid": "a", "labels": {"n": str(number)}}}
        version = (await one.put(Key("/configmaps", "default", "a"), obj, version)).version
    then = time.time()
    monkeypatch.setattr(time, "time", lambda: then + 86400)
    one.compact()
    assert len(one.since("/configmaps", version - 2)) == 2
    monkeypatch.setattr(time, "time", lambda: then - 86400)
    one.close()
    again = Store(tmp_path / "db")
    assert len(again.since("/configmaps", version - 2)) == 2
    again.compact(then)
    with pytest.raises(LookupError):
        again.since("/configmaps", version - 2)
    again.close()
