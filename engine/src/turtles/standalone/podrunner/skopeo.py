# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs skopeo: manifests and blobs of registries, and images in files of this machine.

All of it is untrusted input. A download is pinned to a manifest by its digest and held to the sizes in it.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from turtles import image_manifest
from turtles.image_manifest import Manifest, digest_of
from turtles.skopeo import EXCEEDED, readable
from turtles.standalone.files import write_json
from turtles.standalone.podrunner.confined import Attempt, Ended, Limits, run
from turtles.standalone.podrunner.credentials import Login, registry_of
from turtles.standalone.podrunner.watch import DownloadWatch, PullError, SilenceError, SizeWatch, mib

#: Seconds in which a registry has to say what an image is.
_INSPECT_TIMEOUT = 60.0
#: Beside the blobs: manifest, temporary files.
_SLACK = 8 << 20
#: What skopeo's memory may grow to, as RLIMIT_DATA counts it.
_DATA = 1 << 30


class Skopeo:
    """Runs skopeo.

    :param insecure: registries (host:port) reached over plain HTTP or with unverified TLS.
    :param cpu: seconds of processor time that one run may take.
    """

    def __init__(self, insecure: Iterable[str], cpu: int) -> None:
        self._insecure, self._cpu = frozenset(insecure), cpu

    def manifest(self, source: str, wanted: str, login: Login | None, scratch: Path, attempt: Attempt) -> bytes:
        """Return a manifest as a registry has it.

        :param source: the reference that the registry is asked for.
        :param wanted: the manifest's digest, if that is known.
        :raises PullError: the registry doesn't provide it.
        """
        registry, output, begun = registry_of(source), scratch / "manifest", time.monotonic()
        attempt.stage = f"asking {registry} for the image's manifest"

        def check(pid: int) -> None:
            if time.monotonic() - begun > _INSPECT_TIMEOUT:
                raise SilenceError(f"{registry} did not send the image's manifest within {_INSPECT_TIMEOUT:.0f} s")

        ended = self._run(
            ["inspect", "--raw", *self._access("", registry, login, scratch), f"docker://{source}"],
            2 * image_manifest.MAX_MANIFEST,
            scratch,
            attempt,
            check,
            output,
        )
        if ended.code:
            raise PullError(readable(ended.words))
        with open(output, "rb") as file:
            raw = file.read(2 * image_manifest.MAX_MANIFEST)
        if wanted and digest_of(raw) != wanted:
            raise PullError(f"{registry} sent a manifest other than {wanted}")
        return raw

    def download(
        self, repository: str, digest: str, manifest: Manifest, login: Login | None, scratch: Path, attempt: Attempt
    ) -> Path:
        """Download an image; not more than its manifest says. Return the folder with it.

        :raises PullError: that isn't possible, or it is larger than that.
        """
        registry = registry_of(repository)
        content = scratch / "image"
        content.mkdir()

        def progress(text: str) -> None:
            attempt.stage = text

        excess = f"{registry} sent more than the {mib(manifest.size)} stated in the image's manifest"
        watch = DownloadWatch(content, manifest.size + _SLACK, excess, manifest.size, registry, progress)
        largest = max(blob.size for blob in manifest.blobs)
        self._copy(
            [*self._access("src-", registry, login, scratch), f"docker://{repository}@{digest}"],
            content,
            largest + _SLACK,
            scratch,
            attempt,
            watch,
        )
        if digest_of((content / "manifest.json").read_bytes()) != digest:
            raise PullError(f"{registry} sent a manifest other than {digest}")
        return content

    def load(self, url: str, path: Path, max_bytes: int, scratch: Path, attempt: Attempt) -> Path:
        """Copy an image from files of this machine. Return the folder with it.

        :param path: the archive or folder.
        :raises PullError: it isn't usable, or is too large.
        """
        attempt.stage = f"reading {path}"
        content = scratch / "image"
        limit = max_bytes
        if path.is_file():
            with open(path, "rb") as file:
                compressed = file.read(2) in (b"\x1f\x8b", b"\x28\xb5", b"BZ", b"\xfd7")
            # What it has in it can't be more than itself, unless sparse members lie about it.
            limit = limit if compressed else min(limit, path.stat().st_size)
        # An archive is expanded into a temporary folder and copied from there.
        watch = SizeWatch(scratch, 2 * limit + _SLACK, f"{path} expands to more than {mib(limit)}")
        self._copy([url], content, limit + _SLACK, scratch, attempt, watch)
        return content

    def _copy(
        self, source: list[str], content: Path, file_size: int, scratch: Path, attempt: Attempt, watch: SizeWatch
    ) -> None:
        ended = self._run(
            ["copy", "--quiet", "--remove-signatures", *source, f"dir:{content}"],
            file_size,
            scratch,
            attempt,
            watch.check,
        )
        if ended.code:
            exceeded = any(words in ended.words for words in EXCEEDED)
            raise PullError(watch.excess if exceeded else readable(ended.words))

    def _access(self, prefix: str, registry: str, login: Login | None, scratch: Path) -> list[str]:
        """Return skopeo's options for the connection to a registry, and for credentials: no others."""
        auth_file = scratch / "auth.json"
        write_json(auth_file, login.auth_file(registry) if login is not None else {"auths": {}})
        options = [f"--{prefix}authfile", str(auth_file)]
        return [*options, f"--{prefix}tls-verify=false"] if registry in self._insecure else options

    def _run(
        self,
        words: list[str],
        file_size: int,
        scratch: Path,
        attempt: Attempt,
        check: Callable[[int], None],
        output: Path | None = None,
    ) -> Ended:
        # Which signatures a node demands is the node's policy file; without one, any image is taken.
        options = [] if Path("/etc/containers/policy.json").exists() else ["--insecure-policy"]
        # Archives are expanded below --tmpdir, whatever TMPDIR is: in /var/tmp that would not be counted or removed.
        command = ["skopeo", *options, "--tmpdir", str(scratch), *words]
        environment = os.environ | {"TMPDIR": str(scratch), "HOME": str(scratch)}
        limits = Limits(self._cpu, _DATA, file_size)
        return run(command, limits, attempt, scratch, output=output, env=environment, check=check)
