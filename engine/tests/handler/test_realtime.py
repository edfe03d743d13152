# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual processors that are scheduled in real time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turtles.domain import definition, node_labels
from turtles.handler import realtime

#: Threads as QEMU has them.
QEMU = """
import ctypes, sys, threading
def run(name):
    ctypes.CDLL(None).prctl(15, name.encode())
    ready.wait()
    stop.wait()
ready, stop = threading.Barrier(4), threading.Event()
for name in ("CPU 0/TCG", "CPU 1/TCG", "IO mon_iothread"):
    threading.Thread(target=run, args=(name,), daemon=True).start()
ready.wait()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def qemu() -> Iterator[int]:
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", QEMU]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        yield int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        process.stdin.close()


def policies(pid: int) -> dict[str, int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {(each / "comm").read_text().strip(): os.sched_getscheduler(int(each.name)) for each in threads}


@pytest.mark.root
def test_threads_are_scheduled_in_real_time(qemu: int) -> None:
    namespace = str(Path(f"/proc/{qemu}/ns/pid").readlink())
    try:
        realtime.schedule(namespace, {1})
    except PermissionError:
        pytest.skip("this machine has no realtime scheduling")
    found = policies(qemu)
    assert [found[name] for name in ("CPU 0/TCG", "CPU 1/TCG", "IO mon_iothread")] == [
        os.SCHED_OTHER,
        os.SCHED_FIFO,
        os.SCHED_OTHER,
    ]
    with pytest.raises(ProcessLookupError, match=r"\[7\]"):
        realtime.schedule(namespace, {7})


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ({"cores": 4}, set()),
        ({"cores": 4, "realtime": {}}, {0, 1, 2, 3}),
        ({"cores": 4, "realtime": {"mask": "1-2"}}, {1, 2}),
        ({"cores": 4, "realtime": {"mask": "0-3,^0"}}, {1, 2, 3}),
        ({"cores": 4, "realtime": {"mask": "^3"}}, {0, 1, 2}),
        ({"cores": 2, "realtime": {"mask": "0,9"}}, {0}),
    ],
)
def test_which(cpu: dict[str, object], expected: set[int]) -> None:
    assert definition.realtime_vcpus({"domain": {"cpu": cpu}}) == expected


@pytest.mark.parametrize(("runtime", "label"), [("-1\n", "true"), ("950000\n", None), ("", None)])
def test_nodes_that_do(runtime: str, label: str | None) -> None:
    assert node_labels.realtime(runtime) == {"kubevirt.io/realtime": label}
