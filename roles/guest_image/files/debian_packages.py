# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's packages: versions, downloads, and the kernel, which may be that of another release than this machine's."""

import os
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from building import BuildError, run, say

# The "cloud" flavour has no USB and no emulated NICs, and in Debian 12 no AHCI either.
KERNEL_META_PACKAGE = "linux-image-amd64"
#: Seconds after which another release's package lists are fetched again.
LISTS_KEPT = 86400


def parse_kernel_package(show: str) -> str:
    """The kernel package, as "name=version", that ``apt-cache show`` of the meta package depends on."""
    match = re.search(r"^Depends:.*?\b(linux-image-\d\S*)(?: \(= (\S+?)\))?(?:,|$)", show, re.MULTILINE)
    version = re.search(r"^Version: (\S+)", show, re.MULTILINE)
    if not match or not version:
        raise BuildError(f"apt knows no kernel behind {KERNEL_META_PACKAGE}: run apt-get update, check the sources")
    return f"{match[1]}={match[2] or version[1]}"


class Apt:
    """apt with this machine's sources.

    :param configuration: a file that makes it look elsewhere.
    """

    def __init__(self, configuration: Path | None = None) -> None:
        self._env = {**os.environ, **({"APT_CONFIG": str(configuration)} if configuration else {})}

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run apt-get or apt-cache; its output."""
        return run(program, *arguments, cwd=cwd, env=self._env)

    def kernel(self) -> str:
        """Name and version of the newest kernel it can download, as "name=version"."""
        return parse_kernel_package(self.run("apt-cache", "show", "--no-all-versions", KERNEL_META_PACKAGE))

    def unpack(self, package: str, directory: Path) -> None:
        """Download a package and unpack it into the directory; nothing is installed."""
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            # apt drops privileges for downloads; a folder that only root may enter draws a warning.
            Path(scratch).chmod(0o755)
            self.run("apt-get", "download", "-q", package, cwd=Path(scratch))
            (archive,) = Path(scratch).glob("*.deb")
            directory.mkdir(parents=True, exist_ok=True)
            run("dpkg-deb", "-x", archive, directory)


def release_sources(targets: str, release: str) -> str:
    """apt sources of another Debian release, from the mirrors that this machine's sources have for its own.

    :param targets: a line ``URI|suite|codename|component|keyring`` per index of binary packages, from ``apt-get
        indextargets``. The codename is of the form release, release-updates or release-security.
    :raises BuildError: if there is no Debian mirror among them.
    """
    lines: list[str] = []
    for target in targets.split():
        uri, codename, component, keyring = target.split("|")
        _own, dash, part = codename.partition("-")
        if component != "main" or part not in ("", "updates", "security"):
            continue
        # apt leaves a field that isn't there as it was asked for.
        options = f" [signed-by={keyring}]" if keyring.startswith("/") else ""
        line = f"deb{options} {uri} {release}{dash}{part} main"
        if line not in lines:
            lines.append(line)
    if not lines:
        raise BuildError("no Debian mirror is among the sources of apt on this machine")
    return "".join(f"{line}\n" for line in lines)


def kernel_of_release(release: str, folder: Path) -> tuple[Apt, str]:
    """apt for another Debian release, and its kernel. Its package lists are in the folder, apart from the machine's.

    :raises BuildError: if the release can't be had from this machine's mirrors.
    """
    fields = ("REPO_URI", "CODENAME", "COMPONENT", "SIGNED_BY")
    targets = run(
        *("apt-get", "indextargets", "--format", "|".join(f"$({field})" for field in fields)),
        *("Created-By: Packages", "Origin: Debian"),
    )
    folder = folder.absolute() / release
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sources, configuration, newest = folder / "sources.list", folder / "apt.conf", folder / "kernel"
    wanted = release_sources(targets, release)
    configuration.write_text(
        f'Dir::Etc::sourcelist "{sources}";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{folder}/lists";\n'
        f'Dir::Cache "{folder}";\n'
        'Dir::State::status "/dev/null";\n'
        'Acquire::Languages "none";\n'
        'APT::Sandbox::User "root";\n'
        # Those of e.g. apt-file, appstream and command-not-found would be fetched too.
        'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
    )
    apt = Apt(configuration)
    # apt takes seconds to read its lists, so its answer is kept with them.
    known = newest.exists() and sources.exists() and sources.read_text() == wanted
    if not known or time.time() - newest.stat().st_mtime > LISTS_KEPT:
        sources.write_text(wanted)
        try:
            apt.run("apt-get", "update", "-q=2", "--error-on=any")
            newest.write_text(apt.kernel())
        except BuildError as error:
            if not known:
                newest.unlink(missing_ok=True)
                raise
            say(f"package lists of {release} couldn't be refreshed: {error}")
    return apt, newest.read_text()


def guest_kernel(release: str, cache: Path) -> tuple[Apt, str]:
    """Where the guest's kernel comes from, and its name and version.

    :param release: the Debian release to take it from; this machine's own if empty, or if it can't be had.
    """
    if release:
        try:
            return kernel_of_release(release, cache)
        except BuildError as error:
            say(f"no kernel of {release}, so this machine's release provides it: {error}")
    return Apt(), Apt().kernel()


def candidate(package: str) -> str:
    """The version apt would install."""
    match = re.search(r"^\s*Candidate: (\S+)", run("apt-cache", "policy", package), re.MULTILINE)
    if not match or match[1] == "(none)":
        raise BuildError(f"apt knows no package {package}: run apt-get update, check the sources")
    return match[1]


def installed_versions(packages: Iterable[str]) -> list[str]:
    """Versions of installed packages, as "name=version"."""
    return sorted(run("dpkg-query", "-W", "-f", "${Package}=${Version}\n", *packages).split())
