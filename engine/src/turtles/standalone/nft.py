# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs nft(8), which users' PATHs don't have on Debian."""

import os
import subprocess

#: Seconds that nft may take.
_SECONDS = 30
_SHOWN = 1000


class NftError(Exception):
    """It can't be run, or refuses what it is given; the message has its words."""


def run(script: str) -> None:
    """Carry out a script, all of it or nothing.

    :raises NftError: it isn't carried out.
    """
    done = ask("-f", "-", script=script)
    if done.returncode:
        raise NftError(done.stderr.strip()[:_SHOWN])


def remove_table(name: str, family: str = "ip") -> bool:
    """Remove a table; say whether there was one.

    :param family: of addresses, as nft calls it.
    :raises NftError: it can't be removed.
    """
    if ask("list", "table", family, name).returncode:
        return False
    run(f"delete table {family} {name}\n")
    return True


def ask(*arguments: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    """Return what it says, and its exit status.

    :raises NftError: it can't be run, or doesn't end.
    """
    environment = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        return subprocess.run(
            ["nft", *arguments],
            input=script,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftError(f"it can't be run: {error}") from error
