#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the engine's wheel from its sources: same sources, same bytes, same file name.

The engine is pure Python, so its wheel is a zip file with metadata (PyPA's "Binary distribution format"). Writing it
here takes a fraction of a second, needs neither network nor build tools, and the version can carry the sources' hash
as its local part: the file's name then says whether an installation is up to date. That is why lock files of the
packages it needs can be named too.

Prints one JSON object: path, file, version, fingerprint.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "turtles"
EPOCH = (1980, 1, 1, 0, 0, 0)
#: Seconds for which wheels of other sources are kept.
KEPT = 86400


def source_files(source: Path) -> dict[str, bytes]:
    """What the package consists of, by its path in the wheel."""
    root = source / "src"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted((root / PACKAGE).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def fingerprint(project: bytes, files: dict[str, bytes]) -> str:
    """A short hash of everything that is installed."""
    digest = hashlib.sha256(project)
    for name, content in files.items():
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def metadata(project: dict[str, Any], version: str) -> dict[str, str]:
    """The files of the dist-info folder, RECORD excepted."""
    head = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Summary: {project['description']}",
        f"License: {project['license']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    scripts = [f"{name} = {target}" for name, target in sorted(project["scripts"].items())]
    return {
        "METADATA": "\n".join(head) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: turtles\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "\n".join(["[console_scripts]", *scripts]) + "\n",
        "top_level.txt": f"{PACKAGE}\n",
    }


def record_line(name: str, content: bytes) -> str:
    """A line of RECORD: name, hash, size."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


def write_wheel(path: Path, files: dict[str, bytes], dist_info: str) -> None:
    """Write the zip file; replaced only when complete."""
    record = [record_line(name, content) for name, content in files.items()]
    files[f"{dist_info}/RECORD"] = ("\n".join([*record, f"{dist_info}/RECORD,,"]) + "\n").encode()
    partial = path.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content)
    partial.replace(path)


def build(source: Path, output: Path, *locks: Path) -> dict[str, str]:
    """Build the wheel into the folder ``output`` unless it is there; gives what is printed.

    Wheels of earlier sources go after a day: another checkout may be at work with its own.

    :param locks: which packages are installed beside it; others make another version.
    """
    text = (source / "pyproject.toml").read_bytes()
    project = tomllib.loads(text.decode())["project"]
    files = source_files(source)
    declared = re.search(rb'^__version__ = "([^"]+)"', files[f"{PACKAGE}/__init__.py"], re.MULTILINE)
    if not declared:
        raise SystemExit(f"{source}/src/{PACKAGE}/__init__.py doesn't define __version__")
    version = declared[1].decode()
    inputs = fingerprint(text, {**files, **{f"/{place}": lock.read_bytes() for place, lock in enumerate(locks)}})
    local = f"{version}+g{inputs}"
    path = output / f"{PACKAGE}-{local}-py3-none-any.whl"
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        dist_info = f"{PACKAGE}-{local}.dist-info"
        for name, content in metadata(project, local).items():
            files[f"{dist_info}/{name}"] = content.encode()
        write_wheel(path, files, dist_info)
        for earlier in output.glob(f"{PACKAGE}-*.whl"):
            if earlier != path and earlier.stat().st_mtime < time.time() - KEPT:
                earlier.unlink(missing_ok=True)
    return {"path": str(path), "file": path.name, "version": version, "fingerprint": inputs}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Build the engine's wheel.")
    parser.add_argument("source", type=Path, help="the engine's folder, with pyproject.toml")
    parser.add_argument("output", type=Path, help="folder for the wheel")
    parser.add_argument("locks", type=Path, nargs="*", help="lock files of the packages installed with it")
    arguments = parser.parse_args()
    print(json.dumps(build(arguments.source, arguments.output, *arguments.locks)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
