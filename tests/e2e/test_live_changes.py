# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of a template that reach a running guest, and those that wait for its restart."""

from __future__ import annotations

from typing import Any

from cluster import Cluster

from engine import condition

#: Until the guest has a second processor, which nobody in it switches on. Without KVM, Linux 6.12 leaves no room for
#: processors that come later, and says so; that a guest uses them is tested with the kernel of Debian 12.
TAKEN = """
for try in $(seq 100); do
    for cpu in /sys/devices/system/cpu/cpu*/online; do [ ! -e $cpu ] || echo 1 > $cpu; done
    [ $(grep -c ^processor /proc/cpuinfo) = 2 ] && echo taken && break
    dmesg | grep -q 'Unable to map lapic to logical cpu' && echo taken && break
    sleep 0.1
done
"""


def change(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> None:
    cluster.patch(namespace, "grows", {"spec": {"template": {"spec": spec}}})


def test_a_running_guest_gets_processors(cluster: Cluster, namespace: str) -> None:
    vm = cluster.virtual_machine("grows")
    vm["spec"]["template"]["spec"]["domain"]["cpu"] = {"sockets": 1}
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "grows", timeout=120)
    assert vmi["spec"]["domain"]["cpu"]["maxSockets"] == 4
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    assert cluster.ssh(address, "grep -c ^processor /proc/cpuinfo", timeout=180).strip() == "1"

    change(cluster, namespace, {"domain": {"cpu": {"sockets": 2}}, "nodeSelector": {"kubernetes.io/os": "linux"}})
    vmi_now = cluster.wait(
        namespace,
        "virtualmachineinstances",
        "grows",
        lambda o: o and o["status"]["currentCPUTopology"]["sockets"] == 2,
        timeout=60,
        what="second socket",
    )
    assert vmi_now is not None
    assert vmi_now["metadata"]["uid"] == vmi["metadata"]["uid"]
    assert vmi_now["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert cluster.ssh(address, TAKEN).strip() == "taken"
    assert not condition(cluster.get(namespace, "virtualmachines", "grows") or {}, "RestartRequired")

    change(cluster, namespace, {"domain": {"cpu": {"sockets": 1}}})
    vm_now = cluster.wait(
        namespace,
        "virtualmachines",
        "grows",
        lambda o: o and condition(o, "RestartRequired"),
        timeout=60,
        what="condition RestartRequired",
    )
    assert condition(vm_now or {}, "RestartRequired")["message"] == "Reduction of CPU socket count requires a restart"
    cluster.subresource(namespace, "grows", "restart")
    again = cluster.wait_running(namespace, "grows", timeout=120, not_uid=vmi["metadata"]["uid"])
    assert again["status"]["currentCPUTopology"]["sockets"] == 1
    assert not condition(cluster.get(namespace, "virtualmachines", "grows") or {}, "RestartRequired")
