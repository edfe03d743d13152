# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods whose processes may lock memory, or have many files open."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import definition
from turtles.handler import process_limits

MIB = 2**20


@pytest.fixture
def process() -> Iterator[int]:
    """A process in a PID namespace of its own, as those of Pods are, that may lock 8 MiB."""
    command = ["prlimit", f"--memlock={8 * MIB}", "unshare", "--pid", "--fork", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        parent.stdout.readline()
        yield int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        parent.stdin.close()


def limits(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_MEMLOCK)


@pytest.mark.root
def test_limits_are_raised_and_never_lowered(process: int) -> None:
    namespace = str(Path(f"/proc/{process}/ns/pid").readlink())
    before = limits(0)
    resource.prlimit(process, resource.RLIMIT_MEMLOCK, (MIB, 8 * MIB))
    process_limits.allow(namespace, process_limits.LOCKED_MEMORY, 4 * MIB)
    assert limits(process) == (4 * MIB, 8 * MIB)
    process_limits.allow(namespace, process_limits.LOCKED_MEMORY, 2 * MIB)
    assert limits(process) == (4 * MIB, 8 * MIB)
    try:
        process_limits.allow(namespace, process_limits.LOCKED_MEMORY, 100 * MIB)
    except PermissionError:
        pytest.skip("this machine lets nobody raise hard limits (CAP_SYS_RESOURCE)")
    assert limits(process) == (100 * MIB, 100 * MIB)
    assert limits(0) == before


@pytest.mark.root
def test_open_files(process: int) -> None:
    namespace = str(Path(f"/proc/{process}/ns/pid").readlink())
    resource.prlimit(process, resource.RLIMIT_NOFILE, (1024, 4096))
    process_limits.allow(namespace, process_limits.OPEN_FILES, 2048)
    assert resource.prlimit(process, resource.RLIMIT_NOFILE) == (2048, 4096)
    assert limits(process)[0] == 8 * MIB


def test_processes_of_the_node_are_left_alone() -> None:
    before = limits(0)
    with pytest.raises(PermissionError, match="the node's own PID namespace"):
        process_limits.allow(str(Path("/proc/self/ns/pid").readlink()), process_limits.LOCKED_MEMORY, 2**62)
    assert limits(0) == before


@pytest.mark.parametrize(
    ("memory", "devices", "mebibytes"),
    [
        ({}, {}, 0),
        ({"reservedOverhead": {"memLock": "NotRequired", "addedOverhead": "1Mi"}}, {}, 0),
        ({"reservedOverhead": {"memLock": "Required", "addedOverhead": "16Mi"}}, {}, 64 + 1024 + 16),
        ({}, {"gpus": [{"name": "a", "deviceName": "b"}]}, 64 + 1024),
        ({}, {"hostDevices": [{"name": "a", "deviceName": "b"}]}, 64 + 1024),
        ({"maxGuest": "2Gi", "guest": "1Gi", "reservedOverhead": {"memLock": "Required"}}, {}, 2048 + 1024),
        ({}, {"interfaces": [{"name": "a", "sriov": {}}, {"name": "b", "bridge": {}}]}, 64 + 1024),
        ({}, {"interfaces": [{"name": "b", "bridge": {}}]}, 0),
    ],
)
def test_how_much(memory: dict[str, Any], devices: dict[str, Any], mebibytes: int) -> None:
    spec = {"architecture": "amd64", "domain": {"memory": {"guest": "64Mi", **memory}, "devices": devices}}
    assert definition.locked_memory(spec) == mebibytes * MIB
