# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two images a cluster has from the start, as archives that containerd imports and skopeo copies."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

PAUSE = "k8s.gcr.io/pause:3.2"
BUSYBOX = "docker.io/library/busybox:1.35"


def make_images(cache: Path) -> None:
    """Write images/pause.tar and images/busybox.tar from the cache's binaries."""
    images = cache / "images"
    images.mkdir(exist_ok=True)
    if not (images / "pause.tar").exists():
        with Layer() as layer:
            layer.program("pause", (cache / "bin" / "pause").read_bytes())
        write_image(images / "pause.tar", PAUSE, layer.content, {"Entrypoint": ["/pause"]})
    if not (images / "busybox.tar").exists():
        busybox = cache / "root/bin/busybox"
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        with Layer() as layer:
            for folder in ("bin", "dev", "etc", "proc", "root", "sys", "var"):
                layer.folder(folder)
            layer.folder("tmp", 0o1777)
            layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
            layer.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
            layer.program("bin/busybox", busybox.read_bytes())
            for applet in applets:
                if applet != "busybox":
                    layer.link(f"bin/{applet}", "busybox")
        write_image(images / "busybox.tar", BUSYBOX, layer.content, {"Cmd": ["sh"]})


class Layer:
    """A tar archive in memory, of root's files with no time of their own: the same content is the same image."""

    def __enter__(self) -> Layer:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    @property
    def content(self) -> bytes:
        return self._buffer.getvalue()

    def _add(self, name: str, kind: bytes, mode: int, content: bytes = b"", target: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.size, member.linkname = kind, mode, len(content), target
        self._tar.addfile(member, io.BytesIO(content))

    def folder(self, name: str, mode: int = 0o755) -> None:
        self._add(name, tarfile.DIRTYPE, mode)

    def file(self, name: str, content: bytes) -> None:
        self._add(name, tarfile.REGTYPE, 0o644, content)

    def program(self, name: str, content: bytes) -> None:
        self._add(name, tarfile.REGTYPE, 0o755, content)

    def link(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, target=target)

    def tree(self, root: Path) -> None:
        """Add all files below a folder."""
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                self.link(name, str(path.readlink()))
            elif path.is_dir():
                self.folder(name)
            else:
                self._add(name, tarfile.REGTYPE, path.stat().st_mode & 0o777, path.read_bytes())


def write_image(archive: Path, reference: str, layer: bytes, settings: dict[str, list[str]]) -> None:
    """A docker-archive with one layer."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **settings},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    partial = archive.with_suffix(".part")
    with tarfile.open(partial, "w") as tar:
        for name, content in (
            ("manifest.json", json.dumps(manifest).encode()),
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    partial.rename(archive)
