# SPDX-License-Identifier: GPL-3.0-or-later
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from networks import subnet

from turtles.handler.watcher import Watcher

from .rig import Pod

BRIDGE = f"tt{os.getpid()}b"


@pytest.fixture(autouse=True)
def _root_only(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("root") and os.getuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="module", autouse=True)
def _close_watchers() -> Iterator[None]:
    """Root has 128 inotify instances for all that runs on the machine."""
    made: list[Watcher] = []
    make = Watcher.__init__

    def record(self: Watcher) -> None:
        make(self)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "__init__", record)
        yield
    for watcher in made:
        watcher.close()


@pytest.fixture(scope="session")
def capability_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libvirt's knowledge of QEMU, which takes it a second to gather."""
    return tmp_path_factory.mktemp("cache", numbered=True)


@pytest.fixture
def make_pod(tmp_path: Path, capability_cache: Path) -> Iterator[Callable[[], Pod]]:
    # libvirtd, which isn't root, must be able to reach its files.
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    pods: list[Pod] = []

    def make() -> Pod:
        pods.append(Pod(tmp_path, BRIDGE, subnet("handler"), capability_cache))
        return pods[-1]

    yield make
    for pod in pods:
        pod.remove()
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)
