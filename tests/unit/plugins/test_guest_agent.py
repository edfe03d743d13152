# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands in guests by their guest agents: the connection plugin, and waiting for cloud-init."""

from __future__ import annotations

import json
import os
import threading

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible_collections.turtles.kubevirt.plugins.connection.guest_agent import Connection

AGENT = [{"type": "Ready", "status": "True"}, {"type": "AgentConnected", "status": "True"}]
WEB = {"name": "web", "namespace": "default", "state": "running", "wait_for": "cloud_init", "wait_timeout": 5}
FINISHED = (
    "[   40.1] cloud-init[512]: Cloud-init v. 22.4.2 finished at Mon, 01 Jan 2026 00:00:00 +0000. Up 40.0 seconds"
)
FAILED = """\
[   39.1] cloud-init[512]: 2026-01-01 00:00:00 - util.py[WARNING]: Failed to install packages: ['vim']\r
[   39.2] cloud-init[512]: 2026-01-01 00:00:00 - x.py[WARNING]: Running module packages (<module 'x'>) failed\r
"""
HARMLESS = FAILED.splitlines()[0].replace("Failed", "Deprecated")


@pytest.fixture
def guest(api):
    """A running guest with an agent, and its launcher's Pod."""
    vmi = api.instance("default", "web", conditions=AGENT)
    api.launcher("default", "web", vmi["metadata"]["uid"])
    return api.guest_agent


@pytest.fixture
def connection(server):
    """A connection to the guest."""
    made = []

    def connect(connect_timeout=0):
        found = Connection(PlayContext())
        options = {"vm": "web", "namespace": "default", "api_host": server.url, "api_key": server.api.token}
        options.update(agent_timeout=5, connect_timeout=connect_timeout)
        found.get_option = options.get
        made.append(found)
        return found

    yield connect
    for found in made:
        found.close()


def test_commands(guest, connection):
    said = connection().exec_command('echo it\\\'s; echo "$HOME" >&2; cat; exit 3', in_data=b"\x00\xff'\"\n")
    assert said == (3, b"it's\n\x00\xff'\"\n", os.environ["HOME"].encode() + b"\n")


@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_files_and_long_input(guest, connection, tmp_path, size):
    data = os.urandom(size)
    here, there, back = tmp_path / "here", tmp_path / "a 'there'", tmp_path / "back"
    here.write_bytes(data)
    found = connection()
    found.put_file(str(here), str(there))
    assert there.read_bytes() == data
    found.fetch_file(str(there), str(back))
    assert back.read_bytes() == data
    assert found.exec_command("cat", in_data=data) == (0, data, b"")
    with pytest.raises(AnsibleError, match="nonexistent"):
        found.fetch_file("/nonexistent/file", str(back))
    with pytest.raises(AnsibleError, match="here2 doesn't exist"):
        found.put_file(str(tmp_path / "here2"), "/tmp/x")


def test_an_agent_that_connects_later(guest, connection, api):
    api.instance("default", "web")
    timer = threading.Timer(0.3, api.instance, ("default", "web"), {"conditions": AGENT})
    timer.start()
    assert connection(connect_timeout=20).exec_command("echo here") == (0, b"here\n", b"")
    timer.join()
    asked = [path for method, path, query in api.requests if path.endswith("/virtualmachineinstances/web")]
    assert len(asked) == 2, "it watches rather than asks again and again"


def test_nothing_of_a_command_is_in_a_list_of_processes(guest, connection, api):
    connection().exec_command("echo secret")
    execs = [query for method, path, query in api.requests if path.endswith("/exec")]
    assert len(execs) == 1
    assert "secret" not in str(execs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda api: api.put("pods", api.get("pods", "default", "launcher"), "DELETED"), "launcher Pod doesn't exist"),
        (
            lambda api: api.instance("default", "web"),
            "its guest agent isn't connected; the guest needs qemu-guest-agent",
        ),
        (
            lambda api: api.guest_agent.disabled.add("guest-exec"),
            "may not run commands (guest-exec). Allow it in the",
        ),
        (lambda api: setattr(api.guest_agent, "broken", "the image has no virsh"), "the image has no virsh"),
        (lambda api: api.guest_agent.failing.add("guest-exec"), "Guest agent is not responding"),
        (
            lambda api: setattr(api, "forbidden", lambda method, path: path.endswith("/exec")),
            "need the right to create pods/exec in namespace default",
        ),
    ],
)
def test_what_is_not_possible(guest, connection, api, change, words):
    change(api)
    with pytest.raises(AnsibleConnectionFailure) as failure:
        connection().exec_command("true")
    assert words in str(failure.value)
    assert "VirtualMachineInstance default/web" in str(failure.value)


# wait_for=cloud_init


@pytest.fixture
def files(guest, tmp_path, monkeypatch):
    """Writes the files that cloud-init has in the guest; without any, there is no cloud-init."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("cat", "sh"):
        (programs / name).symlink_to("/bin/%s" % name)
    guest.environment = {"PATH": str(programs)}
    folder = tmp_path / "cloud-init"
    from ansible_collections.turtles.kubevirt.plugins.module_utils import _cloud_init_status

    monkeypatch.setattr(
        _cloud_init_status, "_SCRIPT", _cloud_init_status._SCRIPT.replace("/run/cloud-init", str(folder))
    )

    def write(**contents):
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / ("disabled" if name == "disabled" else "%s.json" % name)).write_text(json.dumps({"v1": content}))

    return write


@pytest.fixture
def vm(api, run, guest):
    """The guest's machine."""
    run("vm", state="running", image="example.com/web:1", memory="64Mi", name="web", namespace="default", wait=False)


def test_cloud_init_has_finished(run, vm, files):
    stage = {"errors": [], "recoverable_errors": {"WARNING": ["a deprecated key"]}, "finished": 2.0}
    files(status={"stage": None, "init": stage, "modules-final": stage}, result={"errors": [], "datasource": "NoCloud"})
    done = run("vm", **WEB)
    assert not done["changed"]
    assert done["warnings"] == ["VirtualMachine default/web: cloud-init: a deprecated key"]
    assert run("fleet", vms=[{"name": "web", "namespace": "default"}], wait_for="cloud_init")["summary"] == {
        "unchanged": 1
    }


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (None, "cloud-init isn't installed in the guest"),
        ({"disabled": {}}, "cloud-init is disabled"),
        ({}, "isn't set up by cloud-init within 1 seconds (wait_timeout). cloud-init hasn't begun"),
        ({"status": {"stage": "modules-config"}}, "cloud-init is at stage modules-config"),
        ({"status": {"stage": None, "init": {"finished": 1.0}}}, "cloud-init has finished stage init"),
        ({"status": {}, "result": {"errors": ["no such package", "x"]}}, "ended with errors: no such package; x."),
    ],
)
def test_cloud_init_has_not_finished_well(run, vm, files, contents, words):
    if contents is not None:
        files(**contents)
    failed = run("vm", **{**WEB, "wait_timeout": 1})
    assert words in failed.msg
    assert failed.get("cloud_init_errors", []) == ((contents or {}).get("result") or {}).get("errors", [])


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"status": ["init"]}, "cloud-init hasn't begun"),
        ({"status": {"init": {"finished": "a"}, "modules": {"finished": 1}}}, "cloud-init has finished stage modules"),
        ({"status": {}, "result": {"errors": 5}}, "ended with errors: 5."),
        ({"status": {}, "result": {"errors": {"a": "b"}}}, "ended with errors: {'a': 'b'}."),
    ],
)
def test_files_of_cloud_init_that_make_no_sense(run, vm, files, contents, words):
    """They are the guest's."""
    files(**contents)
    assert words in run("vm", **{**WEB, "wait_timeout": 1}).msg


def test_recoverable_errors_that_make_no_sense(run, vm, files):
    stages = {"a": {"recoverable_errors": ["x"]}, "b": {"recoverable_errors": {"WARNING": 5}}}
    files(status=stages, result={"errors": []})
    assert run("vm", **WEB)["warnings"] == ["VirtualMachine default/web: cloud-init: 5"]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (FINISHED, None),
        ("%s\n%s" % (HARMLESS, FINISHED), None),
        (FAILED + FINISHED, "ended with errors: Failed to install packages: ['vim']; Running module packages failed."),
        ("booting", "and cloud-init hasn't said on the console that it has finished"),
        (None, "its guest agent may not run commands (guest-exec)"),
        (
            "forbidden",
            "user cannot GET /api/v1/namespaces/default/pods; and the log of its console can't be read: user",
        ),
    ],
)
def test_cloud_init_on_the_console(api, run, vm, guest, log, words):
    guest.disabled.add("guest-exec")
    if log is None:
        pod = api.get("pods", "default", "launcher")
        pod["spec"]["containers"] = pod["spec"]["containers"][:1]
        api.put("pods", pod)
    elif log == "forbidden":
        api.forbidden = lambda method, path: path.endswith("/pods")
    else:
        api.logs["launcher"] = log
    done = run("vm", **{**WEB, "wait_timeout": 2})
    if words is None:
        assert not done.get("failed"), done
    else:
        assert words in done.msg
