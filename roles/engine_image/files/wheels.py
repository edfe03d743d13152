# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine needs of Python packages, by its wheel and a lock file."""

import re
import zipfile
from email.parser import Parser
from pathlib import Path

from programs import BuildError

#: Comes as a distribution package, since it has no wheel: it is compiled against the distribution's libvirt.
FROM_DISTRIBUTION = ("libvirt-python",)
#: Needed by the components of standalone mode alone, with the name by which Python knows each.
ONLY_STANDALONE = {"cel-expr-python": "cel_expr_python", "google-re2": "re2"}


def _normal(name: str) -> str:
    """Give a package's name as it is compared (PyPA, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(wheel: Path, lock: Path) -> list[str]:
    """Give what a wheel needs of Python's packages on a cluster, those of the distribution excepted.

    :param lock: file with version and hashes of each package, as pip reads it and uv or pip-tools write it.
    :return: requirements in pip's format, with hashes.
    """
    with zipfile.ZipFile(wheel) as content:
        name = next(entry for entry in content.namelist() if entry.endswith(".dist-info/METADATA"))
        needed = Parser().parsestr(content.read(name).decode()).get_all("Requires-Dist") or []
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n?", "", lock.read_text())).splitlines()
    locked = {_normal(re.split(r"[^A-Za-z0-9._-]", line)[0]): line.strip() for line in lines if line.strip()}
    for line in needed:
        package = re.split(r"[^A-Za-z0-9._-]", line)[0]
        if _normal(package) not in locked:
            raise BuildError(f"{lock} doesn't have {package}, which the engine needs: update it with make lock")
    others = {_normal(package) for package in (*FROM_DISTRIBUTION, *ONLY_STANDALONE)}
    return sorted(line for package, line in locked.items() if package not in others)


def wheel_identity(wheel: Path) -> tuple[str, str]:
    """Version and source hash that a wheel's name says: turtles-<version>+g<hash>-py3-none-any.whl."""
    found = re.fullmatch(r"turtles-([^+]+)\+g([0-9a-f]+)-py3-none-any\.whl", wheel.name)
    if not found:
        raise BuildError(f"{wheel.name} is not a wheel of the engine: turtles-<version>+g<hash>-py3-none-any.whl")
    return found[1], found[2]
