# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of one mount namespace shown in another, and a launcher's container disks as the node agent serves them."""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from turtles.handler import mounts
from turtles.handler.errors import LauncherNotReady
from turtles.handler.launcher import Launcher
from turtles.handler.watcher import Watcher

pytestmark = pytest.mark.root

TARGET = PurePosixPath("/mnt/image")
#: Gives a command the folder of sockets where a Pod has it.
IN_POD = """
mount --make-rprivate /
mount --bind "$0" /opt && mount -t tmpfs t /run && mkdir -p /run/kubevirt/sockets
mount --move /opt /run/kubevirt/sockets
exec "$@"
"""


class Box:
    """A process in namespaces of its own."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(["unshare", "--mount", *command], stdin=subprocess.DEVNULL)

    def namespace(self) -> int:
        return os.open(f"/proc/{self.process.pid}/ns/mnt", os.O_RDONLY)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def launcher() -> Iterator[Box]:
    script = "mount --make-rprivate / && mount -t tmpfs t /mnt && mkdir -p /mnt/image /mnt/done && exec sleep 600"
    box = Box("sh", "-c", script)
    wait(lambda: inside(box, "test", "-d", "/mnt/done"))
    yield box
    box.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hm-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def wait(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def inside(box: Box, *command: str) -> bool:
    done = subprocess.run(["nsenter", "-t", str(box.process.pid), "-m", *command], capture_output=True)
    return done.returncode == 0


def show(source: Box, launcher: Box, target: PurePosixPath = TARGET) -> None:
    descriptors = [source.namespace(), launcher.namespace()]
    try:
        mounts.show(*descriptors, target)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_files_are_shown_read_only_and_nowhere_else(launcher: Box, folder: Path) -> None:
    source = Box(
        "sh",
        "-c",
        'mount --make-rprivate / && mount -t tmpfs t /opt && touch "$0/ready" && exec sleep 600',
        str(folder),
    )
    wait((folder / "ready").exists)
    show(source, launcher)
    assert inside(launcher, "test", "-e", "/mnt/image/etc/passwd"), "the root of the other one's namespace"
    assert not inside(launcher, "touch", "/mnt/image/tmp/x")
    assert not inside(launcher, "test", "-e", "/mnt/image/proc/1"), "nothing that is mounted in there"
    assert not Path("/mnt/image").exists()
    show(source, launcher)
    lines = subprocess.run(
        ["nsenter", "-t", str(launcher.process.pid), "-m", "cat", "/proc/self/mounts"], capture_output=True, text=True
    ).stdout.splitlines()
    [line] = [line for line in lines if " /mnt/image " in line]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[3].split(","))
    source.end()
    assert inside(launcher, "test", "-e", "/mnt/image/etc/passwd"), "it outlives the other container"


def test_a_target_that_is_missing(launcher: Box) -> None:
    with pytest.raises(mounts.MountError, match="/mnt/nowhere: No such file or directory"):
        show(launcher, launcher, PurePosixPath("/mnt/nowhere"))


def test_a_link_into_another_world_is_refused(launcher: Box) -> None:
    assert inside(launcher, "ln", "-s", "/proc/1/root/mnt", "/mnt/link")
    with pytest.raises(mounts.MountError):
        show(launcher, launcher, PurePosixPath("/mnt/link"))


# The agent

LISTEN = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
while True:
    c, _ = s.accept()
    print(repr(c.recv(4096)), flush=True)
"""


@pytest.fixture
def pod(folder: Path) -> Iterator["Sockets"]:
    pod = Sockets(folder)
    yield pod
    pod.end()


@pytest.fixture
def another(folder: Path) -> Path:
    """The folder of sockets of another Pod."""
    path = folder / "another"
    path.mkdir(mode=0o777)
    return path


class Sockets:
    """A Pod's folder of sockets, and processes that listen in it."""

    def __init__(self, folder: Path) -> None:
        self.uid = str(uuid.uuid4())
        self.pods = folder / "pods"
        self.folder = self.pods / self.uid / "volumes/kubernetes.io~empty-dir/sockets"
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o777)
        self.processes: list[subprocess.Popen] = []
        self.launcher = Launcher(str(self.pods), self.uid, Watcher(), lambda: None, lambda detail: None, ["root"])

    def listen(self, name: str, uid: int = 107, *prefix: str, folder: Path | None = None) -> subprocess.Popen:
        """Have a process listen.

        :param folder: of another Pod, whose process it is then.
        """
        link = Path(f"/tmp/{uuid.uuid4().hex[:8]}")  # the folder's own path is too long for an address
        link.symlink_to(self.folder)
        process = subprocess.Popen(
            [
                *prefix,
                "unshare",
                "--mount",
                "sh",
                "-ec",
                IN_POD,
                str(folder or self.folder),
                "/usr/bin/python3",
                "-c",
                LISTEN,
                str(link / name),
                str(uid),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        wait((self.folder / name).exists)
        time.sleep(0.05)
        link.unlink()
        return process

    def end(self) -> None:
        self.launcher.close()
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()


def test_disks_are_mounted_when_all_of_their_containers_run(pod: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(mounts, "show", lambda source, launcher, target: shown.append(str(target)))
    waiting = pod.listen("container-disks")
    with pytest.raises(LauncherNotReady, match="containerDisk"):
        pod.launcher.connection()
    assert waiting.stdout.readline().strip() == "b''"
    pod.listen("disk-root")
    with pytest.raises(LauncherNotReady, match="has not created its socket"):
        pod.launcher.connection()
    assert waiting.stdout.readline().strip() == r"b'mounted\n'"
    assert shown == ["/var/run/kubevirt-image-volume/root"]


@pytest.mark.parametrize("stranger", ["root", "elsewhere", "another Pod's"])
def test_strangers_are_not_taken_for_the_container(
    pod: Sockets, another: Path, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    monkeypatch.setattr(mounts, "show", lambda *_: pytest.fail("mounted"))
    waiting = pod.listen("container-disks")
    if stranger == "root":
        pod.listen("disk-root", 0)
    elif stranger == "another Pod's":
        pod.listen("disk-root", folder=another)
    else:
        pod.listen("disk-root", 107, "unshare", "--net")
    with pytest.raises(LauncherNotReady):
        pod.launcher.connection()
    assert "the listener is not its image's" in waiting.stdout.readline()


@pytest.mark.parametrize("name", ["container-disks", "libvirt-sock"])
def test_strangers_are_not_taken_for_the_launcher(
    pod: Sockets, another: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(mounts, "show", lambda *_: pytest.fail("mounted"))
    pod.listen(name, folder=another)
    pod.listen("disk-root")
    with pytest.raises(LauncherNotReady, match=f"{name} belongs to a process outside of the Pod"):
        pod.launcher.connection()
    with pytest.raises(LauncherNotReady, match="not connected"):
        _ = pod.launcher.netns


def test_what_the_kernel_refuses_reaches_the_launcher(pod: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise mounts.MountError("open_tree: Function not implemented")

    monkeypatch.setattr(mounts, "show", refuse)
    waiting = pod.listen("container-disks")
    pod.listen("disk-root")
    with pytest.raises(LauncherNotReady):
        pod.launcher.connection()
    assert "volume 'root': the files of its image can't be mounted: open_tree" in waiting.stdout.readline()
