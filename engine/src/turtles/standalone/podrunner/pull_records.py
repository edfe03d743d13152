# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use an image that is on the node: those who proved to the registry that they may pull it.

Rules: Kubernetes KEP-2535, "Ensure secret pulled images", with the policy NeverVerifyPreloadedImages, the kubelet's
default since 1.35. An image has a record for each repository that it was pulled from: that no credentials were needed,
or which Secret they came from and a keyed hash of them. A Pod may use it that brings equal credentials, or the same
Secret, whose content may have been renewed since. An image without a record wasn't pulled by a podrunner that kept any:
it counts as preloaded, and all may use it.

Files: ``pulled/<digest>.json``, for root only; ``pulled/key`` is what the hashes are made with.
"""

import hashlib
import hmac
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turtles.standalone.files import read_json, sync_folder, write_json, write_text
from turtles.standalone.podrunner.credentials import Login

log = logging.getLogger(__name__)

#: Secrets remembered for an image and repository; beyond that, Pods prove access each time.
_MAX_SECRETS = 100


class PullRecords:
    """Reads and writes the records; the caller makes sure that there is one writer at a time."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        key = directory / "key"
        if not key.exists():
            write_text(key, os.urandom(32).hex())
        self._key = key.read_bytes()

    def admits(self, digest: str, repository: str, logins: Sequence[Login]) -> bool:
        """Say whether an image may be used with these credentials without asking the registry.

        What is learned about a renewed Secret, or about another Secret with equal credentials, is recorded.
        """
        entry = self._entry(digest, repository)
        if entry is None:
            return not self.path(digest).exists()
        if entry.get("anyone"):
            return True
        secrets: list[dict[str, Any]] = entry.get("secrets") or []
        hashes = {secret["hash"] for secret in secrets}
        owners = {_owner(secret) for secret in secrets}
        for login in logins:
            if self._hash(login) in hashes or login.secret in owners:
                self.add(digest, repository, login)
                return True
        return False

    def knows(self, digest: str, repository: str) -> bool:
        """Say whether an image is known to be in a repository."""
        return self._entry(digest, repository) is not None

    def add(self, digest: str, repository: str, login: Login | None) -> None:
        """Record that an image was pulled from a repository with a login, or (None) without any."""
        record = read_json(self.path(digest)) or {"digest": digest, "repositories": {}}
        entry = record["repositories"].setdefault(repository, {})
        if entry.get("anyone"):
            return
        if login is None:
            new: dict[str, Any] = {"anyone": True}
        else:
            own = {"uid": login.uid, "namespace": login.namespace, "name": login.name, "hash": self._hash(login)}
            secrets = entry.get("secrets") or []
            if own in secrets:
                return
            others = [secret for secret in secrets if _owner(secret) != login.secret]
            if len(others) >= _MAX_SECRETS:
                return
            new = {"secrets": [*others, own]}
        record["repositories"][repository] = new
        write_json(self.path(digest), record)
        sync_folder(self._dir)

    def forget(self, keep: set[str]) -> None:
        """Remove the records of all images but those with the digests to keep."""
        for path in self._dir.glob("*.json"):
            if f"sha256:{path.stem}" not in keep:
                path.unlink(missing_ok=True)

    def _entry(self, digest: str, repository: str) -> dict[str, Any] | None:
        record = read_json(self.path(digest))
        entry = ((record or {}).get("repositories") or {}).get(repository)
        return entry if isinstance(entry, dict) else None

    def path(self, digest: str) -> Path:
        """Return where an image's record is."""
        return self._dir / f"{digest.removeprefix('sha256:')}.json"

    def _hash(self, login: Login) -> str:
        return hmac.new(self._key, login.content, hashlib.sha256).hexdigest()


def _owner(secret: dict[str, Any]) -> tuple[str, str, str]:
    return secret["uid"], secret["namespace"], secret["name"]
