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
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from email.parser import Parser
from pathlib import Path
from typing import Any

import oci

#: Nothing in the images is younger: 2023-06-10, Debian 12's release.
EPOCH = 1686355200
#: What container-disk.S of the engine is assembled for, and which Kubernetes' nodes the components select.
MACHINE = "x86_64"
ENGINE_UID, LAUNCHER_UID = 1001, 107
#: Comes as a distribution package, since it has no wheel: it is compiled against the distribution's libvirt.
FROM_DISTRIBUTION = ("libvirt-python",)
#: The command of standalone mode, and what only that needs: a cluster has Kubernetes' own.
NOT_ON_CLUSTERS = ("virt-standalone",)
ONLY_STANDALONE = ("PyJWT", "cel-expr-python", "google-re2")

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
# The client of Kubernetes is used for its configuration, TLS and connections. Its generated API methods, which it loads
# on demand, and its asyncio twin are two thirds of all Python packages.
UNUSED_PYTHON = ("kubernetes/aio", "kubernetes/client/api", "kubernetes/docs", "bin", "pydantic/v1")
#: Never imported, so not worth compiling.
UNCOMPILED = "kubernetes/client/models"


class BuildError(Exception):
    """The images can't be built; the message says why and what to do."""


def say(message: str) -> None:
    """Progress for people."""
    print(f"engine_image: {message}", file=sys.stderr, flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program; its output, or a BuildError with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"the program {words[0]} is missing: install the role's packages") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildError(f"{' '.join(words[:4])} failed with status {done.returncode}: {said}")
    return done.stdout


def fingerprint(*inputs: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def normal(name: str) -> str:
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
    locked = {normal(re.split(r"[^A-Za-z0-9._-]", line)[0]): line.strip() for line in lines if line.strip()}
    for line in needed:
        package = re.split(r"[^A-Za-z0-9._-]", line)[0]
        if normal(package) not in locked:
            raise BuildError(f"{lock} doesn't have {package}, which the engine needs: update it with make lock")
    others = {normal(package) for package in (*FROM_DISTRIBUTION, *ONLY_STANDALONE)}
    return sorted(line for package, line in locked.items() if package not in others)


def wheel_identity(wheel: Path) -> tuple[str, str]:
    """Version and source hash that a wheel's name says: turtles-<version>+g<hash>-py3-none-any.whl."""
    found = re.fullmatch(r"turtles-([^+]+)\+g([0-9a-f]+)-py3-none-any\.whl", wheel.name)
    if not found:
        raise BuildError(f"{wheel.name} is not a wheel of the engine: turtles-<version>+g<hash>-py3-none-any.whl")
    return found[1], found[2]


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
        self.packages = sorted(options.packages.split(","))
        self.launcher_packages = sorted(options.launcher_packages.split(","))
        self.requirements = requirements(options.wheel, options.lock)
        self.version, source = wheel_identity(options.wheel)
        # A layer is made anew when what makes it changed, not with each word in this file
        base = self._recipe(oci, self._make_base, self._install, self._unpack_base_image, self._apt, _slim, _compile)
        common = [
            base,
            SUPERFLUOUS,
            EPOCH,
            options.release,
            options.mirror,
            options.base,
            self.packages,
            platform.machine(),
            options.revision,
        ]
        upper = self._recipe(self._base_with_site, self._upper_layer, _own)
        self.keys = {
            "base": fingerprint(common),
            "packages": fingerprint(
                common,
                upper,
                self._recipe(self._make_packages),
                UNUSED_PYTHON,
                UNCOMPILED,
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
        self._install(root, self.packages)
        _slim(root)
        _compile(root, "/usr/lib/python3.11", "/usr/lib/python3/dist-packages")
        index = oci.index(root)
        (self.cache / "keys").mkdir(exist_ok=True)
        (self.cache / "keys" / f"index-{self.keys['base']}.json").write_text(json.dumps(index))
        return oci.write_layer(root, self.store, EPOCH)

    def _make_launcher(self, root: Path) -> oci.Layer:
        self._install(root, [*self.packages, *self.launcher_packages])
        _slim(root)
        _compile(root, "/usr/lib/python3.11", "/usr/lib/python3/dist-packages")
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
        _own(site)
        _compile(root, "/" + site.relative_to(root).as_posix())
        return self._upper_layer(root, site)

    def _make_engine(self, root: Path) -> oci.Layer:
        site = self._base_with_site(root)
        with zipfile.ZipFile(self.options.wheel) as content:
            content.extractall(site)
            scripts = next(name for name in content.namelist() if name.endswith("entry_points.txt"))
            targets = dict(re.findall(r"^(\S+) = (\S+)$", content.read(scripts).decode(), re.MULTILINE))
        _own(site)
        _compile(root, "/" + site.relative_to(root).as_posix())
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

    def _install(self, root: Path, packages: Iterable[str]) -> None:
        if self.options.base:
            self._unpack_base_image(root)
            self._apt(root, packages)
            return
        packages = list(packages)
        say(f"mmdebstrap {self.options.release}: {len(packages)} packages and what they need, about a minute")
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
            *(self.options.release, root),
            *filter(None, [self.options.mirror]),
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)},
        )

    def _unpack_base_image(self, root: Path) -> None:
        """Get a base image of Debian's kind, by the reference skopeo takes (docker://…, oci-archive:…)."""
        bundle = root.with_name("bundle")
        layout = root.with_name("layout")
        run("skopeo", "copy", "--quiet", self.options.base, f"oci:{layout}:base")
        run("umoci", "unpack", "--image", f"{layout}:base", bundle)
        (bundle / "rootfs").rename(root)
        shutil.rmtree(layout)
        for name, uid in (("qemu", LAUNCHER_UID), ("turtles", ENGINE_UID)):
            with (root / "etc/passwd").open("a") as file:
                file.write(f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n")
            with (root / "etc/group").open("a") as file:
                file.write(f"{name}:x:{uid}:\n")

    def _apt(self, root: Path, packages: Iterable[str]) -> None:
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


def _own(folder: Path) -> None:
    """Make everything root's and readable, with one time: archives and pip leave their own."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 0, 0, follow_symlinks=False)
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)
        os.utime(path, (EPOCH, EPOCH))


def _compile(root: Path, *folders: str) -> None:
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
