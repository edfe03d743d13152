# SPDX-License-Identifier: GPL-3.0-or-later
"""Images, whose content becomes a volume or a container's files: pulled by skopeo, unpacked once, kept by digest.

Layout of the images directory: ``unpacked/<digest>`` is the content, ``configs/<digest>.json`` what the image says
about its containers, ``refs/<hash>.json`` which digest a reference meant when it was last looked at, ``pulled/`` who
may use it (:mod:`.pull_records`), ``tmp/`` what is under way.
References without a transport are of a registry; ``oci:``, ``oci-archive:`` and ``docker-archive:`` name files on this
machine, below the directories that the configuration allows.

Registry, archive and image are untrusted input: what a pull may cost in bytes and time is limited.
"""

import contextlib
import hashlib
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turtles.standalone.podrunner import image_config, image_manifest
from turtles.standalone.podrunner.confined import Attempt, CancelledError, Limits, OverdueError, run
from turtles.standalone.podrunner.credentials import Login, repository_of
from turtles.standalone.podrunner.files import read_json, remove_tree, sync_folder, write_json
from turtles.standalone.podrunner.image_config import ImageConfig
from turtles.standalone.podrunner.image_manifest import Index, Manifest, ManifestError, digest_of
from turtles.standalone.podrunner.pull_records import PullRecords
from turtles.standalone.podrunner.skopeo import Skopeo
from turtles.standalone.podrunner.unpack import RESERVE
from turtles.standalone.podrunner.watch import PullError, RoomWatch, SilenceError, mib
from turtles.standalone.stamp import TICK, stamp

log = logging.getLogger(__name__)

_LOCAL = ("oci-archive", "docker-archive", "oci")
_REFERENCE = re.compile(r"[a-z0-9A-Z][\w.:/\-]*(@sha256:[0-9a-f]{64})?", re.ASCII)
_MAX_ENTRIES = 200_000
_DISK_HIGH = 0.85
_KEEP_UNUSED = 3600.0
#: What the unpacking process's memory may grow to, as RLIMIT_DATA counts it.
_DATA = 1 << 30
#: Names of architectures as images have them, by uname(2)'s.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ImageError(Exception):
    """An image is not available. ``reason`` is what Kubernetes shows for a waiting container."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ImageLimits:
    """Limits of one image.

    :param max_bytes: of what is downloaded, and of what that unpacks to.
    :param max_apparent_bytes: sum of its files' sizes with their holes.
    :param seconds: a pull may take, from the registry's first answer to the last file.
    """

    max_bytes: int = 64 << 30
    max_apparent_bytes: int = 1 << 40
    max_entries: int = _MAX_ENTRIES
    seconds: float = 1800.0


def default_policy(reference: str) -> str:
    """Return the pull policy of an image that has none: Always for the tag latest, else IfNotPresent."""
    if "@" in reference:
        return "IfNotPresent"
    tag = reference.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def is_local(reference: str) -> bool:
    """Say whether a reference names files of this machine."""
    transport, colon, rest = reference.partition(":")
    return bool(colon) and transport in _LOCAL and rest.startswith("/")


@dataclass(frozen=True)
class _Local:
    """A reference to files of this machine."""

    transport: str
    path: Path
    tag: str

    @property
    def url(self) -> str:
        return f"{self.transport}:{self.path}" + (f":{self.tag}" if self.tag else "")

    def fingerprint(self) -> str | None:
        """Return a fingerprint of the image; None if that isn't certain yet."""
        try:
            now = stamp(self.path / "index.json" if self.transport == "oci" else self.path)
        except OSError:
            return None
        return None if now is None else f"{self.path}:{self.tag}:{':'.join(map(str, now))}"


class ImageStore:
    """Pulls and keeps images; any number of threads may ask for any.

    :param allowed_dirs: where local references may point.
    :param insecure: registries (host:port) reached over plain HTTP or with unverified TLS.
    """

    def __init__(
        self,
        directory: Path,
        allowed_dirs: Sequence[Path] = (),
        insecure: Sequence[str] = (),
        limits: ImageLimits = ImageLimits(),
    ) -> None:
        self._dir = directory
        self._allowed = [Path(os.path.realpath(path)) for path in allowed_dirs]
        self._limits = limits
        self._skopeo = Skopeo(insecure, int(limits.seconds))
        #: Held while content and what is known of it change together.
        self._guard = threading.Lock()
        for name in ("unpacked", "configs", "refs", "tmp"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        # Private images' content is nobody's but their Pods', in which it is mounted.
        directory.chmod(0o700)
        self._records = PullRecords(directory / "pulled")
        # What a killed podrunner left half pulled or half removed.
        for path in (directory / "tmp").iterdir():
            remove_tree(path)
        with self._guard:
            self._forget()

    def attempt(self) -> Attempt:
        """Return the argument of a pull, whose time starts now."""
        return Attempt(self._limits.seconds)

    def present(self, reference: str, policy: str, logins: Sequence[Login] = ()) -> str | None:
        """Return the digest of an image that needs neither a pull nor a request to a registry, else None.

        :param policy: Always, IfNotPresent or Never.
        :param logins: what the Pod's pull secrets have for the image.
        :raises ImageError: InvalidImageName, ErrImagePull; ErrImageNeverPull: it would need one.
        """
        local = self._local(reference)
        with self._guard:
            known = read_json(self._ref(reference))
            there = known is not None and self.path(known["digest"]).is_dir()
            digest = None
            if known is not None and there:
                if local is not None:
                    source = local.fingerprint()
                    admitted = source is not None and known.get("source") == source
                else:
                    admitted = policy != "Always" and self._records.admits(
                        known["digest"], repository_of(reference), logins
                    )
                digest = str(known["digest"]) if admitted else None
            if digest is not None:
                os.utime(self.path(digest))
                return digest
        if policy == "Never":
            raise ImageError("ErrImageNeverPull", f"image {reference} {_NEVER[there and local is None]}")
        return None

    def ensure(self, reference: str, policy: str, logins: Sequence[Login] = (), attempt: Attempt | None = None) -> str:
        """Return the digest of an image's content, pulling it if the policy says so, or if access has to be proved.

        :param attempt: cancels it.
        :raises ImageError: ErrImagePull, ErrImageNeverPull or InvalidImageName.
        """
        digest = self.present(reference, policy, logins)
        if digest is not None:
            return digest
        attempt = attempt or self.attempt()
        started = time.monotonic()
        local = self._local(reference)
        try:
            digest = self._pull(reference, logins, attempt) if local is None else self._load(reference, local, attempt)
        except CancelledError as error:
            raise ImageError("ErrImagePull", f"image {reference}: no Pod waits for it any more") from error
        except OverdueError as error:
            message = f"image {reference}: not pulled after {attempt.seconds:.0f} s; it was still {attempt.stage}"
            raise ImageError("ErrImagePull", message) from error
        except FileNotFoundError as error:
            raise ImageError("ErrImagePull", f"image {reference}: the program {error} is not installed") from error
        except (PullError, ManifestError) as error:
            raise ImageError("ErrImagePull", f"image {reference}: {error}") from error
        log.info(
            "image pulled",
            extra={"image": reference, "digest": digest, "seconds": round(time.monotonic() - started, 3)},
        )
        return digest

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

    def _is_whole(self, digest: str) -> bool:
        return self.path(digest).is_dir() and self._config(digest).exists()

    def collect(self, in_use: set[str]) -> list[str]:
        """Remove content no Pod uses, least recently used first, while the disk is more than 85 % full."""
        removed: list[str] = []
        contents = sorted((self._dir / "unpacked").iterdir(), key=lambda path: path.stat().st_mtime)
        for path in contents:
            usage = shutil.disk_usage(self._dir)
            if usage.used / usage.total < _DISK_HIGH:
                break
            with self._guard:
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

    def _local(self, reference: str) -> _Local | None:
        """Return what a reference to this machine's files means, None for a registry's.

        :raises ImageError: ErrImagePull: it points outside the allowed directories;
            InvalidImageName: it is no reference.
        """
        transport, _, rest = reference.partition(":")
        if not is_local(reference):
            if not _REFERENCE.fullmatch(reference) or ".." in reference:
                raise ImageError(
                    "InvalidImageName",
                    f"{reference!r} is not an image reference: use registry/name:tag, or oci:, oci-archive: or "
                    "docker-archive: with an absolute path",
                )
            return None
        name, _, tag = rest.partition(":")
        path = Path(os.path.realpath(name))
        if not any(path.is_relative_to(allowed) for allowed in self._allowed):
            allowed_text = ", ".join(str(allowed) for allowed in self._allowed) or "(none)"
            raise ImageError(
                "ErrImagePull",
                f"image {reference}: files of this machine may only be used from: {allowed_text}",
            )
        return _Local(transport, path, tag)

    # --- from a registry ---------------------------------------------------------------------------------------------

    def _pull(self, reference: str, logins: Sequence[Login], attempt: Attempt) -> str:
        """Request an image's manifest from the registry, with each login in turn, and fetch what is missing."""
        repository = repository_of(reference)
        wanted = reference.partition("@")[2]
        # skopeo doesn't take a tag beside a digest, and the digest is what counts.
        source = f"{repository}@{wanted}" if wanted else reference
        with self._scratch() as scratch:
            failure = PullError("it was not pulled")
            candidates: list[Login | None] = [*logins] or [None]
            for login in candidates:
                try:
                    raw = self._skopeo.manifest(source, wanted, login, scratch, attempt)
                except SilenceError:
                    raise
                except PullError as error:
                    failure = error
                    continue
                return self._fetch(reference, repository, raw, login, scratch, attempt)
        raise failure

    def _fetch(
        self, reference: str, repository: str, raw: bytes, login: Login | None, scratch: Path, attempt: Attempt
    ) -> str:
        manifest = image_manifest.parse(raw)
        if isinstance(manifest, Index):
            machine = platform.machine()
            chosen = manifest.choose(_ARCHITECTURES.get(machine, machine))
            raw = self._skopeo.manifest(f"{repository}@{chosen}", chosen, login, scratch, attempt)
            manifest = image_manifest.parse(raw)
            if isinstance(manifest, Index):
                raise ManifestError("the image's index has another index in it, which is not accepted")
        digest = digest_of(raw)
        with self._guard:
            if self._is_whole(digest) and self._is_of(digest, reference, repository):
                # Somebody who may read the manifest of a repository may read its layers: they needn't be sent again.
                # From another repository they have to be: a manifest alone is no proof of having them.
                return self._commit(digest, None, reference, repository, login)
        self._check_size(manifest)
        content = self._skopeo.download(repository, digest, manifest, login, scratch, attempt)
        target = self._unpack(content, scratch, attempt)
        self._keep_config(digest, manifest, content)
        with self._guard:
            return self._commit(digest, target, reference, repository, login)

    def _keep_config(self, digest: str, manifest: Manifest, content: Path) -> None:
        """Keep what an image says about its containers; one that says nothing usable may still become a volume."""
        kept: dict[str, Any]
        try:
            with open(content / manifest.config.digest.partition(":")[2], "rb") as file:
                kept = image_config.parse(file.read(image_manifest.MAX_MANIFEST + 1)).data()
        except (OSError, ManifestError) as error:
            kept = {"error": str(error)}
        write_json(self._config(digest), kept)

    def _is_of(self, digest: str, reference: str, repository: str) -> bool:
        """Say whether content that is here was pulled from a repository before."""
        if self._records.path(digest).exists():
            return self._records.knows(digest, repository)
        # Pulled before there were records.
        return (read_json(self._ref(reference)) or {}).get("digest") == digest

    def _check_size(self, manifest: Manifest) -> None:
        room = shutil.disk_usage(self._dir).free - RESERVE
        for limit, what in ((self._limits.max_bytes, "are accepted"), (room, "are free on the disk with the images")):
            if manifest.size > limit:
                raise PullError(
                    f"its layers are {mib(manifest.size)} to download, but at most {mib(max(0, limit))} {what}"
                )

    def _commit(
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

    # --- from this machine -------------------------------------------------------------------------------------------

    def _load(self, reference: str, local: _Local, attempt: Attempt) -> str:
        if not local.path.exists():
            raise PullError(f"{local.path} does not exist on this node")
        source = local.fingerprint()
        if source is None:
            # It changed a moment ago: from here on, what is pulled can be told from what it becomes next.
            time.sleep(TICK)
            source = local.fingerprint()
        with self._scratch() as scratch:
            content = self._skopeo.load(local.url, local.path, self._limits.max_bytes, scratch, attempt)
            raw = (content / "manifest.json").read_bytes()
            digest, manifest = digest_of(raw), image_manifest.parse(raw)
            target = None if self._is_whole(digest) else self._unpack(content, scratch, attempt)
            if isinstance(manifest, Manifest):
                self._keep_config(digest, manifest, content)
            with self._guard:
                if target is None and not self.path(digest).is_dir():
                    raise PullError("it was removed from this node in the meantime; it will be read again")
                return self._commit(digest, target, reference, None, None, source)

    # --- both --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        scratch = Path(tempfile.mkdtemp(dir=self._dir / "tmp"))
        try:
            yield scratch
        finally:
            remove_tree(scratch)

    def _unpack(self, content: Path, scratch: Path, attempt: Attempt) -> Path:
        target = scratch / "content"
        target.mkdir()
        attempt.stage = "unpacking its layers"
        limits = Limits(int(self._limits.seconds), _DATA, self._limits.max_apparent_bytes)
        ended = run(
            [
                sys.executable,
                "-m",
                "turtles.standalone.podrunner.unpack",
                str(content),
                str(target),
                str(self._limits.max_bytes),
                str(self._limits.max_apparent_bytes),
                str(self._limits.max_entries),
            ],
            limits,
            attempt,
            scratch,
            check=RoomWatch(scratch).check,
        )
        if ended.out_of_cpu:
            raise PullError(f"unpacking it took more than {limits.cpu} s of processor time")
        if ended.code:
            words = ended.words.strip().splitlines() or [f"unpacking ended with {ended.code}"]
            raise PullError(words[-1][:1000])
        return target


#: By whether the image is there and a registry's.
_NEVER = {
    False: "is not present on this node and its pull policy is Never",
    True: "is present on this node, but its pull policy is Never, and none of the Pod's pull secrets is known to give "
    "access to it: name one that does, or use the pull policy IfNotPresent, with which the registry is asked",
}
