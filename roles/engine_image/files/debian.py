# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file systems of the images: packages of the distribution, without what no program reads."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import run, say

#: Nothing in the images is younger: 2023-06-10, Debian 12's release.
EPOCH = 1686355200


ENGINE_UID, LAUNCHER_UID = 1001, 107


# What no program of the images reads. Perl and dpkg's data served the installation; the list of packages stays, for
# scanners.
SUPERFLUOUS = (
    *("boot", "home", "media", "mnt", "opt", "srv", "var/cache", "var/log", "var/lib/apt", "var/lib/dpkg/info"),
    *("var/lib/pam", "var/lib/systemd", "var/lib/ucf", "var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old"),
    *("var/lib/dpkg/statoverride-old", "etc/apt", "etc/.pwd.lock", "etc/machine-id", "etc/passwd-", "etc/group-"),
    *("etc/shadow-", "etc/gshadow-", "usr/share/doc", "usr/share/doc-base", "usr/share/man", "usr/share/info"),
    *("usr/share/locale", "usr/share/lintian", "usr/share/bash-completion", "usr/share/bug", "usr/share/debconf"),
    *("usr/share/common-licenses", "usr/share/gcc", "usr/share/gdb", "usr/share/perl", "usr/share/perl5"),
    *("usr/share/iso-codes", "usr/share/xml", "usr/share/polkit-1", "usr/share/applications", "usr/share/icons"),
    *("usr/share/zoneinfo", "usr/lib/locale", "usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/x86_64-linux-gnu/perl"),
    *("usr/lib/x86_64-linux-gnu/gconv", "usr/lib/systemd", "usr/lib/udev", "usr/lib/init"),
    *("usr/lib/x86_64-linux-gnu/gstreamer1.0", "usr/libexec/qemu-system-i386", "usr/bin/qemu-system-i386"),
    *("usr/bin/perl", "usr/bin/perl5.36.0", "usr/sbin/libvirtd-tls"),
    *(f"usr/lib/python3.11/{name}" for name in ("test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "tkinter")),
    *("usr/lib/python3.11/turtledemo", "usr/lib/python3.11/distutils/command", "usr/share/python-wheels"),
)


#: Never imported, so not worth compiling.
UNCOMPILED = "kubernetes/client/models"


@dataclass(frozen=True)
class Distribution:
    """Where packages come from.

    :param release: of Debian. :param mirror: its mirror, or a file of sources; mmdebstrap's own if empty.
    :param base: a Debian-based image, as a skopeo reference, instead of both.
    """

    release: str
    mirror: str
    base: str

    def install(self, root: Path, packages: Sequence[str]) -> None:
        """Make a root file system with these packages and what they need, its Python modules compiled."""
        if self.base:
            self._unpack_base_image(root)
            self._apt(root, packages)
        else:
            self._bootstrap(root, packages)
        _slim(root)
        compile_modules(root, "/usr/lib/python3.11", "/usr/lib/python3/dist-packages")

    def _bootstrap(self, root: Path, packages: Sequence[str]) -> None:
        say(f"mmdebstrap {self.release}: {len(packages)} packages and what they need, about a minute")
        hidden = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info", "lintian")]
        run(
            "mmdebstrap",
            "--variant=essential",
            "--mode=root",
            f"--include={','.join(['usr-is-merged', *packages])}",
            *hidden,
            "--aptopt=APT::Install-Recommends false",
            "--aptopt=Acquire::Languages none",
            # Before any package makes users: numbers which others rely on
            f'--essential-hook=echo "qemu:x:{LAUNCHER_UID}:{LAUNCHER_UID}::/:/usr/sbin/nologin" >>"$1/etc/passwd"',
            f'--essential-hook=echo "qemu:x:{LAUNCHER_UID}:" >>"$1/etc/group"',
            f'--essential-hook=echo "turtles:x:{ENGINE_UID}:{ENGINE_UID}::/:/usr/sbin/nologin" >>"$1/etc/passwd"',
            f'--essential-hook=echo "turtles:x:{ENGINE_UID}:" >>"$1/etc/group"',
            *(self.release, root),
            *filter(None, [self.mirror]),
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)},
        )

    def _unpack_base_image(self, root: Path) -> None:
        """Get a base image of Debian's kind, by the reference skopeo takes (docker://…, oci-archive:…)."""
        bundle = root.with_name("bundle")
        layout = root.with_name("layout")
        run("skopeo", "copy", "--quiet", self.base, f"oci:{layout}:base")
        run("umoci", "unpack", "--image", f"{layout}:base", bundle)
        (bundle / "rootfs").rename(root)
        shutil.rmtree(layout)
        for name, uid in (("qemu", LAUNCHER_UID), ("turtles", ENGINE_UID)):
            with (root / "etc/passwd").open("a") as file:
                file.write(f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n")
            with (root / "etc/group").open("a") as file:
                file.write(f"{name}:x:{uid}:\n")

    def _apt(self, root: Path, packages: Sequence[str]) -> None:
        say("apt-get install in the base image")
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        run("chroot", root, "apt-get", "update", "--quiet=2", env=environment)
        run(
            "chroot",
            root,
            "apt-get",
            "install",
            "--quiet=2",
            "--yes",
            "--no-install-recommends",
            *packages,
            env=environment,
        )
        (root / "etc/resolv.conf").unlink()


def _slim(root: Path) -> None:
    """Remove what no program of the images reads, and what differs from one build to the next."""
    for name in SUPERFLUOUS:
        path = root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
    for name in ("var/cache", "var/log", "tmp", "var/tmp", "run", "mnt"):
        path = root / name
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o1777 if name.endswith("tmp") else 0o755)
            path.chmod(0o1777 if name.endswith("tmp") else 0o755)
    for folder in list(root.rglob("__pycache__")):
        shutil.rmtree(folder)
    # Links of removed programs
    for path in [path for path in (root / "usr/bin").iterdir() if path.is_symlink() and not path.exists()]:
        if not os.readlink(path).startswith("/"):
            path.unlink()


def own(folder: Path) -> None:
    """Make everything root's and readable, with one time: archives and pip leave their own."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 0, 0, follow_symlinks=False)
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)
        os.utime(path, (EPOCH, EPOCH))


def compile_modules(root: Path, *folders: str) -> None:
    """Compile Python's modules with the image's own Python; equal sources make equal bytes."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(EPOCH)}
    run(
        "chroot",
        root,
        "/usr/bin/python3",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode=unchecked-hash",
        "-x",
        UNCOMPILED,
        *folders,
        env=environment,
    )
