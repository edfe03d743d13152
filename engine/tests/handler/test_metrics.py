# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.guest import Guests
from turtles.handler.metrics import of_guests, version
from turtles.handler.state import Store

from .rig import Pod
from .test_sync import NODE, Agent, Cluster, _events, make_disk, make_vmi, run

__all__ = ["_events", "run"]


class Launcher:
    """Plays a launcher: gives statistics, or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def statistics(self, name: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"cpu.time": self.answer * 10**9} if self.answer else None


def test_what_cant_be_asked_is_left_out(tmp_path: Path) -> None:
    guests = Guests(Store(tmp_path))
    source = of_guests(guests, "n", lambda key: {"metadata": {"namespace": key[0], "name": key[1]}, "spec": {}})
    assert list(source.samples()) == []
    for number, answer in enumerate((3, LauncherBusy("busy"), LibvirtError("refused"), OSError("gone"), None, 5)):
        guests.track(("ns", f"web{number}"), f"uid{number}").launcher = Launcher(answer)  # type: ignore[assignment]
    guests.track(("ns", "starting"), "uid")
    assert {sample.labels["name"]: sample.value for sample in source.samples()} == {"web0": 3.0, "web5": 5.0}


def test_instances_that_are_gone_are_left_out(tmp_path: Path) -> None:
    guests = Guests(Store(tmp_path))
    guests.track(("ns", "web"), "uid").launcher = Launcher(1)  # type: ignore[assignment]
    assert list(of_guests(guests, "n", lambda key: None).samples()) == []


def test_version() -> None:
    ((name, labels, value),) = version().samples()
    assert (name, value) == ("kubevirt_info", 1.0)
    assert labels["kubeversion"].startswith("v")


@pytest.mark.root
def test_what_libvirt_tells_of_a_guest(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    make_disk(pod)
    cluster = Cluster(make_vmi(pod))
    agent = run(cluster, pod)
    pod.start()
    cluster.wait(lambda status: status["phase"] == "Running" and status.get("volumeStatus"))
    found = list(of_guests(agent.synchroniser.guests, NODE, cluster.get).samples())
    by_name = {sample.name.removeprefix("kubevirt_vmi_"): sample for sample in found}
    assert by_name["cpu_usage_seconds_total"].value > 0
    assert by_name["memory_domain_bytes"].value == 31 * 2**20, "libvirt rounds to MiB"
    assert by_name["vcpu_seconds_total"].labels["id"] == "0"
    assert by_name["storage_iops_read_total"].labels["drive"] == "root"
    assert by_name["storage_iops_read_total"].value > 0
    assert by_name["network_transmit_bytes_total"].labels["interface"] == "default"
