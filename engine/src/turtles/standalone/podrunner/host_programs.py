# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers that share the host's programs see of the host."""

import os
import sys
from collections.abc import Iterable

#: What a container sees of the host at the same path, where the host has it: programs and libraries with what is
#: mounted below them, and configuration that they read no matter who runs them. None of it is secret or names the host.
HOST_PATHS = (
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/usr",
    *(
        f"/etc/{name}"
        for name in (
            # the dynamic linker, names of programs
            "alternatives",
            "ld.so.cache",
            "ld.so.conf",
            "ld.so.conf.d",
            # libc's names, numbers and time, and which system this is
            "gai.conf",
            "host.conf",
            "localtime",
            "nsswitch.conf",
            "os-release",
            "protocols",
            "services",
            "timezone",
            # whom TLS trusts, and how it is spoken
            "gnutls",
            "ssl/certs",
            "ssl/openssl.cnf",
            # firmware that QEMU may use
            "qemu",
        )
    ),
)

#: Directories of the Filesystem Hierarchy Standard; nothing of the host's is in them unless it is listed.
EMPTY_FOLDERS = (
    "boot",
    "dev",
    "etc",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "var",
    "var/cache",
    "var/lib",
    "var/log",
    "var/mail",
    "var/opt",
    "var/spool",
    "var/tmp",
)


def visible_paths(further: Iterable[str] = ()) -> list[str]:
    """Return all that a container sees of the host: :data:`HOST_PATHS`, this Python installation and some more.

    What doesn't exist may be among them.
    """
    paths = set(HOST_PATHS)
    candidates = {path for path in (*further, sys.prefix, sys.base_prefix, *sys.path) if path.startswith("/")}
    for path in sorted(candidates | {os.path.realpath(path) for path in candidates}, key=len):
        # The working directory ("/") or a script's (/tmp) is no installation.
        if path.strip("/") not in ("", *EMPTY_FOLDERS) and not covered(path, paths):
            paths.add(path.rstrip("/"))
    return sorted(paths)


def covered(path: str, paths: Iterable[str]) -> bool:
    """Say whether a path is one of some paths or below one."""
    return f"{path.rstrip('/')}/".startswith(tuple(f"{known}/" for known in paths))
