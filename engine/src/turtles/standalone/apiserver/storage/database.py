# SPDX-License-Identifier: GPL-3.0-or-later
"""The file under the store: a log of writes in SQLite.

One process at a time may serve a database; a lock beside it keeps others out. Reading it meanwhile is allowed, which
is how a backup is made while the server runs.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from turtles.standalone.apiserver.storage.encryption import Encryption
from turtles.standalone.files import sync_folder

log = logging.getLogger(__name__)

#: The file's name in the server's folder.
DATABASE = "apiserver.db"
#: The write-ahead log is cut to this many bytes after a checkpoint.
WAL_BYTES = 32 * 1024 * 1024
#: What a restored database's resourceVersion is ahead of the backup's at least. No client can have seen a version
#: that high, so clients that watched the previous database have to list again (the same number and reason as etcd's
#: ``snapshot restore --bump-revision 1000000000 --mark-compacted``, which Kubernetes' documentation asks for).
RESTORE_BUMP = 1_000_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    version INTEGER PRIMARY KEY, type TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, time REAL NOT NULL, value BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
_INSERT = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT version, type, resource, namespace, name, time, value FROM log ORDER BY version"


class DatabaseError(Exception):
    """The database can't be used; the message says which, why, and what to do."""


class Row(NamedTuple):
    """A write: an object's JSON after it, or its last one for a deletion."""

    version: int
    type: str
    resource: str
    namespace: str
    name: str
    time: float
    value: bytes


class Database:
    """One process's database. Used by one thread at a time."""

    def __init__(self, path: Path, encryption: Encryption | None = None) -> None:
        """Open it, made when it is missing.

        :raises DatabaseError: when another process has it, or it is damaged.
        :raises OSError: when its folder can't be used.
        """
        self.path = path
        self._encryption = encryption or Encryption()
        #: Versions of rows read that aren't stored as the configuration wants it.
        self._stale: list[int] = []
        self._lock = lock(path)
        try:
            # Secrets are in it; SQLite gives its further files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        except (OSError, sqlite3.Error):
            os.close(self._lock)
            raise
        try:
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "cache_size=-4096",
                f"journal_size_limit={WAL_BYTES}",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
            self.compacted = _meta(self._connection, "compacted")
        except sqlite3.DatabaseError as error:
            self.close()
            raise _damaged(path, error) from None

    def rows(self) -> Iterator[Row]:
        """Yield all writes, oldest first.

        :raises DatabaseError: when one can't be read.
        :raises EncryptionError: when one can't be decrypted.
        """
        encryption = self._encryption
        try:
            for version, kind, resource, namespace, name, when, value in self._connection.execute(_SELECT):
                plain = encryption.decrypt(resource, namespace, name, value)
                if not encryption.is_current(resource, value):
                    self._stale.append(version)
                yield Row(version, kind, resource, namespace, name, when, plain)
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, error) from None

    def damaged(self, row: Row, error: Exception) -> DatabaseError:
        """Return the error for a row whose value makes no sense."""
        return _damaged(self.path, f"{row.resource.lstrip('/')} {row.namespace}/{row.name}: {error}")

    def write(self, rows: Iterable[Row], purged: Iterable[int] = (), compacted: int = 0) -> None:
        """Store writes durably, all or none; drop rows by their versions.

        :param compacted: what the history is cut at from now on, 0 for as before.
        :raises sqlite3.Error: when that isn't possible; nothing has changed then.
        """
        connection, encrypt = self._connection, self._encryption.encrypt
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                _INSERT, [(*row[:6], encrypt(row.resource, row.namespace, row.name, row.value)) for row in rows]
            )
            connection.executemany("DELETE FROM log WHERE version = ?", [(version,) for version in purged])
            if compacted:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (compacted,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                # SQLite itself rolls back after some errors; then there is nothing left to do.
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def reencrypt(self) -> int:
        """Rewrite the rows read that aren't stored as the configuration wants it; return how many those were.

        What was there before is overwritten, in the write-ahead log too, and in pages that deleted rows left behind.
        """
        if not self._stale:
            return 0
        encryption, connection = self._encryption, self._connection
        select = "SELECT resource, namespace, name, value FROM log WHERE version = ?"
        connection.execute("BEGIN IMMEDIATE")
        for version in self._stale:
            resource, namespace, name, value = connection.execute(select, (version,)).fetchone()
            plain = encryption.decrypt(resource, namespace, name, value)
            sealed = encryption.encrypt(resource, namespace, name, plain)
            connection.execute("UPDATE log SET value = ? WHERE version = ?", (sealed, version))
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rewritten = len(self._stale)
        self._stale.clear()
        return rewritten

    def size(self) -> int:
        """Return the bytes on disk."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the file and let others have it."""
        self._connection.close()
        os.close(self._lock)


def lock(path: Path) -> int:
    """Take the lock of a database; return the descriptor that holds it until it is closed.

    :raises DatabaseError: when another process has it.
    """
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise DatabaseError(f"{path} is in use by the process {owner}: stop that one first") from None
    # Who it is, for the message above; on a full disk that has to do without.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _meta(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def _damaged(path: Path, why: object) -> DatabaseError:
    return DatabaseError(f"{path} can't be used: {why}. Restore a backup with: virt-standalone restore FILE")


# -- backup and restore


def backup(path: Path, target: Path) -> int:
    """Copy a database, in use or not, to a new file of mode 0600; return its resourceVersion.

    The copy is the state at one moment, without the write-ahead log, checked before it gets its name.

    :raises DatabaseError: when there is no database, or it or the copy is damaged.
    :raises OSError: when the copy can't be written.
    """
    if not path.is_file():
        raise DatabaseError(f"there is no database {path}: name the server's folder with --data-dir")
    if not target.parent.is_dir():
        raise DatabaseError(f"there is no folder {target.parent} for the backup: create it, or name another")
    if target.is_dir():
        raise DatabaseError(f"{target} is a folder: name a file for the backup")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=30)) as source,
            contextlib.closing(sqlite3.connect(unfinished)) as copy,
        ):
            # All pages in one step: a single moment, whatever is written meanwhile.
            source.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")
            version = _check(copy, unfinished)
        with open(unfinished, "rb+") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(target)
    except sqlite3.Error as error:
        raise DatabaseError(f"the backup of {path} to {target} failed: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(target.parent)
    return version


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """Return a database's resourceVersion; raise when it isn't one of ours, or damaged."""
    try:
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if problems != ["ok"]:
            raise DatabaseError(f"{path} is damaged: {'; '.join(problems[:3])}")
        newest = connection.execute("SELECT max(version) FROM log").fetchone()[0] or 0
        return max(int(newest), _meta(connection, "compacted"))
    except sqlite3.DatabaseError as error:
        raise DatabaseError(f"{path} is not a backup of an API server: {error}") from None


def restore(source: Path, path: Path, encryption: Encryption) -> tuple[int, Path | None]:
    """Put a backup in a database's place; return its new resourceVersion and where the database of before is now.

    The resourceVersion goes on above all that clients have seen, and the history starts over: clients that watched
    the previous database get 410 and list again, instead of resuming in a history that isn't theirs.

    :raises DatabaseError: when a server uses the database, or the backup is damaged.
    :raises EncryptionError: when the backup's Secrets can't be decrypted with the keys there are.
    """
    held = lock(path)
    unfinished = path.with_name(f".{path.name}.restoring")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not source.is_file():
            raise DatabaseError(f"there is no backup {source}")
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as backed_up,
            contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as copy,
        ):
            version = _check(backed_up, source)
            backed_up.backup(copy, pages=-1)
            for _, _, resource, namespace, name, _, value in copy.execute(_SELECT):
                encryption.decrypt(resource, namespace, name, value)
            version = max(version, _told(path)) + RESTORE_BUMP
            copy.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (version,))
        with open(unfinished, "rb+") as stream:
            os.fsync(stream.fileno())
        kept = _put_aside(path)
        unfinished.replace(path)
        sync_folder(path.parent)
        return version, kept
    except sqlite3.Error as error:
        raise DatabaseError(f"restoring {source} to {path} failed: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
        os.close(held)


def _told(path: Path) -> int:
    """Return the resourceVersion of the database that a backup replaces; 0 when there is none that can be read."""
    if not path.is_file():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return _check(connection, path)
    except (sqlite3.Error, DatabaseError) as error:
        log.warning("the database that is replaced can't be read", extra={"path": str(path), "reason": str(error)})
        return 0


def _put_aside(path: Path) -> Path | None:
    """Rename a database with its write-ahead log; return its new name."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for suffix in ("-wal", "-shm", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(kept.with_name(kept.name + suffix))
    return kept
