# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-standalone backup``, ``restore`` and ``rotate-key``: looking after what is stored."""

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from turtles.standalone.apiserver.storage import database, encryption
from turtles.standalone.apiserver.storage.database import DATABASE, DatabaseError
from turtles.standalone.apiserver.storage.encryption import Encryption, EncryptionError


def _parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"virt-standalone {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-dir", type=Path, default=Path("/etc/turtles"), help="what virt-standalone init made")
    parser.add_argument("--data-dir", type=Path, default=Path("/var/lib/turtles/apiserver"), help="the server's folder")
    return parser


def _run(name: str, action: Callable[[], dict[str, object]]) -> int:
    try:
        print(json.dumps(action()))
    except (OSError, sqlite3.Error, DatabaseError, EncryptionError) as error:
        print(f"virt-standalone {name}: {error}", file=sys.stderr)
        return 1
    return 0


def backup(argv: list[str]) -> int:
    """Copy the database to FILE, whether the API server runs or not, and check the copy.

    FILE gets mode 0600 and replaces an older one only when it is whole. Secrets in it are encrypted: keep
    encryption.yaml of the configuration folder too, elsewhere.
    Prints {"file", "bytes", "resourceVersion"}; 1 when it failed.
    """
    parser = _parser("backup", backup.__doc__)
    parser.add_argument("file", type=Path)
    options = parser.parse_args(argv)

    def act() -> dict[str, object]:
        version = database.backup(options.data_dir / DATABASE, options.file)
        return {"file": str(options.file), "bytes": options.file.stat().st_size, "resourceVersion": str(version)}

    return _run("backup", act)


def restore(argv: list[str]) -> int:
    """Put the backup FILE in the database's place. The API server must be stopped.

    The previous database is kept beside it. resourceVersions go on far above those of before, so that clients
    that watched list again.
    Prints {"resourceVersion", "replaced"}; 1 when it failed, and then nothing has changed.
    """
    parser = _parser("restore", restore.__doc__)
    parser.add_argument("file", type=Path)
    options = parser.parse_args(argv)

    def act() -> dict[str, object]:
        keys = Encryption.load(options.config_dir / encryption.FILE)
        options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        version, replaced = database.restore(options.file, options.data_dir / DATABASE, keys)
        return {"resourceVersion": str(version), "replaced": str(replaced) if replaced else None}

    return _run("restore", act)


def rotate_key(argv: list[str]) -> int:
    """Put a new key before those of encryption.yaml.

    At its next start the API server encrypts all Secrets with it. The older keys stay in the file, for backups.
    Prints {"file", "key"}; 1 when it failed.
    """
    parser = _parser("rotate-key", rotate_key.__doc__)
    options = parser.parse_args(argv)
    path: Path = options.config_dir / encryption.FILE

    def act() -> dict[str, object]:
        text, name = encryption.rotated(path)
        unfinished = path.with_name(path.name + ".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
        return {"file": str(path), "key": name}

    return _run("rotate-key", act)
