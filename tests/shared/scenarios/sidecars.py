# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs beside a guest in its Pod: hook sidecars, and the log of its serial console."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import Engine, condition

ANNOTATION = "hooks.kubevirt.io/hookSidecars"
WHERE = ("kubevirt.io", "v1", "kubevirt", "kubevirts", "kubevirt")
BOARD = "<baseBoard><entry name='manufacturer'>Radical Edward</entry></baseBoard>"
HOST = ('"local-hostname": "hooked"', '"local-hostname": "by-hook"')
PROGRAMS = {
    "board.sh": f"""#!/bin/sh\nprintf %s "$4" | sed "s,</sysinfo>,{BOARD}</sysinfo>,"\n""",
    "seed.sh": f"""#!/bin/sh\nprintf %s "$4" | sed 's/{HOST[0]}/{HOST[1]}/'\n""",
    "wrong.sh": "#!/bin/sh\necho '<domain><name>another</name></domain>'\n",
}


@pytest.fixture
def hooks(cluster: Engine, namespace: str) -> Iterator[None]:
    """Hook sidecars are allowed, and the test's namespace has programs for them."""
    cluster.core.create_namespaced_config_map(namespace, {"metadata": {"name": "programs"}, "data": PROGRAMS})
    before = cluster.custom.get_namespaced_custom_object(*WHERE)["spec"].get("configuration") or {}
    known = (before.get("developerConfiguration") or {}).get("featureGates")

    def turn(on: list[str] | None) -> None:
        body = {"spec": {"configuration": {"developerConfiguration": {"featureGates": on}}}}
        cluster.custom.patch_namespaced_custom_object(*WHERE, body)

    turn([*(known or ()), "Sidecar"])
    yield
    turn(known)


def program(key: str, name: str = "onDefineDomain") -> dict[str, Any]:
    """A sidecar that runs a program of the namespace's ConfigMap."""
    return {"configMap": {"name": "programs", "key": key, "hookPath": f"/usr/bin/{name}"}}


def create(cluster: Engine, namespace: str, name: str, *sidecars: dict[str, Any]) -> None:
    """Create a virtual machine with sidecars once virt-api has read the gates."""
    vm = cluster.virtual_machine(name)
    vm["spec"]["template"]["metadata"]["annotations"] = {ANNOTATION: json.dumps(sidecars)}
    cluster.create_with_gate(namespace, vm)


def set_link(cluster: Engine, namespace: str, name: str, state: str) -> None:
    """Change the link of a virtual machine's interface, and wait until the guest has it."""
    vm = cluster.get(namespace, "virtualmachines", name) or {}
    [interface] = vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]
    domain = {"devices": {"interfaces": [{**interface, "state": state}]}}
    cluster.patch(namespace, name, {"spec": {"template": {"spec": {"domain": domain}}}})
    cluster.wait(
        namespace,
        "virtualmachineinstances",
        name,
        lambda o: o and o["status"]["interfaces"][0]["linkState"] == state,
        timeout=30,
        what=f"link {state}",
    )


def see_what_sidecars_do(
    cluster: Engine, namespace: str, kubectl: Callable[..., str], *sidecars: dict[str, Any]
) -> None:
    """Start a guest, and look at what its sidecars changed, at its log, and at its link."""
    create(cluster, namespace, "hooked", *sidecars)
    address = cluster.wait_running(namespace, "hooked", timeout=180)["status"]["interfaces"][0]["ipAddress"]
    look = "cat /sys/class/dmi/id/board_vendor; hostname; cat /sys/class/net/eth0/carrier_changes"
    board, host, changes = cluster.ssh(address, look, timeout=180).splitlines()
    assert (board, host) == ("Radical Edward", "by-hook")

    pod = cluster.launcher(namespace, "hooked").metadata.name
    assert "by-hook is up" in kubectl("logs", pod, "-c", "guest-console-log")

    for state in ("down", "up"):
        set_link(cluster, namespace, "hooked", state)
    assert int(cluster.ssh(address, "cat /sys/class/net/eth0/carrier_changes", timeout=60)) == int(changes) + 2
    assert not condition(cluster.get(namespace, "virtualmachines", "hooked") or {}, "RestartRequired")
    # Sidecars hold up nobody's end.
    cluster.delete(namespace, "hooked")
    cluster.wait_gone(namespace, "hooked", timeout=30)


@pytest.mark.usefixtures("hooks")
def test_programs_change_the_guest(cluster: Engine, namespace: str, kubectl: Callable[..., str]) -> None:
    see_what_sidecars_do(cluster, namespace, kubectl, program("board.sh"), program("seed.sh", "preCloudInitIso"))


@pytest.mark.usefixtures("hooks")
def test_a_sidecar_that_is_wrong_is_named(cluster: Engine, namespace: str) -> None:
    create(cluster, namespace, "wrong", program("wrong.sh"))
    cluster.wait_event(namespace, "wrong", ["SyncFailed", "hook sidecars changed the domain's name"], timeout=90)
    vmi = cluster.get(namespace, "virtualmachineinstances", "wrong") or {}
    assert condition(vmi, "Synchronized")["status"] == "False"
    vm = cluster.virtual_machine("unreadable")
    vm["spec"]["template"]["metadata"]["annotations"] = {ANNOTATION: "{"}
    cluster.create(namespace, vm)
    cluster.wait_event(namespace, "unreadable", ["FailedCreate", f"{ANNOTATION} is not JSON"], timeout=30)
