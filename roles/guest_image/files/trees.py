# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of files that become an initramfs or a root file system."""

import re
import shutil
import stat
from pathlib import Path

from building import BuildError, run
from kernel_modules import Modules


def libraries(binary: Path) -> list[Path]:
    """Shared libraries (and the loader) a program needs on this machine."""
    output = run("ldd", binary)
    if missing := re.findall(r"(\S+) => not found", output):
        raise BuildError(f"{binary.name} needs libraries this machine doesn't have: {', '.join(missing)}")
    return [Path(path) for path in re.findall(r"(/\S+\.so\S*) \(", output)]


def add_program(root: Path, binary: Path) -> None:
    """Put a program into a usr-merged tree, with its libraries."""
    shutil.copy(binary, root / "bin" / binary.name)
    for library in libraries(binary):
        # The loader's path is part of the program, so each library keeps the path it is known by.
        relative = Path(*library.parts[1:])
        if relative.parts[0] == "usr":
            relative = relative.relative_to("usr")
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(library.resolve(), target)


def add_busybox(root: Path) -> None:
    """Put busybox and a link for each of its commands into bin."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    (root / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in run(busybox, "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")


def add_modules(root: Path, names: list[str], modules: Modules) -> None:
    """Put modules into lib/modules, with what modprobe needs to know which device and which module needs which."""
    directory = root / "lib/modules" / modules.version
    directory.mkdir(parents=True, exist_ok=True)
    dependencies, aliases = [], []
    for name in names:
        (directory / f"{name}.ko").write_bytes(modules[name].code)
        # All that has to be there before, the last to be loaded first, as depmod writes it.
        needed = [n for n in reversed(modules.with_dependencies([name])) if n != name]
        dependencies.append(" ".join([f"{name}.ko:", *(f"{n}.ko" for n in needed)]))
        aliases.extend(f"alias {alias} {name}" for alias in modules[name].aliases)
    for file, lines in (("modules.dep", dependencies), ("modules.alias", aliases)):
        (directory / file).write_text("".join(f"{line}\n" for line in lines))


def cpio(root: Path) -> bytes:
    """A tree as a "newc" cpio archive, all owned by root, sorted, without times: what the kernel unpacks at boot."""
    parts: list[bytes] = []

    def add(inode: int, name: str, mode: int, data: bytes) -> None:
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
        parts.extend((header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)))

    for inode, path in enumerate(sorted(root.rglob("*")), start=1):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            data = str(path.readlink()).encode()
        else:
            data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        add(inode, path.relative_to(root).as_posix(), status.st_mode, data)
    add(0, "TRAILER!!!", 0, b"")
    return b"".join(parts)


def installed_program(name: str) -> Path:
    """Return where a program is."""
    path = shutil.which(name)
    if not path:
        raise BuildError(f"the program {name} is missing: install the role's packages")
    return Path(path)


def install(source: Path, target: Path) -> None:
    """Copy an executable file."""
    shutil.copy(source, target)
    target.chmod(0o755)
