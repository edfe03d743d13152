# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must hold whenever something dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from engine import Engine


def survive(cluster: Engine, namespace: str, kill: Callable[[], object]) -> None:
    """Something dies while a virtual machine runs and another starts: neither notices, and both are still governed."""
    cluster.create(namespace, cluster.virtual_machine("running"))
    address = cluster.wait_running(namespace, "running")["status"]["interfaces"][0]["ipAddress"]
    boot = cluster.boot_id(address)

    cluster.create(namespace, cluster.virtual_machine("starting"))
    kill()

    vmi = cluster.wait_running(namespace, "starting", timeout=90)
    assert cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "hostname") == "starting"
    assert cluster.boot_id(address) == boot
    # what died must notice what happens now
    cluster.delete(namespace, "running")
    cluster.wait_gone(namespace, "running", timeout=90)


def test_a_dead_libvirtd_does_not_take_the_guest_with_it(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    address = cluster.wait_running(namespace, "web")["status"]["interfaces"][0]["ipAddress"]
    boot = cluster.boot_id(address)
    for pid in cluster.pod_processes(namespace, "web", "libvirtd"):
        os.kill(pid, signal.SIGKILL)
    assert cluster.boot_id(address) == boot
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")


def test_a_dead_qemu_under_always_is_replaced(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    first = cluster.wait_running(namespace, "web")
    (pid,) = cluster.pod_processes(namespace, "web", "qemu-system")
    os.kill(pid, signal.SIGKILL)
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"], timeout=90)
    assert cluster.ssh(second["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"


def test_a_dead_launcher_under_always_is_replaced(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    first = cluster.wait_running(namespace, "web")
    qemu = cluster.pod_processes(namespace, "web", "qemu-system")
    (pid,) = cluster.pod_processes(namespace, "web", "--ephemeral-disk-dir")
    os.kill(pid, signal.SIGKILL)
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"], timeout=90)
    assert cluster.ssh(second["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"
    assert not any(Path(f"/proc/{pid}").exists() for pid in qemu)
