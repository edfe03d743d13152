# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that a node keeps: their content by digest, what references meant, and who may use it.

Layout of the directory: ``unpacked/<digest>`` is the content, ``configs/<digest>.json`` what the image says about its
containers, ``refs/<hash>.json`` which digest a reference meant when it was last looked at, ``pulled/`` who may use it
(:mod:`.pull_records`), ``tmp/`` what is under way.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from turtles import image_manifest
from turtles.image_manifest import Manifest, ManifestError
from turtles.standalone.files import read_json, remove_tree, sync_folder, write_json
from turtles.standalone.podrunner import image_config
from turtles.standalone.podrunner.credentials import Login, repository_of
from turtles.standalone.podrunner.image_config import ImageConfig
from turtles.standalone.podrunner.image_reference import ImageError, LocalImage
from turtles.standalone.podrunner.pull_records import PullRecords

log = logging.getLogger(__name__)

_DISK_HIGH = 0.85
_KEEP_UNUSED = 3600.0


class KeptImages:
    """The images in a directory; any number of threads may ask for any."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        #: Held while content and what is known of it change together.
        self.guard = threading.Lock()
        for name in ("unpacked", "configs", "refs", "tmp"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        # Private images' content is nobody's but their Pods', in which it is mounted.
        directory.chmod(0o700)
        self._records = PullRecords(directory / "pulled")
        # What a killed podrunner left half pulled or half removed.
        for path in (directory / "tmp").iterdir():
            remove_tree(path)
        with self.guard:
            self._forget()

    def find(
        self, reference: str, local: LocalImage | None, policy: str, logins: Sequence[Login]
    ) -> tuple[str | None, bool]:
        """Return the digest that may be used for a reference as things are, and whether its content is here.

        :param local: what the reference means, if it is of this machine.
        """
        with self.guard:
            known = read_json(self._ref(reference))
            if known is None or not self.path(known["digest"]).is_dir():
                return None, False
            if local is not None:
                source = local.fingerprint()
                admitted = source is not None and known.get("source") == source
            else:
                admitted = policy != "Always" and self._records.admits(
                    known["digest"], repository_of(reference), logins
                )
            if not admitted:
                return None, True
            digest = str(known["digest"])
            os.utime(self.path(digest))
            return digest, True

    def path(self, digest: str) -> Path:
        """Return where an image's content is."""
        return self._dir / "unpacked" / digest.removeprefix("sha256:")

    def config(self, digest: str) -> ImageConfig | None:
        """Return what an image says about its containers; None if an earlier version pulled it, which didn't keep that.

        :raises ImageError: InspectFailed: it can't have containers.
        """
        kept = read_json(self._config(digest))
        if kept is None:
            return None
        if "error" in kept:
            raise ImageError("InspectFailed", str(kept["error"]))
        return image_config.restored(kept)

    def _config(self, digest: str) -> Path:
        return self._dir / "configs" / f"{digest.removeprefix('sha256:')}.json"

    def is_whole(self, digest: str) -> bool:
        """Say whether content is here, with what is said about its containers."""
        return self.path(digest).is_dir() and self._config(digest).exists()

    def collect(self, in_use: set[str]) -> list[str]:
        """Remove content no Pod uses, least recently used first, while the disk is more than 85 % full."""
        removed: list[str] = []
        contents = sorted((self._dir / "unpacked").iterdir(), key=lambda path: path.stat().st_mtime)
        for path in contents:
            usage = shutil.disk_usage(self._dir)
            if usage.used / usage.total < _DISK_HIGH:
                break
            with self.guard:
                if f"sha256:{path.name}" in in_use or time.time() - path.stat().st_mtime <= _KEEP_UNUSED:
                    continue
                # Out of sight first: half an image must never be taken for a whole one.
                doomed = self._dir / "tmp" / f"removed-{path.name}"
                path.rename(doomed)
                self._forget()
            remove_tree(doomed)
            removed.append(path.name)
        if removed:
            log.info("unused images removed", extra={"digests": removed})
        return removed

    def _forget(self) -> None:
        """Remove references and permissions of content that is gone."""
        for path in (self._dir / "refs").glob("*.json"):
            known = read_json(path)
            if known is not None and not self.path(known["digest"]).is_dir():
                path.unlink(missing_ok=True)
        kept = {path.name for path in (self._dir / "unpacked").iterdir()}
        for path in (self._dir / "configs").glob("*.json"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)
        self._records.forget({f"sha256:{name}" for name in kept})

    def _ref(self, reference: str) -> Path:
        return self._dir / "refs" / f"{hashlib.sha256(reference.encode()).hexdigest()}.json"

    def keep_config(self, digest: str, manifest: Manifest, content: Path) -> None:
        """Keep what an image says about its containers; one that says nothing usable may still become a volume."""
        kept: dict[str, Any]
        try:
            with open(content / manifest.config.digest.partition(":")[2], "rb") as file:
                kept = image_config.parse(file.read(image_manifest.MAX_MANIFEST + 1)).data()
        except (OSError, ManifestError) as error:
            kept = {"error": str(error)}
        write_json(self._config(digest), kept)

    def is_of(self, digest: str, reference: str, repository: str) -> bool:
        """Say whether content that is here was pulled from a repository before."""
        if self._records.path(digest).exists():
            return self._records.knows(digest, repository)
        # Pulled before there were records.
        return (read_json(self._ref(reference)) or {}).get("digest") == digest

    def commit(
        self,
        digest: str,
        target: Path | None,
        reference: str,
        repository: str | None,
        login: Login | None,
        source: str | None = None,
    ) -> str:
        """Put content into place, with what is known about it; the guard is held.

        :param target: the content, None if it is here.
        :param repository: the registry's, None for files of this machine.
        :param source: these files' fingerprint.
        """
        final = self.path(digest)
        if repository is not None:
            # Before the content: without a record it would count as preloaded.
            self._records.add(digest, repository, login)
        if target is not None and not final.is_dir():
            target.chmod(0o755)
            target.rename(final)
            sync_folder(final.parent)
        os.utime(final)
        write_json(self._ref(reference), {"reference": reference, "digest": digest, "source": source})
        return digest

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a directory for what is under way."""
        scratch = Path(tempfile.mkdtemp(dir=self._dir / "tmp"))
        try:
            yield scratch
        finally:
            remove_tree(scratch)

    def free(self) -> int:
        """Return how many bytes are free on the disk."""
        return shutil.disk_usage(self._dir).free
