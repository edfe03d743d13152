# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods to run the launcher in."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from turtles.domain import handover, paths

SANDBOX = Path(__file__).with_name("sandbox.py")
VMI_UID = "2f3c8a52-53ff-4a1c-9a4c-0f6e58b7e0a1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    """Return the first true value of *condition*, which is asked every few milliseconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.005)
    return value


def make_vmi(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "testvm", "namespace": "default", "uid": VMI_UID},
        "spec": {"domain": {"devices": {}}, **spec},
    }


class Pod:
    """A launcher in a sandbox."""

    def __init__(self, base: Path, cache: Path | None) -> None:
        self.base = base
        self.cache = cache
        self.process: subprocess.Popen[bytes] | None = None
        self.mounts = []
        for target, name in paths.EMPTY_DIRS.items():
            self.volume(name).mkdir(parents=True)
            os.chown(self.volume(name), 107, 107)
            self.mounts.append({"source": f"volumes/{name}", "target": str(target)})
        self.mounts.sort(key=lambda item: len(item["target"]))

    def volume(self, name: str) -> Path:
        return self.base / "volumes" / name

    def inside(self, path: Any) -> Path:
        """Return where a path in one of the Pod's emptyDirs is outside."""
        for target in sorted(paths.EMPTY_DIRS, key=lambda item: -len(item.parts)):
            if Path(path).is_relative_to(target):
                return self.volume(paths.EMPTY_DIRS[target]) / Path(path).relative_to(target)
        raise AssertionError(path)

    def image(self, volume: str, files: dict[str, bytes | Path]) -> None:
        """Add an image volume with *files* (path → content, or a file to copy)."""
        folder = self.base / "images" / volume
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copy(content, folder / name)
            else:
                (folder / name).write_bytes(content)
        target = str(paths.container_disk_image_dir(volume))
        self.mounts.append({"source": f"images/{volume}", "target": target, "readOnly": True})

    def start(self, vmi: dict[str, Any], grace: int = 30, *, image_volumes: bool = True, **pod: Any) -> None:
        """Start virt-launcher for *vmi*, which the node agent has delivered."""
        self.start_waiting(vmi, grace, image_volumes=image_volumes, **pod)
        self.deliver(vmi)

    def start_waiting(
        self,
        vmi: dict[str, Any],
        grace: int = 30,
        *,
        image_volumes: bool = True,
        function: str = "turtles.launcher.main:main",
        **pod: Any,
    ) -> None:
        """Start virt-launcher for *vmi*, which it has to wait for."""
        metadata = vmi["metadata"]
        arguments = ["--name", metadata["name"], "--uid", metadata["uid"], "--namespace", metadata["namespace"]]
        arguments += ["--kubevirt-share-dir", "/var/run/kubevirt"]
        arguments += ["--ephemeral-disk-dir", "/var/run/kubevirt-ephemeral-disks", "--grace-period-seconds", str(grace)]
        arguments += ["--image-volume"] if image_volumes else []
        self.run(function, arguments, **pod)

    def deliver(self, vmi: dict[str, Any] | bytes) -> None:
        """Do the node agent's part."""
        path = self.inside(paths.DELIVERED_VMI)
        draft = path.with_name("draft")
        draft.write_bytes(vmi if isinstance(vmi, bytes) else handover.launcher_view(vmi))
        os.chown(draft, 107, 107)
        draft.rename(path)

    def run(self, function: str, arguments: list[Any], **pod: Any) -> None:
        """Start *function* in the sandbox."""
        config = {
            "function": function,
            "arguments": [arguments],
            "hostname": "virt-launcher-testvm",
            "mounts": self.mounts,
            "env": {},
            "network": [
                "link set lo up",
                "link add eth0 address 0a:58:0a:f4:00:05 mtu 1400 type veth peer name node0",
                "addr add 10.244.0.5/24 dev eth0",
                "link set eth0 up",
                "link set node0 up",
                "route add default via 10.244.0.1",
            ],
            **({"cache": str(self.cache)} if self.cache else {}),
            **pod,
        }
        (self.base / "pod.json").write_text(json.dumps(config))
        with (self.base / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SANDBOX), str(self.base)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(lambda: (self.base / "pid").exists() or self.process.poll() is not None, "the Pod to start")

    @property
    def pid(self) -> int:
        """Process 1 of the Pod, seen from outside."""
        return int((self.base / "pid").read_text())

    @property
    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    @property
    def message(self) -> str:
        return (self.base / "termination-log").read_text()

    def exit_status(self, timeout: float = 60) -> int:
        """Wait for the end."""
        wait_for((self.base / "exit").exists, f"the Pod to end; log: {self.log}", timeout)
        self.process.wait(60)
        return int((self.base / "exit").read_text())

    @property
    def socket(self) -> Path:
        return self.inside(paths.LIBVIRT_SOCKET)

    def connect(self) -> libvirt.virConnect:
        """Connect as the node agent does: as root, from outside, as soon as the socket is there."""
        wait_for(lambda: self.socket.exists() or (self.base / "exit").exists(), f"the libvirt socket; log: {self.log}")
        assert self.socket.is_socket(), self.log
        return libvirt.open(f"qemu+unix:///session?socket={self.socket}")

    def nsenter(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run *command* in the Pod's network namespace."""
        return subprocess.run(["nsenter", "-t", str(self.pid), "-n", *command], check=True, text=True, **options)

    def ip(self, *commands: str) -> None:
        for command in commands:
            self.nsenter("ip", *command.split())

    def children(self) -> dict[str, int]:
        """Return the Pod's processes beside the first by name."""
        found = {}
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/pid").readlink() == namespace and int(process.name) != self.pid:
                    found[(process / "comm").read_text().strip()] = int(process.name)
            except OSError:
                continue
        return found

    def end(self) -> None:
        if self.process is None:
            return
        if not (self.base / "exit").exists() and (self.base / "pid").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.wait(60)


@pytest.fixture(scope="session")
def capability_cache() -> Iterator[Path]:
    """A node's capability cache, made by the launcher's own prepare in a Pod."""
    base = Path(tempfile.mkdtemp(prefix="tl-"))
    cache = base / "cache"
    cache.mkdir()
    os.chown(cache, 107, 107)
    pod = Pod(base, cache)
    pod.run("turtles.launcher.main:prepare", "/var/cache/turtles-launcher", cacheReadOnly=False)
    try:
        assert pod.exit_status() == 0, pod.log
        yield cache
    finally:
        pod.end()
        shutil.rmtree(base)


@pytest.fixture
def pod(capability_cache: Path) -> Iterator[Pod]:
    # Not pytest's own folder: its paths are too long for a Unix socket.
    base = Path(tempfile.mkdtemp(prefix="tl-"))
    base.chmod(0o755)
    pod = Pod(base, capability_cache)
    try:
        yield pod
    finally:
        pod.end()
        shutil.rmtree(base)


def peer_pid(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return int.from_bytes(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
