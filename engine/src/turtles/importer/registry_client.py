# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a registry for an image, with skopeo.

All that a registry sends is untrusted: a download is pinned to a manifest by its digest, and held to the sizes in it.
"""

import base64
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from turtles.image_manifest import MAX_MANIFEST, Index, Manifest, ManifestError, digest_of, parse
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.request import login
from turtles.skopeo import readable

#: Seconds in which a registry has to say what an image is, and in which a download has to get on.
_ANSWER, _PATIENCE = 60.0, 60.0
#: Beside the blobs: manifest, temporary files.
_SLACK = 8 << 20
#: Bytes of skopeo's data, as RLIMIT_DATA counts them.
_DATA = 1 << 30
#: Names of architectures as images have them, by uname(2)'s.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: What skopeo's messages mean for the user of a DataVolume.
_REMEDIES = (
    (r"x509|certificate", "name the authority of the registry's certificate with certConfigMap"),
    (r"unauthorized|authentication required|denied", "give its credentials with secretRef"),
    (r"server gave HTTP response to HTTPS client", "list it in insecureRegistries of CDIConfig config"),
)


@dataclass(frozen=True)
class Image:
    """An image in a registry, and how to get at it.

    :param reference: as a Pod names it.
    :param credentials: folder with the files accessKeyId and secretKey, or None.
    :param authorities: folder with the authorities in PEM that the registry's certificate is verified by, or None.
    :param verify: whether it is verified at all. :param architecture: as images have it; this machine's if empty.
    """

    reference: str
    credentials: Path | None = None
    authorities: Path | None = None
    verify: bool = True
    architecture: str = ""

    @property
    def repository(self) -> str:
        """The reference without tag and digest."""
        name = self.reference.partition("@")[0]
        head, slash, last = name.rpartition("/")
        return f"{head}{slash}{last.partition(':')[0]}"

    @property
    def registry(self) -> str:
        """Its host, with its port; the one that skopeo takes if the reference names none."""
        first, slash, _ = self.reference.partition("/")
        is_host = slash and ("." in first or ":" in first or first == "localhost")
        return first if is_host else "docker.io"


class RegistryClient:
    """A registry that has an image. Used with :func:`connected`."""

    def __init__(self, image: Image, folder: Path) -> None:
        self._image, self._folder = image, folder
        self._options = ["--authfile", str(self._auth_file())]
        if not image.verify:
            self._options.append("--tls-verify=false")
        elif image.authorities is not None:
            self._options += ["--cert-dir", str(self._certificates(image.authorities))]

    def digest(self) -> str:
        """Return the digest of the manifest that the image's name stands for now.

        :raises ImportFailed: the registry doesn't say.
        """
        return digest_of(self._inspect(self._source()))

    def manifest(self) -> tuple[str, Manifest]:
        """Return the manifest of the image for its platform, and its digest.

        :raises ImportFailed: the registry doesn't provide it. :raises ImportRefused: it can't be used.
        """
        raw = self._inspect(self._source())
        try:
            parsed = parse(raw)
            if isinstance(parsed, Index):
                machine = platform.machine()
                chosen = parsed.choose(self._image.architecture or _ARCHITECTURES.get(machine, machine))
                raw = self._inspect(f"{self._image.repository}@{chosen}")
                parsed = parse(raw)
        except ManifestError as error:
            raise ImportRefused(f"image {self._image.reference}: {error}") from error
        if isinstance(parsed, Index):
            raise ImportRefused(f"image {self._image.reference}: its index contains another index")
        return digest_of(raw), parsed

    def download(self, digest: str, manifest: Manifest, target: Path, done: Callable[[int], None]) -> None:
        """Download an image into a folder, which is created: each blob is a file named by its digest.

        :param done: told how many bytes are there.
        :raises ImportFailed: the registry doesn't provide it.
        """
        options = [option.replace("--", "--src-", 1) if option.startswith("--") else option for option in self._options]
        source = f"docker://{self._image.repository}@{digest}"
        largest = max(blob.size for blob in manifest.blobs) + _SLACK
        command = ["copy", "--quiet", "--remove-signatures", *options, source, f"dir:{target}"]
        with self._started(command, largest) as process:
            seen, since = -1, time.monotonic()
            while True:
                try:
                    process.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    size = _size(target)
                done(size)
                if size > manifest.size + _SLACK:
                    raise ImportRefused(
                        f"image {self._image.reference}: {self._image.registry} sends more than its manifest declares"
                    )
                if size != seen:
                    seen, since = size, time.monotonic()
                elif time.monotonic() - since > _PATIENCE:
                    raise self._failed(f"{self._image.registry} stalled: no data for {_PATIENCE:.0f} s")
            self._check(process, (self._folder / "errors").read_text(errors="replace"))

    def _source(self) -> str:
        # skopeo doesn't take a tag beside a digest, and the digest is what counts
        digest = self._image.reference.partition("@")[2]
        return f"{self._image.repository}@{digest}" if digest else self._image.reference

    def _inspect(self, source: str) -> bytes:
        output = self._folder / "manifest"
        command = ["inspect", "--raw", *self._options, f"docker://{source}"]
        with self._started(command, 2 * MAX_MANIFEST, output) as process:
            try:
                process.wait(_ANSWER)
            except subprocess.TimeoutExpired as error:
                words = f"{self._image.registry} did not send the image's manifest within {_ANSWER:.0f} s"
                raise self._failed(words) from error
            self._check(process, (self._folder / "errors").read_text(errors="replace"))
        raw = output.read_bytes()
        wanted = source.partition("@")[2]
        if wanted and digest_of(raw) != wanted:
            raise self._failed(f"{self._image.registry} sent a manifest other than {wanted}")
        return raw

    @contextmanager
    def _started(
        self, words: list[str], file_size: int, output: Path | None = None
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run skopeo; end it at the end, whatever happens."""
        # Which signatures are demanded is the policy file's affair; without one, any image is taken
        policy = [] if Path("/etc/containers/policy.json").exists() else ["--insecure-policy"]
        limits = ["prlimit", f"--fsize={file_size}", f"--data={_DATA}", "--core=0", "--"]
        environment = os.environ | {"TMPDIR": str(self._folder), "HOME": str(self._folder)}
        with (self._folder / "errors").open("wb") as errors, (output or Path(os.devnull)).open("wb") as out:
            process = subprocess.Popen(
                [*limits, "skopeo", *policy, "--tmpdir", str(self._folder), *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _check(self, process: "subprocess.Popen[bytes]", words: str) -> None:
        if process.returncode:
            raise self._failed(readable(words) if words.strip() else f"skopeo ended with status {process.returncode}")

    def _failed(self, words: str) -> ImportFailed:
        remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, words)), "")
        if remedy.endswith("secretRef") and self._image.credentials is not None:
            remedy = "check the credentials in the Secret of secretRef"
        if remedy.endswith("certConfigMap") and self._image.authorities is not None:
            remedy = "check the CA certificates in the ConfigMap of certConfigMap"
        return ImportFailed(f"image {self._image.reference}: {words}{f'; {remedy}' if remedy else ''}")

    def _auth_file(self) -> Path:
        """Write the credentials where no other process's arguments show them."""
        path, auths = self._folder / "auth.json", {}
        if self._image.credentials is not None:
            text = ":".join(login(self._image.credentials))
            auths[self._image.registry] = {"auth": base64.b64encode(text.encode()).decode()}
        path.touch(0o600)
        path.write_text(json.dumps({"auths": auths}))
        return path

    def _certificates(self, authorities: Path) -> Path:
        """Return a folder with the authorities, as files that end with .crt: skopeo reads no others."""
        folder = self._folder / "authorities"
        folder.mkdir()
        try:
            files = sorted(file for file in authorities.iterdir() if file.is_file())
            for number, file in enumerate(files):
                shutil.copyfile(file, folder / f"{number}.crt")
        except OSError as error:
            raise ImportRefused(f"the CA certificates of certConfigMap can't be used: {error}") from error
        return folder


@contextmanager
def connected(image: Image, work: Path | None = None) -> Iterator[RegistryClient]:
    """Give what asks an image's registry. What it writes beside the image is removed at the end.

    :param work: a folder for that; the system's for temporary files if not given.
    :raises ImportRefused: credentials or authorities can't be used.
    """
    with tempfile.TemporaryDirectory(prefix=".registry-", dir=work) as folder:
        yield RegistryClient(image, Path(folder))


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:
        return 0
