# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done to guests that run, and what is asked of them: states of vm, guest_info, screenshot."""

from __future__ import annotations

import hashlib
import stat
import struct
import threading

import pytest
from api import Refused

WEB = {"name": "web", "namespace": "default", "wait_timeout": 5}
NEW = {**WEB, "image": "example.com/web:1", "memory": "64Mi"}
GUEST = {"name": "web", "namespace": "default"}


def is_paused(api):
    vmi = api.get("virtualmachineinstances", "default", "web")
    return any(entry["type"] == "Paused" for entry in vmi["status"].get("conditions", []))


# -- vm


def test_a_guest_is_paused_and_unpaused_once(api, run):
    run("vm", state="running", **NEW)
    for state, paused in (("paused", True), ("unpaused", False)):
        assert run("vm", check=True, state=state, **WEB)["changed"]
        assert is_paused(api) is not paused
        done = run("vm", state=state, **WEB)
        assert done["changed"]
        assert is_paused(api) is paused
        assert done["diff"]["before"]["guest"] == ("running" if paused else "paused")
        assert done["diff"]["after"]["guest"] == ("paused" if paused else "running")
        api.requests.clear()
        assert not run("vm", check=True, state=state, **WEB)["changed"]
        assert not run("vm", state=state, **WEB)["changed"]
        assert api.written() == []


@pytest.mark.parametrize(("state", "action"), [("soft_rebooted", "softreboot"), ("reset", "reset")])
def test_a_guest_is_rebooted_each_time_and_stays_the_same_instance(api, run, state, action):
    uid = run("vm", state="running", **NEW)["vmi"]["metadata"]["uid"]
    assert run("vm", check=True, state=state, **WEB)["changed"]
    assert api.asked == []
    for _time in range(2):
        done = run("vm", state=state, **WEB)
        assert done["changed"]
        assert done["vmi"]["metadata"]["uid"] == uid
    assert api.asked == [action, action]


@pytest.mark.parametrize("state", ["unpaused", "soft_rebooted", "reset"])
def test_what_does_not_run_is_started_instead(api, run, state):
    run("vm", state="stopped", **NEW)
    assert run("vm", check=True, state=state, **WEB)["changed"]
    done = run("vm", state=state, **WEB)
    assert done["changed"]
    assert done["result"]["status"]["printableStatus"] == "Running"
    assert api.asked == []


@pytest.mark.parametrize("strategy", ["Halted", "Manual"])
def test_what_does_not_run_is_started_paused(api, run, strategy):
    run("vm", run_strategy=strategy, **NEW)
    done = run("vm", state="paused", **WEB)
    assert done["changed"]
    assert is_paused(api)
    assert api.asked == [], "it has never run unpaused"
    assert not run("vm", state="paused", **WEB)["changed"]


def test_a_new_machine_that_starts_by_itself_is_paused_once_it_runs(api, run):
    api.delay = 0.2
    done = run("vm", state="paused", **NEW)
    assert (done["changed"], api.asked) == (True, ["pause"])
    assert is_paused(api)


def test_the_declaration_counts_as_in_other_states(api, run):
    run("vm", state="running", **NEW)
    done = run("vm", state="paused", labels={"app": "shop"}, **WEB)
    assert done["result"]["metadata"]["labels"] == {"app": "shop"}
    assert is_paused(api)


def test_who_was_quicker(api, run):
    run("vm", state="running", **NEW)
    api.guests["pause"] = Refused(409, "Conflict", "VMI is already paused")
    timer = threading.Timer(0.3, api.pause, ("default", "web", True))
    timer.start()
    assert run("vm", state="paused", **WEB)["changed"]
    timer.join()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("VMI is paused", "softreboot refused: VMI is paused. Unpause it first (state=unpaused)."),
        (
            "VMI neither have the agent connected nor the ACPI feature enabled",
            "enabled. Reset it instead (state=reset), or restart it (state=restarted).",
        ),
    ],
)
def test_a_refused_reboot_comes_with_a_remedy(api, run, said, words):
    run("vm", state="running", **NEW)
    api.guests["softreboot"] = Refused(409, "Conflict", said)
    failed = run("vm", state="soft_rebooted", **WEB)
    assert failed["failed"]
    assert not failed["changed"]
    assert words in failed.msg


def test_running_says_how_to_go_on_with_a_paused_guest(api, run):
    run("vm", state="paused", **NEW)
    failed = run("vm", state="running", **WEB)
    assert "it is paused; unpause it (state=unpaused)" in failed.msg


@pytest.mark.parametrize("state", ["paused", "unpaused", "soft_rebooted", "reset"])
def test_a_machine_that_does_not_exist(api, run, state):
    for check in (True, False):
        failed = run("vm", check=check, state=state, **WEB)
        assert "VirtualMachine default/web doesn't exist, so it can't be %s" % state.replace("_", " ") in failed.msg
    assert api.written() == []


# -- guest_info

INFO = {
    "guestAgentVersion": "9.2.0",
    "hostname": "web",
    "os": {"id": "debian"},
    "timezone": "UTC, 0",
    "fsFreezeStatus": "thawed",
}
CONNECTED = [{"type": "AgentConnected", "status": "True"}]


def test_what_an_agent_knows(api, run):
    api.instance("default", "web", conditions=CONNECTED)
    api.guests = {
        "guestosinfo": INFO,
        "userlist": {"metadata": {}, "items": [{"userName": "root"}]},
        "filesystemlist": {"metadata": {}, "items": [{"mountPoint": "/"}]},
    }
    for check in (True, False):
        found = run("guest_info", check=check, **GUEST)
        del found["invocation"]
        assert found == {
            "changed": False,
            "agent_connected": True,
            "agent_version": "9.2.0",
            "hostname": "web",
            "os": {"id": "debian"},
            "timezone": "UTC, 0",
            "users": [{"userName": "root"}],
            "filesystems": [{"mountPoint": "/"}],
            "frozen": False,
            "interfaces": [{"name": "default", "ipAddress": "10.244.0.7"}],
        }


def test_a_frozen_guest_says_little(api, run):
    api.instance("default", "web", conditions=CONNECTED)
    api.guests = {"guestosinfo": {"guestAgentVersion": "9.2.0", "fsFreezeStatus": "frozen"}}
    found = run("guest_info", **GUEST)
    assert (found["frozen"], found["users"], api.asked) == (True, [], ["guestosinfo"])


def test_a_guest_without_an_agent(api, run):
    api.instance("default", "web", guestOSInfo={"id": "alpine"})
    found = run("guest_info", **GUEST)
    assert (found["agent_connected"], found["os"], found["users"]) == (False, {"id": "alpine"}, [])
    assert found["interfaces"][0]["ipAddress"] == "10.244.0.7"
    assert api.asked == []


def test_a_query_selects_of_what_an_agent_knows(api, run):
    api.instance("default", "web")
    found = run("guest_info", query="[hostname, interfaces[].ipAddress]", **GUEST)
    assert found["query_result"] == ["", ["10.244.0.7"]]
    failed = run("guest_info", query="length(frozen)", **GUEST)
    assert "query: 'length(frozen)' fails for VirtualMachineInstance default/web" in failed.msg
    assert "isn't a JMESPath expression" in run("guest_info", query="[", **GUEST).msg


def test_an_agent_that_comes_is_waited_for(api, run):
    api.instance("default", "web")
    api.guests = {"guestosinfo": INFO, "userlist": {"items": []}, "filesystemlist": {"items": []}}
    timer = threading.Timer(0.3, api.instance, ("default", "web"), {"conditions": CONNECTED})
    timer.start()
    assert run("guest_info", wait=True, wait_timeout=60, **GUEST)["hostname"] == "web"
    timer.join()


def test_an_agent_that_does_not_come(api, run):
    api.instance("default", "web")
    failed = run("guest_info", wait=True, wait_timeout=1, **GUEST)
    assert "isn't connected to its guest agent within 1 seconds (wait_timeout)" in failed.msg
    assert "package qemu-guest-agent" in failed.msg


@pytest.mark.parametrize("module", ["guest_info", "screenshot"])
def test_a_guest_that_does_not_exist(run, module, tmp_path):
    options = {"dest": str(tmp_path / "web.png")} if module == "screenshot" else {}
    failed = run(module, **GUEST, **options)
    assert "VirtualMachineInstance default/web doesn't exist: no such guest is running. Start it" in failed.msg


def test_a_refusal_says_what_was_asked(api, run):
    api.instance("default", "web", conditions=CONNECTED)
    api.guests = {"guestosinfo": Refused(500, "InternalError", "the guest agent is busy")}
    assert "VirtualMachineInstance default/web: guestosinfo: the guest agent is busy" in run("guest_info", **GUEST).msg


# -- screenshot


def png(width=2, height=1, more=b""):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"rest" + more


@pytest.fixture
def screen(api):
    """A guest with a screen."""
    api.instance("default", "web")
    api.guests = {"vnc/screenshot": png()}


@pytest.mark.usefixtures("screen")
def test_a_picture_is_written_if_it_differs(api, run, tmp_path):
    file = tmp_path / "web.png"
    options = {**GUEST, "dest": str(file)}
    assert run("screenshot", check=True, **options)["changed"]
    assert not file.exists()
    done = run("screenshot", **options)
    assert (done["changed"], done["width"], done["height"], done["size"]) == (True, 2, 1, len(png()))
    assert done["checksum"] == hashlib.sha256(png()).hexdigest()
    assert file.read_bytes() == png()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not run("screenshot", **options)["changed"]
    api.guests["vnc/screenshot"] = png(more=b"x")
    file.chmod(0o644)
    assert run("screenshot", check=True, **options)["changed"]
    assert run("screenshot", **options)["changed"]
    assert file.read_bytes() == png(more=b"x")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["web.png"]


@pytest.mark.usefixtures("screen")
def test_the_pointer_is_moved_only_if_asked_and_never_in_check_mode(api, run, tmp_path):
    options = {**GUEST, "dest": str(tmp_path / "web.png")}
    for check, move, wanted in ((False, False, {}), (True, True, {}), (False, True, {"moveCursor": "true"})):
        api.requests.clear()
        run("screenshot", check=check, move_cursor=move, **options)
        assert [query for _method, path, query in api.requests if path.endswith("screenshot")] == [wanted]


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize(("dest", "words"), [("", "it is a folder"), ("none/web.png", "its folder doesn't exist")])
def test_a_file_that_cannot_be_written_costs_no_picture(api, run, tmp_path, dest, words):
    failed = run("screenshot", dest=str(tmp_path / dest), **GUEST)
    assert words in failed.msg
    assert api.asked == []


def test_a_guest_without_a_screen(api, run, tmp_path):
    api.instance("default", "web")
    api.guests = {"vnc/screenshot": Refused(400, "BadRequest", "No graphics devices are present.")}
    failed = run("screenshot", dest=str(tmp_path / "web.png"), **GUEST)
    assert "default/web: can't take a screenshot: No graphics devices are present." in failed.msg


def test_what_is_no_picture(api, run, tmp_path):
    api.instance("default", "web")
    api.guests = {"vnc/screenshot": b"<html>a proxy's login page</html>"}
    assert "isn't a PNG image" in run("screenshot", dest=str(tmp_path / "web.png"), **GUEST).msg
    assert list(tmp_path.iterdir()) == []
