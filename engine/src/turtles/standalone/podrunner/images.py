# SPDX-License-Identifier: GPL-3.0-or-later
"""Images whose content becomes a volume: pulled by skopeo, unpacked once, kept by digest.

Layout of the images directory: ``unpacked/<digest>`` is the content, ``refs/<hash>.json`` says which digest a reference
meant when it was last looked at. References without a transport are of a registry; ``oci:``, ``oci-archive:`` and
``docker-archive:`` name files on this machine, below the directories that the configuration allows.
"""

import base64
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from turtles.standalone.podrunner.files import read_json, sync_folder, write_json
from turtles.standalone.stamp import TICK, stamp

log = logging.getLogger(__name__)

_LOCAL = ("oci-archive", "docker-archive", "oci")
_REFERENCE = re.compile(r"[a-z0-9A-Z][\w.:/\-]*(@sha256:[0-9a-f]{64})?")
_PULL_TIMEOUT = 1800.0
_MAX_ENTRIES = 200_000
_DISK_HIGH = 0.85
_KEEP_UNUSED = 3600.0


class ImageError(Exception):
    """An image is not available. ``reason`` is what Kubernetes shows for a waiting container."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def default_policy(reference: str) -> str:
    """Return the pull policy of an image that has none: Always for the tag latest, else IfNotPresent."""
    if "@" in reference:
        return "IfNotPresent"
    tag = reference.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def registry_of(reference: str) -> str:
    """Return the host (and port) of a registry reference; docker.io if it names none."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


class ImageStore:
    """Pulls and keeps images; any number of threads may ask for the same one, it is pulled once.

    :param allowed_dirs: where local references may point.
    :param insecure: registries (host:port) reached over plain HTTP or with unverified TLS.
    """

    def __init__(
        self, directory: Path, allowed_dirs: Iterable[Path] = (), insecure: Iterable[str] = (),
        max_bytes: int = 64 << 30,
    ) -> None:
        self._dir = directory
        self._allowed = [Path(os.path.realpath(path)) for path in allowed_dirs]
        self._insecure = frozenset(insecure)
        self._max_bytes = max_bytes
        #: By reference; there is one while somebody has it.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._guard = threading.Lock()
        for name in ("unpacked", "refs", "tmp"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        # What a killed podrunner left half pulled or half removed.
        for path in (directory / "tmp").iterdir():
            shutil.rmtree(path, ignore_errors=True)

    def present(self, reference: str, policy: str) -> str | None:
        """Return the digest of an image that needs no pull and no question to a registry, else None.

        :raises ImageError: InvalidImageName, ErrImagePull.
        """
        local = self._local(reference)
        known = read_json(self._ref(reference))
        if known is None or not self.path(known["digest"]).is_dir():
            return None
        if local is not None:
            source = _fingerprint(*local)
            return known["digest"] if source is not None and known.get("source") == source else None
        return None if policy == "Always" else str(known["digest"])

    def ensure(self, reference: str, policy: str, auths: Iterable[dict[str, Any]] = ()) -> str:
        """Return the digest of an image's content, pulling it if the policy says so.

        :param policy: Always, IfNotPresent or Never.
        :param auths: decoded ``.dockerconfigjson`` of pull secrets.
        :raises ImageError: ErrImagePull, ErrImageNeverPull or InvalidImageName.
        """
        with self._guard:
            lock = self._locks.setdefault(reference, threading.Lock())
        with lock:
            digest = self.present(reference, policy)
            if digest is not None:
                return digest
            if policy == "Never":
                raise ImageError(
                    "ErrImageNeverPull", f"image {reference} is not present on this node and its pull policy is Never"
                )
            return self._pull(reference, auths)

    def path(self, digest: str) -> Path:
        """Return where an image's content is."""
        return self._dir / "unpacked" / digest.removeprefix("sha256:")

    def collect(self, in_use: set[str]) -> list[str]:
        """Remove content no Pod uses, least recently used first, while the disk is more than 85 % full."""
        removed: list[str] = []
        contents = sorted((self._dir / "unpacked").iterdir(), key=lambda path: path.stat().st_mtime)
        for path in contents:
            usage = shutil.disk_usage(self._dir)
            if usage.used / usage.total < _DISK_HIGH:
                break
            if f"sha256:{path.name}" not in in_use and time.time() - path.stat().st_mtime > _KEEP_UNUSED:
                # Out of sight first: half an image must never be taken for a whole one.
                doomed = self._dir / "tmp" / f"removed-{path.name}"
                path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                removed.append(path.name)
        if removed:
            log.info("unused images removed", extra={"digests": removed})
            self._forget()
        return removed

    def _forget(self) -> None:
        """Remove what is known of references whose content is gone."""
        for path in (self._dir / "refs").glob("*.json"):
            known = read_json(path)
            if known is not None and not self.path(known["digest"]).is_dir():
                path.unlink(missing_ok=True)

    def _ref(self, reference: str) -> Path:
        return self._dir / "refs" / f"{hashlib.sha256(reference.encode()).hexdigest()}.json"

    def _local(self, reference: str) -> tuple[str, Path, str] | None:
        """Return (transport, path, tag) of a reference to this machine's files, None for a registry's.

        :raises ImageError: ErrImagePull: it points outside the allowed directories;
            InvalidImageName: it is no reference.
        """
        transport, colon, rest = reference.partition(":")
        if not colon or transport not in _LOCAL or not rest.startswith("/"):
            if not _REFERENCE.fullmatch(reference) or ".." in reference:
                raise ImageError(
                    "InvalidImageName",
                    f"{reference!r} is no image reference: use registry/name:tag, or oci:, oci-archive: or "
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
        return transport, path, tag

    def _pull(self, reference: str, auths: Iterable[dict[str, Any]]) -> str:
        local = self._local(reference)
        source = None
        if local is not None:
            if not local[1].exists():
                raise ImageError("ErrImagePull", f"image {reference}: {local[1]} does not exist on this node")
            source = _fingerprint(*local)
            if source is None:
                # It changed a moment ago: from here on, what is pulled can be told from what it becomes next.
                time.sleep(TICK)
                source = _fingerprint(*local)
            url = f"{local[0]}:{local[1]}" + (f":{local[2]}" if local[2] else "")
        else:
            url = f"docker://{reference}"
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self._dir / "tmp") as scratch:
            content, target = Path(scratch, "image"), Path(scratch, "content")
            target.mkdir()
            self._skopeo(reference, url, content, Path(scratch), auths if local is None else ())
            digest = "sha256:" + hashlib.sha256((content / "manifest.json").read_bytes()).hexdigest()
            final = self.path(digest)
            if not final.is_dir():
                self._unpack(reference, content, target)
                target.chmod(0o755)
                try:
                    target.rename(final)
                except OSError:
                    # Another reference to the same image was faster.
                    if not final.is_dir():
                        raise
                sync_folder(final.parent)
        os.utime(final)
        write_json(self._ref(reference), {"reference": reference, "digest": digest, "source": source})
        log.info("image pulled", extra={"image": reference, "digest": digest,
                                        "seconds": round(time.monotonic() - started, 3)})
        return digest

    def _skopeo(self, reference: str, url: str, content: Path, scratch: Path, auths: Iterable[dict[str, Any]]) -> None:
        # Which signatures a node demands is the node's policy file; without one, any image is taken.
        options = [] if Path("/etc/containers/policy.json").exists() else ["--insecure-policy"]
        command = ["skopeo", *options, "copy", "--quiet", url, f"dir:{content}"]
        if url.startswith("docker://"):
            if registry_of(reference) in self._insecure:
                command.insert(-2, "--src-tls-verify=false")
            merged: dict[str, Any] = {}
            for auth in auths:
                merged |= auth.get("auths") or {}
            auth_file = scratch / "auth.json"
            write_json(auth_file, {"auths": merged})
            command[-2:-2] = ["--src-authfile", str(auth_file)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PULL_TIMEOUT,
                env=os.environ | {"TMPDIR": str(scratch), "HOME": str(scratch)},
            )
        except FileNotFoundError as error:
            raise ImageError("ErrImagePull", f"image {reference}: the program skopeo is not installed") from error
        except subprocess.TimeoutExpired as error:
            message = f"image {reference}: not pulled after {_PULL_TIMEOUT:.0f} s"
            raise ImageError("ErrImagePull", message) from error
        if done.returncode:
            raise ImageError("ErrImagePull", f"image {reference}: {readable(done.stderr)}")

    def _unpack(self, reference: str, content: Path, target: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "turtles.standalone.podrunner.unpack", str(content), str(target),
             str(self._max_bytes), str(_MAX_ENTRIES)],
            capture_output=True, text=True,
        )
        if done.returncode:
            message = done.stderr.strip().splitlines()[-1:] or [f"unpacking ended with {done.returncode}"]
            raise ImageError("ErrImagePull", f"image {reference}: {message[0]}")


def _fingerprint(transport: str, path: Path, tag: str) -> str | None:
    """Return what changes when a local image changes; None if that can't be told yet."""
    try:
        now = stamp(path / "index.json" if transport == "oci" else path)
    except OSError:
        return None
    return None if now is None else f"{path}:{tag}:{':'.join(map(str, now))}"


def readable(stderr: str) -> str:
    """Return the message in skopeo's last log line, without its frame."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    fatal = [line for line in lines if "level=fatal" in line] or lines[-1:] or ["skopeo failed without a word"]
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', fatal[-1])
    return match[1].replace('\\"', '"').replace("\\n", " ") if match else fatal[-1][:500]


def docker_config(secret: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a pull secret (kubernetes.io/dockerconfigjson or dockercfg), {} if it has none."""
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            return dict(json.loads(base64.b64decode(data[".dockerconfigjson"])))
        if ".dockercfg" in data:
            return {"auths": json.loads(base64.b64decode(data[".dockercfg"]))}
    except (ValueError, TypeError):
        log.warning("pull secret is not valid JSON", extra={"secret": (secret.get("metadata") or {}).get("name")})
    return {}
