# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules as files: their code, dependencies and aliases."""

import gzip
import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from building import BuildError

SIGNATURE_MAGIC, SIGNATURE_HEADER = b"~Module signature appended~\n", 12
# What ext4 asks for by the name of the algorithm. It is a module up to Linux 6.13.
CHECKSUMS = "crc32c_generic"


@dataclass(frozen=True)
class Module:
    """A kernel module: its code, the names of modules it depends on, the devices and features it is known for."""

    code: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def without_signature(code: bytes) -> bytes:
    """Remove the signature appended to a module (Linux, include/linux/module_signature.h).

    An emulated guest would spend a second on checking them; without Secure Boot a kernel loads modules that have none.
    """
    if not code.endswith(SIGNATURE_MAGIC):
        return code
    length = int.from_bytes(code[-len(SIGNATURE_MAGIC) - 4 : -len(SIGNATURE_MAGIC)], "big")
    return code[: -len(SIGNATURE_MAGIC) - SIGNATURE_HEADER - length]


def read_module(path: Path) -> Module:
    """Read a module's file, whatever it is compressed with, and its .modinfo section."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        data = lzma.decompress(data)
    elif path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix != ".ko":
        raise BuildError(f"the kernel module {path.name} is compressed as {path.suffix}; .xz, .gz or none is expected")
    depends = [name for found in re.findall(rb"\0depends=([^\0]*)", data) for name in found.decode().split(",") if name]
    aliases = [alias.decode(errors="replace") for alias in re.findall(rb"\0alias=([^\0]+)", data)]
    return Module(without_signature(data), tuple(depends), tuple(dict.fromkeys(aliases)))


class Modules:
    """The modules of an unpacked kernel package, by name. Names have underscores where files may have hyphens.

    :raises BuildError: if it isn't a kernel package as we know it.
    """

    def __init__(self, root: Path) -> None:
        # Debian 12 has them in /lib, Debian 13 in /usr/lib and compressed.
        folders = [*root.glob("lib/modules/*/kernel"), *root.glob("usr/lib/modules/*/kernel")]
        if len(folders) != 1:
            raise BuildError(f"the kernel package has {len(folders)} folders lib/modules/*/kernel; one was expected")
        self.version = folders[0].parent.name
        self._files = {
            path.name.partition(".ko")[0].replace("-", "_"): path
            for path in folders[0].rglob("*")
            if re.search(r"\.ko(\.\w+)?$", path.name)
        }
        builtin = folders[0].parent / "modules.builtin"
        lines = builtin.read_text().split() if builtin.exists() else []
        self._builtin = {Path(line).stem.replace("-", "_") for line in lines}
        self._read: dict[str, Module] = {}

    def __getitem__(self, name: str) -> Module:
        """Return a module that has a file."""
        if name not in self._read:
            self._read[name] = read_module(self._files[name])
        return self._read[name]

    def with_dependencies(self, wanted: Iterable[str]) -> list[str]:
        """Return the wanted modules and what they depend on, dependencies first, without those that are built in.

        :raises BuildError: if the kernel doesn't have one of them: without its driver a guest may not find its disk.
        """
        order: list[str] = []

        def visit(name: str) -> None:
            name = name.replace("-", "_")
            if name in self._builtin or name in order or (name == CHECKSUMS and name not in self._files):
                return
            if name not in self._files:
                raise BuildError(f"the kernel {self.version} has no driver {name}, neither built in nor as a module")
            for dependency in self[name].depends:
                visit(dependency)
            order.append(name)

        for name in wanted:
            visit(name)
        return order
