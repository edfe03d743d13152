# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-standalone backup``, ``restore`` and ``rotate-key``: maintenance of what is stored."""

import argparse
import os
import sqlite3
from pathlib import Path

from turtles.command import Tool
from turtles.standalone.apiserver.storage import database, encryption
from turtles.standalone.apiserver.storage.database import DATABASE, DatabaseError
from turtles.standalone.apiserver.storage.encryption import Encryption, EncryptionError

_FAILURES = (sqlite3.Error, DatabaseError, EncryptionError)


def _tool(name: str, description: str) -> Tool:
    tool = Tool(f"virt-standalone {name}", description)
    tool.parser.add_argument(
        "--config-dir",
        type=Path,
        default=Path("/etc/turtles"),
        help="folder that virt-standalone init created (default: %(default)s)",
    )
    tool.parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("/var/lib/turtles/apiserver"),
        help="the API server's folder (default: %(default)s)",
    )
    return tool


def backup(argv: list[str]) -> int:
    """Run ``virt-standalone backup FILE`` and print ``{"file", "bytes", "resourceVersion"}``."""
    tool = _tool(
        "backup",
        "Copies the database to FILE, whether or not the API server is running, and verifies the copy. FILE gets mode "
        "0600 and replaces an older one only when it is complete. Secrets in it are encrypted: keep a copy of "
        "encryption.yaml from the configuration folder as well, in another place.",
    )
    tool.parser.add_argument("file", type=Path, metavar="FILE")

    def act(options: argparse.Namespace) -> dict[str, object]:
        version = database.backup(options.data_dir / DATABASE, options.file)
        return {"file": str(options.file), "bytes": options.file.stat().st_size, "resourceVersion": str(version)}

    return tool.report(act, argv, _FAILURES)


def restore(argv: list[str]) -> int:
    """Run ``virt-standalone restore FILE`` and print ``{"resourceVersion", "replaced"}``."""
    tool = _tool(
        "restore",
        "Replaces the database with the backup FILE; the API server must be stopped. The previous database is kept "
        "beside it. Resource versions continue far above the previous ones, so that clients with a watch list again. "
        "If it fails, nothing has changed.",
    )
    tool.parser.add_argument("file", type=Path, metavar="FILE")

    def act(options: argparse.Namespace) -> dict[str, object]:
        keys = Encryption.load(options.config_dir / encryption.FILE)
        options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        version, replaced = database.restore(options.file, options.data_dir / DATABASE, keys)
        return {"resourceVersion": str(version), "replaced": str(replaced) if replaced else None}

    return tool.report(act, argv, _FAILURES)


def rotate_key(argv: list[str]) -> int:
    """Run ``virt-standalone rotate-key`` and print ``{"file", "key"}``."""
    tool = _tool(
        "rotate-key",
        "Adds a new key to encryption.yaml, in first place. At its next start the API server encrypts all Secrets with "
        "it. The older keys stay in the file, for backups.",
    )

    def act(options: argparse.Namespace) -> dict[str, object]:
        path: Path = options.config_dir / encryption.FILE
        text, name = encryption.rotated(path)
        unfinished = path.with_name(path.name + ".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
        return {"file": str(path), "key": name}

    return tool.report(act, argv, _FAILURES)
