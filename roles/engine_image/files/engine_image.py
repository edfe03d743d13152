# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the engine's two images from distribution packages, without any public base image.

    engine_image.py --wheel turtles-….whl --lock FILE --cache DIR [--check] [--archive --prefix REPOSITORY]

``turtles-engine`` has Python, the engine and what virt-handler calls; ``turtles-launcher`` has libvirt and QEMU on top.
Both share their lower layers:

    1 base      Debian without package manager data, documentation, locales; Python, libvirt's client, nftables
    2 packages  what the engine needs of Python's packages, as wheels whose hashes the lock file has
    3 launcher  libvirt's daemon, QEMU, busybox (turtles-launcher only)
    4 engine    the engine itself: all that an upgrade brings to a node

Bytecode is part of the image, compiled with hashes that aren't checked at start (PEP 552): the root filesystem of the
containers is read-only, so Python could not keep it, and each start of a launcher would compile everything again.

Each layer is kept in the cache under a hash of its inputs, as are the images; equal inputs make equal bytes as long as
the archive's packages are the same. ``--revision`` is an input that says nothing: another one fetches everything again.
Needs root, mmdebstrap and a pip. Progress goes to stderr, the result as one JSON object to
stdout: changed, tag, layout, images (digest, size, unpacked), archive, seconds.
"""

import argparse
import fcntl
import hashlib
import inspect
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import debian
import oci
from debian import ENGINE_UID, EPOCH, LAUNCHER_UID, Distribution, compile_modules, own
from programs import BuildError, run, say
from wheels import requirements, wheel_identity

#: What container-disk.S of the engine is assembled for, and which Kubernetes' nodes the components select.
MACHINE = "x86_64"
#: The command of standalone mode, and what only that needs: a cluster has Kubernetes' own.
NOT_ON_CLUSTERS = ("virt-standalone",)

# The client of Kubernetes is used for its configuration, TLS and connections. Its generated API methods, which it loads
# on demand, and its asyncio twin are two thirds of all Python packages.
UNUSED_PYTHON = ("kubernetes/aio", "kubernetes/client/api", "kubernetes/docs", "bin", "pydantic/v1")


def fingerprint(*inputs: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


class Builder:
    """Builds what isn't in the cache yet."""

    def __init__(self, options: argparse.Namespace) -> None:
        if platform.machine() != MACHINE:
            raise BuildError(
                f"this machine is {platform.machine()}, and images can be built on {MACHINE} (amd64) only, as nodes "
                "have to be. Run the playbook on such a machine, or have kubevirt_image_build=false, and "
                "kubevirt_image_tag name images that were built on one"
            )
        self.options = options
        self.cache: Path = options.cache
        self.store = self.cache / "layers"
        self.distribution = Distribution(options.release, options.mirror, options.base)
        self.packages = sorted(options.packages.split(","))
        self.launcher_packages = sorted(options.launcher_packages.split(","))
        self.requirements = requirements(options.wheel, options.lock)
        self.version, source = wheel_identity(options.wheel)
        # A layer is made again when what makes it has changed, not with each word in this file
        base = self._recipe(oci, self._make_base, debian)
        common = [
            base,
            options.release,
            options.mirror,
            options.base,
            self.packages,
            platform.machine(),
            options.revision,
        ]
        upper = self._recipe(self._base_with_site, self._upper_layer)
        self.keys = {
            "base": fingerprint(common),
            "packages": fingerprint(
                common,
                upper,
                self._recipe(self._make_packages),
                UNUSED_PYTHON,
                self.requirements,
                options.pip_argument,
            ),
            "launcher": fingerprint(common, self._recipe(self._make_launcher), self.launcher_packages),
            "engine": fingerprint(common, upper, self._recipe(self._make_engine), source),
        }
        self.tag = f"{self.version}-{fingerprint(self.keys, self._recipe(self._build))}"
        self.layout = self.cache / "images" / self.tag

    @staticmethod
    def _recipe(*parts: Any) -> str:
        """A hash of the source of modules and functions."""
        return fingerprint([inspect.getsource(part) for part in parts])

    @property
    def complete(self) -> bool:
        """Whether the images are in the cache."""
        return (self.layout / "images.json").exists()

    def images(self) -> dict[str, dict[str, Any]]:
        """Give digests and sizes of the images; builds them if they aren't there."""
        if not self.complete:
            self.cache.mkdir(parents=True, exist_ok=True)
            with (self.cache / ".lock").open("w") as lock:
                # Two builds with one cache would do the same work, and write the same files
                fcntl.flock(lock, fcntl.LOCK_EX)
                for left in self.cache.glob(".build-*"):  # by a build that was killed
                    shutil.rmtree(left)
                if not self.complete:
                    self._build()
        found: dict[str, dict[str, Any]] = json.loads((self.layout / "images.json").read_text())
        return found

    def _build(self) -> None:
        self.cache.chmod(0o755)
        base = self._layer("base", self._make_base)
        packages = self._layer("packages", self._make_packages)
        engine = self._layer("engine", self._make_engine)
        launcher = self._layer("launcher", self._make_launcher)
        self._try(base, packages, engine)
        labels = {
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.revision": self.tag,
            "org.opencontainers.image.licenses": "GPL-3.0-or-later",
        }
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"]

        def configuration(name: str, uid: int) -> dict[str, Any]:
            return {
                "Env": environment,
                "User": f"{uid}:{uid}",
                "WorkingDir": "/",
                "Labels": {**labels, "org.opencontainers.image.title": name},
            }

        partial = self.layout.with_name(f".{self.tag}.part")
        shutil.rmtree(partial, ignore_errors=True)
        found = oci.write_images(
            partial,
            self.store,
            {
                "turtles-engine": ([base, packages, engine], configuration("turtles-engine", ENGINE_UID)),
                "turtles-launcher": (
                    [base, packages, launcher, engine],
                    configuration("turtles-launcher", LAUNCHER_UID),
                ),
            },
            EPOCH,
            platform.machine(),
        )
        (partial / "images.json").write_text(json.dumps(found))
        shutil.rmtree(self.layout, ignore_errors=True)
        partial.replace(self.layout)
        self._prune()

    def _layer(self, name: str, make: Callable[[Path], oci.Layer]) -> oci.Layer:
        note = self.cache / "keys" / f"{name}-{self.keys[name]}.json"
        if note.exists():
            return oci.Layer(**json.loads(note.read_text())["layer"])
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as scratch:
            # mmdebstrap and the programs of other users look into it
            Path(scratch).chmod(0o755)
            layer = make(Path(scratch, "root"))
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"layer": oci.layer_as_json(layer)}))
        say(f"layer {name}: {layer.size >> 20} MiB, {layer.unpacked >> 20} MiB unpacked")
        return layer

    def _try(self, *layers: oci.Layer) -> None:
        """Load what each command runs, in the image as it will be: a package that is missing is better found here."""
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as scratch:
            root = Path(scratch)
            for layer in layers:
                oci.extract_layer(self.store, layer, root)
            programs = [path for path in (root / "usr/bin").glob("virt-*") if path.read_bytes().startswith(b"#!")]
            modules = sorted(
                {
                    line.split()[1]
                    for path in programs
                    for line in path.read_text().splitlines()
                    if line.startswith("from turtles")
                }
            )
            run(
                "chroot",
                root,
                "/usr/bin/python3",
                "-c",
                "".join(f"import {name}\n" for name in modules),
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )

    # The layers

    def _make_base(self, root: Path) -> oci.Layer:
        self.distribution.install(root, self.packages)
        index = oci.index(root)
        (self.cache / "keys").mkdir(exist_ok=True)
        (self.cache / "keys" / f"index-{self.keys['base']}.json").write_text(json.dumps(index))
        return oci.write_layer(root, self.store, EPOCH)

    def _make_launcher(self, root: Path) -> oci.Layer:
        self.distribution.install(root, [*self.packages, *self.launcher_packages])
        below = json.loads((self.cache / "keys" / f"index-{self.keys['base']}.json").read_text())
        return oci.write_layer(root, self.store, EPOCH, below)

    def _make_packages(self, root: Path) -> oci.Layer:
        site = self._base_with_site(root)
        say(f"pip: {len(self.requirements)} packages")
        lock = root.with_name("requirements.lock")
        lock.write_text("".join(f"{line}\n" for line in self.requirements))
        platforms = [f"--platform=manylinux_2_{minor}_{platform.machine()}" for minor in range(36, 4, -1)]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        run(
            self.options.pip_python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--no-input",
            "--only-binary=:all:",
            "--python-version=3.11",
            "--implementation=cp",
            "--abi=cp311",
            "--abi=abi3",
            "--abi=none",
            *platforms,
            f"--platform=manylinux2014_{platform.machine()}",
            f"--target={site}",
            *self.options.pip_argument,
            "--no-deps",
            "--require-hashes",
            f"--requirement={lock}",
            env=environment,
        )
        for name in UNUSED_PYTHON:
            shutil.rmtree(site / name, ignore_errors=True)
        for folder in [*site.rglob("tests"), *site.rglob("__pycache__")]:
            shutil.rmtree(folder, ignore_errors=True)
        for record in [*site.glob("*.dist-info/RECORD"), *site.glob("*.dist-info/direct_url.json")]:
            record.unlink()
        own(site)
        compile_modules(root, "/" + site.relative_to(root).as_posix())
        return self._upper_layer(root, site)

    def _make_engine(self, root: Path) -> oci.Layer:
        site = self._base_with_site(root)
        with zipfile.ZipFile(self.options.wheel) as content:
            content.extractall(site)
            scripts = next(name for name in content.namelist() if name.endswith("entry_points.txt"))
            targets = dict(re.findall(r"^(\S+) = (\S+)$", content.read(scripts).decode(), re.MULTILINE))
        own(site)
        compile_modules(root, "/" + site.relative_to(root).as_posix())
        programs = []
        for name in sorted(targets.keys() - set(NOT_ON_CLUSTERS)):
            module, function = targets[name].split(":")
            program = root / "usr/bin" / name
            programs.append(program)
            program.write_text(
                f"#!/usr/bin/python3 -sP\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
            )
        # An init container of machines' Pods copies it from here
        programs.append(root / "usr/bin/container-disk")
        shutil.copyfile(site / "turtles/launcher/container-disk.bin", programs[-1])
        for program in programs:
            program.chmod(0o755)
            os.utime(program, (EPOCH, EPOCH))
        return self._upper_layer(root, site, *programs)

    def _base_with_site(self, root: Path) -> Path:
        """Unpack the base, and give the folder in it where Debian's Python looks for local packages."""
        base = self._layer("base", self._make_base)
        root.mkdir()
        oci.extract_layer(self.store, base, root)
        site = root / "usr/local/lib/python3.11/dist-packages"
        site.mkdir(parents=True, exist_ok=True)
        return site

    def _upper_layer(self, root: Path, *kept: Path) -> oci.Layer:
        """Write what was put on the base, and nothing else: a layer of files, with the folders they are in."""
        upper = root.with_name("upper")
        for path in kept:
            target = upper / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        for folder in [path for path in upper.rglob("*") if path.is_dir()]:
            os.utime(folder, (EPOCH, EPOCH))
        return oci.write_layer(upper, self.store, EPOCH)

    def _prune(self) -> None:
        """Keep the two youngest images and their layers."""
        folders = (path for path in (self.cache / "images").iterdir() if path.is_dir() and path.name[0] != ".")
        for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-2]:
            shutil.rmtree(old)
            old.with_name(f"{old.name}.tar").unlink(missing_ok=True)
        for note in (self.cache / "keys").glob("*-*.json"):
            name, _dummy, key = note.stem.rpartition("-")
            if key not in self.keys.values() and time.time() - note.stat().st_mtime > 7 * 86400:
                if name != "index":
                    layer = json.loads(note.read_text())["layer"]
                    (self.store / layer["digest"].partition(":")[2]).unlink(missing_ok=True)
                note.unlink()


def parser() -> argparse.ArgumentParser:
    """Give the program's options."""
    found = argparse.ArgumentParser(description="Build the engine's images.")
    found.add_argument("--wheel", type=Path, required=True, help="the engine's wheel")
    found.add_argument("--lock", type=Path, required=True, help="version and hashes of the packages it needs")
    found.add_argument("--cache", type=Path, required=True, help="folder for layers and images")
    found.add_argument("--release", default="bookworm", help="release of Debian")
    found.add_argument("--mirror", default="", help="its mirror, or a file of sources; mmdebstrap's own if empty")
    found.add_argument("--base", default="", help="Debian-based base image, as a skopeo reference, instead of both")
    found.add_argument("--packages", required=True, help="distribution packages of both images, separated by commas")
    found.add_argument(
        "--launcher-packages", required=True, help="more packages of turtles-launcher, separated by commas"
    )
    found.add_argument("--pip-python", default=sys.executable, help="Python whose pip is used")
    found.add_argument("--pip-argument", action="append", default=[], help="additional argument of pip install")
    found.add_argument("--revision", default="", help="any text; changing it fetches all packages again")
    found.add_argument("--archive", action="store_true", help="also pack both images as one archive")
    found.add_argument("--tag", default="", help="tag in the archive, instead of the one derived from the inputs")
    found.add_argument("--prefix", default="localhost", help="prefix of references in the archive")
    found.add_argument("--check", action="store_true", help="build nothing, report what would be built")
    return found


def main() -> int:
    """Entry point."""
    options = parser().parse_args()
    started = time.monotonic()
    try:
        builder = Builder(options)
        changed = not builder.complete
        result: dict[str, Any] = {"changed": changed, "tag": builder.tag, "layout": str(builder.layout)}
        if not (options.check and changed):
            result["images"] = builder.images()
            archive = builder.layout.with_name(f"{builder.tag}.tar")
            if options.archive and not options.check:
                tag = options.tag or builder.tag
                oci.write_archive(
                    builder.layout, archive, {name: f"{options.prefix}/{name}:{tag}" for name in result["images"]}
                )
                result["archive"] = str(archive)
    except (BuildError, OSError) as error:
        print(f"engine_image: {error}", file=sys.stderr)
        return 1
    result["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
