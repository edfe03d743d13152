# SPDX-License-Identifier: GPL-3.0-or-later
"""Images, whose content becomes a volume or a container's files: pulled by skopeo, unpacked once, kept by digest.

References without a transport are of a registry; ``oci:``, ``oci-archive:`` and ``docker-archive:`` name files on this
machine, below the directories that the configuration allows.

Registry, archive and image are untrusted input: what a pull may cost in bytes and time is limited.
"""

import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turtles import image_manifest
from turtles.image_manifest import Index, Manifest, ManifestError, digest_of
from turtles.standalone.podrunner.confined import Attempt, CancelledError, Limits, OverdueError, run
from turtles.standalone.podrunner.credentials import Login, repository_of
from turtles.standalone.podrunner.image_reference import ImageError, LocalImage, local_image
from turtles.standalone.podrunner.kept_images import KeptImages
from turtles.standalone.podrunner.skopeo import Skopeo
from turtles.standalone.podrunner.unpack import RESERVE
from turtles.standalone.podrunner.watch import PullError, RoomWatch, SilenceError, mib
from turtles.standalone.stamp import TICK

log = logging.getLogger(__name__)
_MAX_ENTRIES = 200_000
#: What the unpacking process's memory may grow to, as RLIMIT_DATA counts it.
_DATA = 1 << 30
#: Names of architectures as images have them, by uname(2)'s.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


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
        self._allowed = [Path(os.path.realpath(path)) for path in allowed_dirs]
        self._limits = limits
        self._skopeo = Skopeo(insecure, int(limits.seconds))
        #: What is here.
        self.kept = KeptImages(directory)

    def attempt(self) -> Attempt:
        """Return the argument of a pull, whose time starts now."""
        return Attempt(self._limits.seconds)

    def present(self, reference: str, policy: str, logins: Sequence[Login] = ()) -> str | None:
        """Return the digest of an image that needs neither a pull nor a request to a registry, else None.

        :param policy: Always, IfNotPresent or Never.
        :param logins: what the Pod's pull secrets have for the image.
        :raises ImageError: InvalidImageName, ErrImagePull; ErrImageNeverPull: it would need one.
        """
        local = local_image(reference, self._allowed)
        digest, there = self.kept.find(reference, local, policy, logins)
        if digest is not None:
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
        local = local_image(reference, self._allowed)
        try:
            digest = self._pull(reference, logins, attempt) if local is None else self._load(reference, local, attempt)
        except CancelledError as error:
            raise ImageError("ErrImagePull", f"image {reference}: no Pod is waiting for it") from error
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

    # --- from a registry ---------------------------------------------------------------------------------------------

    def _pull(self, reference: str, logins: Sequence[Login], attempt: Attempt) -> str:
        """Request an image's manifest from the registry, with each login in turn, and fetch what is missing."""
        repository = repository_of(reference)
        wanted = reference.partition("@")[2]
        # skopeo doesn't take a tag beside a digest, and the digest is what counts.
        source = f"{repository}@{wanted}" if wanted else reference
        with self.kept.scratch() as scratch:
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
        with self.kept.guard:
            if self.kept.is_whole(digest) and self.kept.is_of(digest, reference, repository):
                # Somebody who may read the manifest of a repository may read its layers: they needn't be sent again.
                # From another repository they have to be: a manifest alone is no proof of having them.
                return self.kept.commit(digest, None, reference, repository, login)
        self._check_size(manifest)
        content = self._skopeo.download(repository, digest, manifest, login, scratch, attempt)
        target = self._unpack(content, scratch, attempt)
        self.kept.keep_config(digest, manifest, content)
        with self.kept.guard:
            return self.kept.commit(digest, target, reference, repository, login)

    def _check_size(self, manifest: Manifest) -> None:
        room = self.kept.free() - RESERVE
        for limit, what in ((self._limits.max_bytes, "are accepted"), (room, "are free on the disk with the images")):
            if manifest.size > limit:
                raise PullError(
                    f"its layers are {mib(manifest.size)} to download, but at most {mib(max(0, limit))} {what}"
                )

    # --- from this machine -------------------------------------------------------------------------------------------

    def _load(self, reference: str, local: LocalImage, attempt: Attempt) -> str:
        if not local.path.exists():
            raise PullError(f"{local.path} does not exist on this node")
        source = local.fingerprint()
        if source is None:
            # It changed a moment ago: from here on, what is pulled can be told from what it becomes next.
            time.sleep(TICK)
            source = local.fingerprint()
        with self.kept.scratch() as scratch:
            content = self._skopeo.load(local.url, local.path, self._limits.max_bytes, scratch, attempt)
            raw = (content / "manifest.json").read_bytes()
            digest, manifest = digest_of(raw), image_manifest.parse(raw)
            target = None if self.kept.is_whole(digest) else self._unpack(content, scratch, attempt)
            if isinstance(manifest, Manifest):
                self.kept.keep_config(digest, manifest, content)
            with self.kept.guard:
                if target is None and not self.kept.path(digest).is_dir():
                    raise PullError("it was removed from this node in the meantime; it will be read again")
                return self.kept.commit(digest, target, reference, None, None, source)

    # --- both --------------------------------------------------------------------------------------------------------

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
