# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Volumes that are attached to machines and detached."""

from __future__ import annotations

import pytest
from api import Refused

WEB = {"name": "web", "namespace": "default", "wait_timeout": 5, "image": "example.com/web:1", "memory": "64Mi"}
DATA = {"vm": "web", "namespace": "default", "claim": "data", "wait_timeout": 5}


def volumes(api, plural="virtualmachines"):
    obj = api.get(plural, "default", "web")
    spec = obj["spec"]["template"]["spec"] if plural == "virtualmachines" else obj["spec"]
    return {volume["name"]: volume for volume in spec.get("volumes") or []}


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_claim_is_attached_once_and_detached_once(api, run, state):
    run("vm", state=state, **WEB)
    planned = run("volume_attachment", check=True, serial="ARCHIVE", **DATA)
    assert planned["changed"]
    assert "data" not in volumes(api)
    done = run("volume_attachment", serial="ARCHIVE", **DATA)
    assert (done["changed"], done["target"]) == (True, "sda" if state == "running" else "")
    assert done["diff"]["before"]["volume"] is None
    assert done["diff"]["after"]["volume"] == volumes(api)["data"]
    assert volumes(api)["data"]["persistentVolumeClaim"] == {"claimName": "data", "hotpluggable": True}
    disk = api.get("virtualmachines", "default", "web")["spec"]["template"]["spec"]["domain"]["devices"]["disks"][-1]
    assert disk == {"name": "data", "disk": {"bus": "scsi"}, "serial": "ARCHIVE"}
    api.requests.clear()
    again = run("volume_attachment", serial="ARCHIVE", **DATA)
    assert (again["changed"], again["target"]) == (False, done["target"])
    assert api.written() == []

    assert run("volume_attachment", check=True, state="absent", **DATA)["changed"]
    assert "data" in volumes(api)
    gone = run("volume_attachment", state="absent", **DATA)
    assert (gone["changed"], gone["volume"]) == (True, {})
    assert "data" not in volumes(api)
    assert not run("volume_attachment", state="absent", **DATA)["changed"]


def test_an_instance_alone(api, run):
    run("vm", state="running", **WEB)
    data = {**DATA, "data_volume": "disk", "name": "data", "bus": "virtio", "persistent": False}
    del data["claim"]
    assert run("volume_attachment", **data)["changed"]
    assert volumes(api, "virtualmachineinstances")["data"]["dataVolume"] == {"name": "disk", "hotpluggable": True}
    assert "data" not in volumes(api)
    assert not run("volume_attachment", **data)["changed"]
    assert run("volume_attachment", state="absent", **data)["changed"]
    assert volumes(api, "virtualmachineinstances") == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"claim": "other", "name": "data"}, "its claim is data, not other. Detach it first (state=absent)"),
        ({"bus": "virtio"}, "its bus is scsi, not virtio"),
        ({"serial": "B"}, "its serial is none, not B"),
    ],
)
def test_what_is_attached_cannot_be_changed(api, run, options, words):
    run("vm", state="running", **WEB)
    run("volume_attachment", **DATA)
    failed = run("volume_attachment", **{**DATA, **options})
    assert failed["failed"]
    assert words in failed.msg


def test_no_such_machine(api, run):
    failed = run("volume_attachment", **DATA)
    assert "VirtualMachine default/web doesn't exist. Check vm and namespace; for an instance" in failed.msg
    failed = run("volume_attachment", persistent=False, **DATA)
    assert "No such guest is running" in failed.msg


def test_a_refusal(api, run):
    run("vm", state="running", **WEB)
    api.guests["addvolume"] = Refused(400, "BadRequest", "VMI default/web is owned by a VM")
    failed = run("volume_attachment", persistent=False, **DATA)
    assert "volume data: VMI default/web is owned by a VM" in failed.msg
    assert not failed["changed"]


def test_a_volume_that_does_not_come(api, run):
    run("vm", state="running", **WEB)
    api.volume = {"phase": "Pending", "reason": "VolumeModeNotSupported", "message": "PVC data is a block device"}
    failed = run("volume_attachment", **DATA)
    assert failed["changed"]
    assert "isn't using volume data: VolumeModeNotSupported. volume data: PVC data is a block device." in failed.msg
    assert not run("volume_attachment", wait=False, **DATA).get("failed")


def test_names(run):
    assert "claim" in run("volume_attachment", vm="web", claim="No_Name")["msg"]
    assert "name" in run("volume_attachment", vm="web", claim="data", name="No_Name")["msg"]
