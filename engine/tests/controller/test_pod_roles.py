# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a VMI's Pods is which."""

from turtles.controller.pod.launcher import pod_name
from turtles.controller.pod.roles import by_role

VMI = {"metadata": {"name": "vm", "namespace": "ns", "uid": "1"}, "spec": {}}


def a_pod(name: str, **labels: str) -> dict:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "labels": {"kubevirt.io": "virt-launcher", **labels}}}


def on(node: str, **active: str) -> dict:
    return {**VMI, "status": {"nodeName": node, "activePods": active}}


STARTED = a_pod(pod_name(VMI))
TARGET = a_pod("virt-launcher-vm-target", **{"kubevirt.io/migrationJobUID": "m"})


def test_no_pods() -> None:
    assert by_role(VMI, []).launcher is None


def test_a_guest_that_starts() -> None:
    assert by_role(VMI, [STARTED]).launcher is STARTED


def test_a_target_is_not_taken_for_the_launcher() -> None:
    pods = by_role(VMI, [TARGET])
    assert (pods.launcher, pods.targets) == (None, (TARGET,))


def test_a_migration_under_way() -> None:
    pods = by_role(
        on("n1", **{STARTED["metadata"]["uid"]: "n1", "uid-virt-launcher-vm-target": "n2"}), [TARGET, STARTED]
    )
    assert (pods.launcher, pods.targets) == (STARTED, (TARGET,))


def test_after_a_migration_the_target_has_the_guest() -> None:
    pods = by_role(
        on("n2", **{STARTED["metadata"]["uid"]: "n1", "uid-virt-launcher-vm-target": "n2"}), [STARTED, TARGET]
    )
    assert (pods.launcher, pods.targets) == (TARGET, ())


def test_a_launcher_that_an_earlier_version_named() -> None:
    other = a_pod("virt-launcher-vm-abcde")
    assert by_role(VMI, [other]).launcher is other
    assert by_role(VMI, [other, STARTED]).launcher is STARTED
