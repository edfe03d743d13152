# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine where its users have it: on Debian with systemd as process 1 and control groups of version 2.

The tests go through a machine's life in their order: installed, used, hurt, rebooted, booted with other control groups,
cleaned. Each can be run alone, too. Only one asks a guest itself: where the machine is emulated, a guest is emulated by
what is emulated, and takes a hundred times as long to boot. What the others want to know shows in its process.
"""

from __future__ import annotations

import re
import resource
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from host import INSTANCE, UNITS, Host, Roles
from kubernetes.utils import parse_quantity
from kubernetes.watch import Watch
from machine import Machine

#: What a kernel's command line needs for control groups of version 1, with an empty hierarchy of version 2 beside them.
#: The last is what systemd 256 and later want to be told besides (its NEWS).
HYBRID = (
    "systemd.unified_cgroup_hierarchy=0",
    "systemd.legacy_systemd_cgroup_controller=0",
    "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
)
NAMESPACE = "host"


@pytest.fixture(scope="module")
def guests(cluster: Host) -> Host:
    """Two virtual machines: `always` with limits, which runs, and `manual`, which doesn't."""
    remove_namespace(cluster)
    cluster.core.create_namespace({"metadata": {"name": NAMESPACE}})
    always = cluster.virtual_machine("always")
    always["spec"]["template"]["spec"]["domain"]["resources"] = {"limits": {"cpu": "1", "memory": "160Mi"}}
    cluster.create(NAMESPACE, always)
    cluster.wait_running(NAMESPACE, "always")
    cluster.create(NAMESPACE, cluster.virtual_machine("manual", run_strategy="Manual", grace_period=0))
    return cluster


def remove_namespace(host: Host) -> None:
    """Remove what an earlier run left on a machine that was kept."""
    selector = f"metadata.name={NAMESPACE}"
    if not host.core.list_namespace(field_selector=selector).items:
        return
    host.core.delete_namespace(NAMESPACE)
    seconds = host.seconds(60)
    for event in Watch().stream(host.core.list_namespace, field_selector=selector, timeout_seconds=seconds):
        if event["type"] == "DELETED":
            return
    raise AssertionError(f"the namespace {NAMESPACE} of an earlier run isn't gone after {seconds} s")


def start_manual(host: Host) -> str:
    """Start `manual` as its user does; the uid of its instance."""
    host.subresource(NAMESPACE, "manual", "start")
    return str(host.wait_running(NAMESPACE, "manual")["metadata"]["uid"])


def qemu(host: Host) -> str:
    """The process of the guest of `always`: its number, and when it was started (proc(5))."""
    (pid,) = host.pod_processes(NAMESPACE, "always", "^/usr/bin/qemu-system")
    started = host.machine.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    return f"{pid} {started}"


def limits(pod: Any, name: str) -> Decimal:
    """What a Pod's containers may use of a resource in all."""
    return sum((parse_quantity(container.resources.limits[name]) for container in pod.spec.containers), Decimal())


def memory_limit(pod: Any) -> str:
    """What the kernel makes of a Pod's memory limit: whole pages."""
    return str(int(limits(pod, "memory")) // resource.getpagesize() * resource.getpagesize())


def check_limits(host: Host, folders: dict[str, Path], files: dict[str, str]) -> None:
    """Check that a Pod's processes are in the groups in the folders, and what is in the files there."""
    pod = host.launcher(NAMESPACE, "always")
    pid = qemu(host).split()[0]
    for controller, folder in folders.items():
        group = folder / INSTANCE / pod.metadata.uid
        assert pid in host.machine.read(group / "cgroup.procs").split(), controller
    for name, value in files.items():
        group = folders[name.partition(".")[0]] / INSTANCE / pod.metadata.uid
        assert host.machine.read(group / name) == value, name


def check_services(machine: Machine, host: Host) -> None:
    """Check that every component runs as a unit that the next boot starts again, and that nothing else failed."""
    for name in UNITS:
        unit = host.unit(name)
        assert (unit["ActiveState"], unit["SubState"], unit["UnitFileState"]) == ("active", "running", "enabled"), name
    assert machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""


def test_the_second_run_of_the_roles_changes_nothing(cluster: Host, roles: Roles) -> None:
    counts = roles.run("deploy")
    assert (counts["changed"], counts["failed"]) == (0, 0)


def test_components_are_units_of_systemd(cluster: Host, machine: Machine) -> None:
    assert machine.read("/proc/1/comm") == "systemd"
    assert machine.run("stat", "-f", "-c", "%T", "/sys/fs/cgroup") == "cgroup2fs"
    check_services(machine, cluster)


def test_the_node_is_labelled_with_what_its_libvirt_knows(cluster: Host) -> None:
    seconds = cluster.seconds(60)
    for event in Watch().stream(cluster.core.list_node, timeout_seconds=seconds):
        # q35 alone is on every node.
        if any(label.startswith("machine-type.node.kubevirt.io/pc-q35-") for label in event["object"].metadata.labels):
            return
    raise AssertionError(f"the node has no label for a version of a machine type within {seconds} s")


def test_a_declared_vm_answers_to_ssh(guests: Host) -> None:
    vmi = guests.wait_running(NAMESPACE, "always")
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    assert guests.ssh(address, "hostname", timeout=180) == "always"


def test_limits_are_in_the_unified_hierarchy(guests: Host) -> None:
    pod = guests.launcher(NAMESPACE, "always")
    root = Path("/sys/fs/cgroup")
    check_limits(
        guests,
        {"cpu": root, "memory": root, "pids": root},
        {
            "cpu.max": f"{int(limits(pod, 'cpu') * 100_000)} 100000",
            "memory.max": memory_limit(pod),
            "pids.max": "4096",
        },
    )


def test_a_killed_component_comes_back_and_guests_notice_nothing(guests: Host, machine: Machine) -> None:
    instance, process = guests.wait_running(NAMESPACE, "always"), qemu(guests)
    before = {name: guests.unit(name) for name in UNITS}
    for name in UNITS:
        # All of the unit's processes: those of Pods must not be among them.
        machine.run("systemctl", "kill", "--signal=KILL", f"{INSTANCE}-{name}.service")
    deadline = time.monotonic() + guests.seconds(20)
    for name in UNITS:
        while (unit := guests.unit(name))["ActiveState"] != "active" or unit["MainPID"] == before[name]["MainPID"]:
            assert time.monotonic() < deadline, f"{name} isn't restarted: {unit}"
        assert int(unit["NRestarts"]) > int(before[name]["NRestarts"])
    guests.connect()
    # The new ones work: they notice what changes.
    start_manual(guests)
    guests.subresource(NAMESPACE, "manual", "stop")
    guests.wait_stopped(NAMESPACE, "manual")
    assert guests.wait_running(NAMESPACE, "always")["metadata"]["uid"] == instance["metadata"]["uid"]
    assert qemu(guests) == process


def check_reboot(host: Host, machine: Machine, before: str) -> None:
    """Check that what should run runs again, after a boot; `before` is the uid that the instance of `always` had."""
    host.connect()
    check_services(machine, host)
    host.wait_running(NAMESPACE, "always", not_uid=before)
    assert qemu(host)
    # Nobody asked for it again.
    host.wait_status(NAMESPACE, "manual", "Stopped")


def test_a_reboot(guests: Host, machine: Machine) -> None:
    before, manual = guests.wait_running(NAMESPACE, "always")["metadata"]["uid"], start_manual(guests)
    guests.disconnect()
    machine.reboot()
    # Nothing of the engine's keeps systemd waiting.
    console = machine.console.read_text(errors="replace")
    assert not re.search(rf"Job {INSTANCE}-pods-\S+/stop running", console)
    check_reboot(guests, machine, before)
    assert start_manual(guests) != manual
    guests.subresource(NAMESPACE, "manual", "stop")
    guests.wait_stopped(NAMESPACE, "manual")


def test_a_hybrid_hierarchy(guests: Host, machine: Machine) -> None:
    before = guests.wait_running(NAMESPACE, "always")["metadata"]["uid"]
    start_manual(guests)
    guests.disconnect()
    machine.power_off()
    machine.start(*HYBRID)
    check_reboot(guests, machine, before)
    pod = guests.launcher(NAMESPACE, "always")
    root = Path("/sys/fs/cgroup")
    unified = root / "unified"
    assert machine.run("stat", "-f", "-c", "%T", str(unified)) == "cgroup2fs"
    # Debian 13's kernel has the memory controller in version 2 alone.
    has_memory = "memory" in machine.read(unified / "cgroup.controllers").split()
    check_limits(
        guests,
        {"cpu": root / "cpu", "memory": unified if has_memory else root / "memory", "pids": root / "pids"},
        {
            "cpu.cfs_quota_us": str(int(limits(pod, "cpu") * 100_000)),
            "cpu.cfs_period_us": "100000",
            "memory.max" if has_memory else "memory.limit_in_bytes": memory_limit(pod),
            "pids.max": "4096",
        },
    )


def leftovers(machine: Machine) -> list[str]:
    """What the engine has on the machine: units, folders, processes, control groups, mounts, links, routes, rules."""
    everything = machine.shell(
        """
        set -e
        systemctl list-units --all --plain --no-legend
        find /etc/systemd/system /etc /opt /run /var/lib /var/log -maxdepth 1
        for process in /proc/[0-9]*; do
            { echo "process $(tr '\\0' ' ' <$process/cmdline)"; } 2>/dev/null || true  # it may have ended
        done
        find /sys/fs/cgroup -type d 2>/dev/null || true
        cat /proc/1/mountinfo
        ip -brief link
        ip route show table all
        nft list ruleset
        iptables-save
        """
    )
    # Searched here: over there, what searches has the words on its own command line. The libvirtd that Debian 13 starts
    # with its package has options.
    words = rf"{INSTANCE}|^process \S*/(qemu-system|libvirtd $)|\b10\.244\."
    return [line for line in everything.splitlines() if re.search(words, line)]


def test_teardown_leaves_nothing(guests: Host, machine: Machine, roles: Roles) -> None:
    before = leftovers(machine)
    for kind in (f"{INSTANCE}-virt-api.service", f"/var/lib/{INSTANCE}", "qemu-system", "10.244."):
        assert any(kind in line for line in before), kind  # or it isn't looked for where it is
    guests.disconnect()
    roles.run("teardown")
    assert leftovers(machine) == []
    assert roles.run("teardown")["changed"] == 0
