# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kubernetes 1.20.2, built from Debian's source package with Debian's Go, and what it needs to run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .errors import ClusterError
from .images import make_images
from .packages import Apt

VERSION = "v1.20.2"
COMMIT = "faecb196815e248d3ecfb03c680a4507229c2a56"
DATE = "2021-01-13T13:20:00Z"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
#: What makes machines a cluster, beside the components.
TOOLS = ("kubeadm", "kubectl")
#: What machines of a cluster run beside Kubernetes.
RUNTIME = [
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "etcd-server",
    "runc",
]
TOOLCHAIN = ["golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev"]
PAUSE = Path(__file__).with_name("pause.go")

Say = Callable[[str], None]


def build(cache: Path, say: Say = print, *, programs: Path | None = None, tools: bool = False) -> None:
    """Fill the cache with binaries and images. What is there stays; several may call this at once.

    Takes 8 minutes of processor time and 2.5 GB the first time, of which 450 MB stay.

    :param programs: a folder; what is in it needn't be built.
    :param tools: whether to build `TOOLS` as well.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = cache / "build"
        binaries = cache / "bin"
        binaries.mkdir(exist_ok=True)
        names = (*COMPONENTS, *TOOLS) if tools else COMPONENTS
        wanted = [name for name in names if programs is None or not (programs / name).exists()]
        missing = [name for name in (*wanted, "pause") if not (binaries / name).exists()]
        needs_packages = not (cache / "root" / "complete").exists()
        if needs_packages or missing:
            say(f"fetching Debian's packages into {cache}")
            apt = Apt(scratch / "apt")
            if needs_packages:
                apt.unpack(RUNTIME, cache / "root")
                (cache / "root" / "complete").touch()
            if missing:
                _build(apt, scratch, binaries, missing, say)
        make_images(cache)
        shutil.rmtree(scratch, ignore_errors=True)


def _build(apt: Apt, scratch: Path, binaries: Path, missing: list[str], say: Say) -> None:
    toolchain = scratch / "toolchain"
    apt.unpack(TOOLCHAIN, toolchain)
    go = _Go(toolchain / "usr/lib/go-1.19/bin/go", scratch)
    if "pause" in missing:
        (scratch / "pause").mkdir(exist_ok=True)
        shutil.copy(PAUSE, scratch / "pause" / "main.go")
        go.build("main.go", binaries / "pause", folder=scratch / "pause")
    components = [name for name in (*COMPONENTS, *TOOLS) if name in missing]
    if not components:
        return
    source = scratch / "gopath/src/k8s.io/kubernetes"
    if not (source / "prepared").exists():
        _prepare(apt.source("kubernetes", scratch / "source"), source, toolchain, go)
        (source / "prepared").touch()
    flags = []
    for package in ("component-base/version", "client-go/pkg/version"):
        for name, value in {
            "gitVersion": VERSION,
            "gitMajor": "1",
            "gitMinor": "20",
            "gitTreeState": "archive",
            "gitCommit": COMMIT,
            "buildDate": DATE,
        }.items():
            flags.append(f"-X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}")
    for name in components:
        start = time.monotonic()
        go.build(f"k8s.io/kubernetes/cmd/{name}", binaries / name, folder=source, flags=" ".join(flags))
        say(f"built {name} in {time.monotonic() - start:.0f} s")


def _prepare(files: list[Path], source: Path, toolchain: Path, go: _Go) -> None:
    """Unpack Debian's source so that its Go 1.19 can build it."""
    (archive,) = [f for f in files if ".orig.tar." in f.name]
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    subprocess.run(["tar", "-xf", archive, "-C", source, "--strip-components=1"], check=True)
    # The vendored reflect2 1.0.1 corrupts memory with Go 1.18 and later, where json-iterator walks a map.
    reflect2 = Path("github.com/modern-go/reflect2")
    shutil.rmtree(source / "vendor" / reflect2)
    shutil.copytree(toolchain / "usr/share/gocode/src" / reflect2, source / "vendor" / reflect2)
    _generate_openapi(source, go)


def _generate_openapi(source: Path, go: _Go) -> None:
    """Write pkg/generated/openapi, which the source package lacks."""
    marked = re.compile(rb"^// *\+k8s:openapi-gen=", re.MULTILINE)
    packages = set()
    for top in ("cmd", "pkg", "plugin", "vendor/k8s.io"):
        # vendor/k8s.io are links to staging, which os.walk would leave out
        for folder, _folders, names in os.walk(source / top, followlinks=True):
            relative = os.path.relpath(folder, source)
            if "code-generator" in relative or "sample-apiserver" in relative:
                continue
            go_files = [Path(folder, n) for n in names if n.endswith(".go") and not n.endswith("_test.go")]
            if any(marked.search(file.read_bytes()) for file in go_files):
                packages.add(f"k8s.io/kubernetes/{relative}")
    generator = source.parents[3] / "openapi-gen"
    go.build("./vendor/k8s.io/kube-openapi/cmd/openapi-gen", generator, folder=source)
    go.run(
        generator,
        *("--input-dirs", ",".join(sorted(packages))),
        *("--output-package", "k8s.io/kubernetes/pkg/generated/openapi"),
        *("--output-file-base", "zz_generated.openapi"),
        *("--go-header-file", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"),
        *("--report-filename", str(generator.with_suffix(".violations"))),
        folder=source,
    )


class _Go:
    """Debian's Go in GOPATH mode, at low priority."""

    def __init__(self, go: Path, scratch: Path) -> None:
        self._go = go
        self._environment = {
            "PATH": f"{go.parent}:{os.environ['PATH']}",
            "HOME": str(scratch),
            "GOPATH": str(scratch / "gopath"),
            "GOCACHE": str(scratch / "gocache"),
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
        }

    def run(self, *command: str | Path, folder: Path) -> None:
        done = subprocess.run(
            ["nice", *command], cwd=folder, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ClusterError(
                f"{Path(command[0]).name} failed in {folder}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )

    def build(self, package: str, output: Path, *, folder: Path, flags: str = "") -> None:
        """Build one program; it is at `output` completely or not at all."""
        partial = output.with_suffix(".part")
        linker = f"-ldflags=-s -w -buildid= {flags}"
        options = ("-trimpath", "-tags", "providerless,dockerless", linker)
        self.run(self._go, "build", *options, "-o", partial, package, folder=folder)
        partial.rename(output)
