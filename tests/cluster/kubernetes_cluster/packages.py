# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's packages, fetched and unpacked without installing anything."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from .errors import ClusterError


class Apt:
    """apt with lists and archives of its own: neither /etc/apt nor /var/lib/apt changes, and no service starts.

    :param directory: where it keeps them.
    :raises ClusterError: where the machine has no Debian sources to start from.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (directory / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        sources = self._sources()
        self._configuration = directory / "apt.conf"
        self._configuration.write_text(
            f'Dir::Etc::sourcelist "{sources}";\n'
            'Dir::Etc::sourceparts "-";\n'
            f'Dir::State::lists "{directory}/lists";\n'
            f'Dir::Cache "{directory}/cache";\n'
            'APT::Sandbox::User "root";\n'
        )
        self._run("update", folder=directory)

    def _sources(self) -> Path:
        """The machine's Debian sources with source packages beside the binary ones."""
        parts = Path("/etc/apt/sources.list.d")
        deb822 = [f.read_text() for f in sorted(parts.glob("*.sources")) if "debian" in f.read_text()]
        if deb822:
            file = self._directory / "debian.sources"
            file.write_text("\n".join(re.sub(r"(?m)^Types:.*$", "Types: deb deb-src", text) for text in deb822))
            return file
        lists = [Path("/etc/apt/sources.list"), *sorted(parts.glob("*.list"))]
        lines = [line for f in lists if f.exists() for line in f.read_text().splitlines()]
        found = [line for line in lines if line.startswith("deb ") and "debian" in line]
        if not found:
            raise ClusterError("no Debian sources in /etc/apt: Kubernetes is built from Debian's packages")
        file = self._directory / "debian.list"
        file.write_text("".join(f"{line}\ndeb-src {line[4:]}\n" for line in found))
        return file

    def _run(self, *arguments: str, folder: Path) -> None:
        done = subprocess.run(
            ["apt-get", "--quiet=2", *arguments],
            cwd=folder,
            env={**os.environ, "APT_CONFIG": str(self._configuration)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")

    def unpack(self, packages: list[str], target: Path) -> None:
        """Fetch packages, those named only, and unpack them below `target`."""
        debs = self._directory / f"debs-{target.name}"
        debs.mkdir(exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        self._run("download", *packages, folder=debs)
        for deb in debs.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", deb, target], check=True)

    def source(self, package: str, target: Path) -> list[Path]:
        """Fetch the files of a source package into `target`."""
        target.mkdir(parents=True, exist_ok=True)
        self._run("source", "--download-only", package, folder=target)
        return sorted(target.iterdir())
