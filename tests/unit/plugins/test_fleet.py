# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _client, _reachable
from ansible_collections.turtles.kubevirt.plugins.module_utils._errors import KubeError
from api import Refused

WEB = {"image": "example.com/web:1", "memory": "64Mi"}
LABELS = {"app": "web"}


def vms(*names, **options):
    return [{"name": name, **WEB, **options} for name in names]


def names_of(api):
    return sorted(path.rpartition("/")[2] for path in api.objects if "/virtualmachines/" in path)


def vm_of(api, name):
    return api.get("virtualmachines", "default", name)


def memory_of(api, name):
    return vm_of(api, name)["spec"]["template"]["spec"]["domain"]["memory"]["guest"]


def statuses(result):
    return {vm["name"]: vm["status"] for vm in result["vms"]}


@pytest.fixture
def fleet(run):
    """Runs the module with short waits."""

    def call(*machines, **options):
        return run("fleet", vms=list(machines), **{"namespace": "default", "wait_timeout": 5, "progress": 0, **options})

    return call


def break_machine(api, *names):
    """Machines of these names don't start any more."""

    def reconcile(namespace, name):
        api.trouble = "CrashLoopBackOff" if name in names else None
        type(api)._reconcile(api, namespace, name)

    api._reconcile = reconcile


def test_machines_are_made_once_and_removed(api, fleet):
    wanted = vms("web-1", "web-2", "web-3")
    predicted = fleet(*wanted, labels=LABELS, check=True)
    assert (predicted["changed"], names_of(api)) == (True, [])
    made = fleet(*wanted, labels=LABELS)
    assert made["changed"]
    assert made["summary"] == {"created": 3}
    assert [vm["address"] for vm in made["vms"]] == ["10.244.0.7"] * 3
    assert [part["after_header"] for part in made["diff"]] == ["VirtualMachine default/web-%d" % n for n in (1, 2, 3)]
    assert vm_of(api, "web-2")["metadata"]["labels"] == LABELS
    assert vm_of(api, "web-2")["spec"]["runStrategy"] == "Always"
    api.requests.clear()
    again = fleet(*wanted, labels=LABELS)
    assert (again["changed"], again["summary"], again["diff"]) == (False, {"unchanged": 3}, [])
    # One list of the machines and one of the instances.
    assert len(api.requests) == 2
    gone = fleet(*wanted, state="absent")
    assert (gone["summary"], names_of(api)) == ({"deleted": 3}, [])
    assert not fleet(*wanted, state="absent")["changed"]


def test_two_hundred_unchanged_machines_make_a_handful_of_requests(api, fleet):
    wanted = vms(*("web-%d" % n for n in range(200)))
    assert fleet(*wanted, prune={"label_selector": "app=web", "max": 0})["summary"] == {"created": 200}
    watches = [query for _method, _path, query in api.requests if "watch" in query]
    assert len(watches) <= 2
    api.requests.clear()
    assert not fleet(*wanted, prune={"label_selector": "app=web", "max": 0})["changed"]
    assert len(api.requests) == 3


def test_only_what_differs_is_changed(api, fleet):
    fleet(*vms("web-1", "web-2"))
    changed = fleet(*vms("web-1"), *vms("web-2", memory="128Mi"))
    assert statuses(changed) == {"web-1": "unchanged", "web-2": "changed"}
    assert [part["after_header"] for part in changed["diff"]] == ["VirtualMachine default/web-2"]
    assert fleet({"name": "web-1", "state": "stopped"}, {"name": "web-2"})["vms"][0]["actions"] == ["stop"]
    assert vm_of(api, "web-1")["spec"]["runStrategy"] == "Halted"
    assert fleet({"name": "web-1"})["vms"][0]["actions"] == ["start"]
    assert fleet({"name": "web-1"}, state="restarted")["vms"][0]["actions"] == ["restart"]


def test_requests_are_capped(api, fleet):
    flying, most = 0, 0
    original = api._handle

    async def handle(request):
        nonlocal flying, most
        if request.method == "GET":
            return await original(request)
        flying += 1
        most = max(most, flying)
        try:
            await asyncio.sleep(0.02)
            return await original(request)
        finally:
            flying -= 1

    # The server takes its handler when it starts.
    api._handle = handle
    api.stop()
    api.start()
    fleet(*vms(*("web-%d" % n for n in range(12))), forks=3)
    assert most == 3


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_what_isnt_declared_any_more_is_pruned(api, fleet):
    fleet(*vms("web-1", "web-2", "web-3"), labels=LABELS)
    fleet(*vms("other"), labels={"app": "other"})
    prune = {"label_selector": "app=web", "max": 1}
    predicted = fleet(*vms("web-1", "web-2"), labels=LABELS, prune=prune, check=True)
    assert (predicted["changed"], predicted["pruned"]) == (True, ["default/web-3"])
    assert len(names_of(api)) == 4
    done = fleet(*vms("web-1", "web-2"), labels=LABELS, prune=prune)
    assert (done["pruned"], done["summary"]) == (["default/web-3"], {"unchanged": 2, "pruned": 1})
    assert names_of(api) == ["other", "web-1", "web-2"]
    assert not fleet(*vms("web-1", "web-2"), labels=LABELS, prune=prune)["changed"]


def test_more_than_asked_for_isnt_pruned_and_nothing_is_changed(api, fleet):
    fleet(*vms("web-1", "web-2", "web-3"), labels=LABELS)
    refused = fleet(*vms("web-1", memory="128Mi"), labels=LABELS, prune={"label_selector": "app=web", "max": 1})
    assert refused.msg.startswith(
        "prune: 2 machines match app=web and aren't declared, but prune.max allows 1 to be deleted: default/web-2, "
        "default/web-3. Nothing was changed."
    )
    assert (len(names_of(api)), memory_of(api, "web-1")) == (3, "64Mi")
    assert not refused["changed"]


# -- rolling out -------------------------------------------------------------------------------------------------------


def test_batches_come_one_after_another_canary_first(api, fleet):
    order = []
    original = api.reconcile
    api.reconcile = lambda namespace, name: (order.append(name), original(namespace, name))
    fleet(*vms(*"abcde"), rollout={"canary": 1, "batch": "40%"})
    assert [order[:1], sorted(order[1:3]), sorted(order[3:])] == [["a"], ["b", "c"], ["d", "e"]]


def test_a_failed_canary_stops_the_rest_and_a_rerun_goes_on(api, fleet):
    fleet(*vms("a", "b", "c"))
    break_machine(api, "a")
    changed = vms("a", "b", "c", memory="128Mi")
    failed = fleet(*changed, rollout={"canary": 1, "batch": "1"})
    assert failed.msg.startswith("1 of 3 machines in batch 1 of 3 failed. VirtualMachine default/a isn't running")
    assert "2 weren't touched" in failed.msg
    assert (failed["changed"], failed["summary"]) == (True, {"failed": 1, "pending": 2})
    assert [memory_of(api, name) for name in "abc"] == ["128Mi", "64Mi", "64Mi"]
    # What was changed and isn't healthy keeps a second run from going on.
    assert "that were as declared failed" in fleet(*changed, rollout={"canary": 1, "batch": "1"}, wait_timeout=1).msg
    break_machine(api)
    api.reconcile("default", "a")
    assert statuses(fleet(*changed)) == {"a": "unchanged", "b": "changed", "c": "changed"}


def test_a_failure_is_rolled_back(api, fleet):
    fleet(*vms("a", "b", labels={"app": "web"}))
    before = {name: vm_of(api, name)["spec"] for name in "ab"}
    break_machine(api, "b", "new")
    failed = fleet(
        *vms("a", "b", "new", memory="128Mi", labels={"app": "web", "release": "2"}),
        rollout={"on_failure": "rollback"},
        wait_timeout=2,
    )
    assert "2 of 3 machines in batch 1 of 1 failed" in failed.msg
    # It was broken before the roll-back, and is afterwards.
    assert "1 couldn't be rolled back. VirtualMachine default/b" in failed.msg
    assert statuses(failed) == {"a": "restored", "b": "failed", "new": "restored"}
    assert names_of(api) == ["a", "b"]
    for name in "ab":
        assert vm_of(api, name)["spec"] == before[name]
        assert vm_of(api, name)["metadata"]["labels"] == {"app": "web"}


def test_a_failure_may_be_passed_over(api, fleet):
    break_machine(api, "a")
    failed = fleet(*vms("a", "b", "c"), rollout={"batch": "1", "on_failure": "continue"})
    assert failed.msg.startswith("1 of 3 machines failed. VirtualMachine default/a isn't running: CrashLoopBackOff")
    assert statuses(failed) == {"a": "failed", "b": "created", "c": "created"}


def test_guests_that_need_it_are_restarted(api, fleet):
    api.missing_images = set()
    first = fleet(*vms("a"))
    uid = api.get("virtualmachineinstances", "default", "a")["metadata"]["uid"]
    assert not first["vms"][0]["restart_required"]
    noticed = fleet(*vms("a", memory="96Mi"))
    assert noticed["vms"][0]["restart_required"]
    assert "1 machines still run with their previous declaration: default/a" in noticed["warnings"][0]
    assert api.get("virtualmachineinstances", "default", "a")["metadata"]["uid"] == uid
    restarted = fleet(*vms("a", memory="96Mi"), rollout={"restart": True})
    assert restarted["vms"][0]["actions"] == ["restart"]
    assert api.get("virtualmachineinstances", "default", "a")["metadata"]["uid"] != uid
    assert not fleet(*vms("a", memory="96Mi"), rollout={"restart": True})["changed"]
    assert fleet(*vms("a", memory="64Mi"), rollout={"restart": True})["vms"][0]["actions"] == ["restart"]


def test_a_probe_judges_each_machine(api, fleet, tmp_path):
    command = [
        "sh",
        "-c",
        'echo "$1" >> "$2"; test "$0" != b',
        "{name}",
        "{namespace} {address}",
        str(tmp_path / "seen"),
    ]
    failed = fleet(*vms("a", "b"), probe={"command": command, "timeout": 1}, rollout={"on_failure": "rollback"})
    assert "VirtualMachine default/b runs, but its probe" in failed.msg
    assert "within 1 seconds (probe.timeout): exit code 1" in failed.msg
    assert set((tmp_path / "seen").read_text().splitlines()) == {"default 10.244.0.7"}
    assert names_of(api) == []
    assert not fleet(*vms("a"), probe={"command": command}).get("failed")
    missing = fleet(*vms("a"), probe={"command": ["/no/such/program"]})
    assert "probe.command: '/no/such/program' can't be run: No such file or directory" in missing.msg


def test_a_server_that_goes_away_for_a_while_is_waited_for(api, fleet):
    api.delay = 1.5

    def bounce():
        api.stop()
        time.sleep(0.5)
        api.start()

    threading.Timer(0.5, bounce).start()
    # The delayed work is lost with the server's loop, so the controller looks again.
    threading.Timer(2.0, lambda: [setattr(api, "delay", 0), api.reconcile("default", "a")]).start()
    assert fleet(*vms("a"), wait_timeout=60)["summary"] == {"created": 1}


def test_a_forbidden_list_of_all_namespaces_is_no_obstacle(api, fleet):
    for number in range(5):
        api.put("namespaces", {"metadata": {"name": "n%d" % number}})
    wanted = [{**vm, "namespace": "n%d" % number} for number, vm in enumerate(vms(*"abcde"))]
    assert fleet(*wanted)["summary"] == {"created": 5}
    api.requests.clear()
    assert not fleet(*wanted)["changed"]
    assert len(api.requests) == 2
    api.forbidden = lambda method, path: "/namespaces/" not in path
    assert not fleet(*wanted)["changed"]


@pytest.mark.parametrize("module", ["vm", "fleet"])
def test_who_may_not_watch_looks_again(api, run, module):
    """A user with rights in one namespace, on a cluster whose administrator has left out the verb."""
    api.forbidden = lambda method, path: "/namespaces/default/" not in path or method == "WATCH" or "/pods" in path
    api.delay = 0.5
    machine = {"name": "web", "namespace": "default", "state": "running", **WEB}
    options = {"vms": [machine], "progress": 0} if module == "fleet" else machine
    done = run(module, **options, wait_timeout=60)
    assert done["changed"], done
    assert api.get("virtualmachineinstances", "default", "web")["status"]["phase"] == "Running"
    api.forbidden = lambda method, path: method in ("GET", "WATCH") and "instances" in path
    refused = run(module, **options, wait_timeout=60).msg
    assert "VirtualMachineInstance" in refused
    assert "by the ClusterRole kubevirt.io:edit and a RoleBinding in the namespace" in refused


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["vm", "fleet"])
def test_an_agent_and_an_address_are_waited_for(api, run, module):
    def call(**options):
        machine = {"name": "web", "namespace": "default", "state": "running", **WEB, **options}
        options = {"vms": [machine], "progress": 0} if module == "fleet" else machine
        return run(module, **options, wait_timeout=1)

    def instance(**status):
        vmi = api.get("virtualmachineinstances", "default", "web")
        vmi["status"].update(status)
        api.put("virtualmachineinstances", vmi)

    missing = call(wait_for="agent").msg
    assert "isn't connected to its guest agent within 1 seconds" in missing
    assert "its guest agent hasn't connected (AgentConnected isn't True)" in missing

    agent = {"type": "AgentConnected", "status": "True"}
    late = []
    for _attempt in range(3):
        instance(conditions=[])
        threading.Timer(0.5, lambda: late.append(time.monotonic()) or instance(conditions=[agent])).start()
        assert not call(wait_for="agent").get("failed")
        late[-1] = time.monotonic() - late[-1]
        if late[-1] < 0.1:
            break
    # More than once only where something else keeps the machine busy.
    assert min(late) < 0.1
    instance(interfaces=[])
    assert "none of its interfaces has an IP address yet" in call(wait_for="address").msg


@pytest.mark.parametrize("answers_after", [3, 10**6])
def test_ssh_is_waited_for(run, monkeypatch, answers_after):
    asked = []

    def why_no_ssh(address):
        asked.append(address)
        return "%s port 22: Connection refused" % address if len(asked) < answers_after else None

    monkeypatch.setattr(_reachable, "why_no_ssh", why_no_ssh)
    done = run("vm", name="web", namespace="default", state="running", wait_for="ssh", wait_timeout=1, **WEB)
    assert set(asked) == {"10.244.0.7"}
    if answers_after == 3:
        assert (done["changed"], len(asked)) == (True, 3)
    else:
        assert "isn't reachable by SSH from the machine on which the task runs within 1 seconds" in done.msg
        assert "10.244.0.7 port 22: Connection refused" in done.msg


class Forwarded:
    """A port of a guest, as the API offers it."""

    def __init__(self, says):
        self._says = says

    def receive(self, timeout):
        return self._says

    def close(self):
        self._says = None


@pytest.mark.parametrize(
    ("says", "reached"), [(b"SSH-2.0-test", True), (None, False), (b"hello", False), ("forbidden", False)]
)
def test_a_guest_of_a_cluster_answers_through_the_api(run, monkeypatch, says, reached):
    opened = []

    def stream(_client, path, _protocol):
        opened.append(path)
        if says == "forbidden":
            raise KubeError("forbidden")
        return Forwarded(says)

    monkeypatch.setattr(_reachable, "PATIENCE", 0.2)
    monkeypatch.setattr(_reachable, "why_no_ssh", lambda address: "%s port 22 doesn't answer" % address)
    monkeypatch.setattr(_client.Client, "stream", stream)
    options = {"name": "web", "namespace": "default", "state": "running", "wait_for": "ssh", "wait_timeout": 2}
    done = run("vm", **options, **WEB)
    assert len(opened) == 1
    assert opened[0].startswith("/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web/")
    if reached:
        assert done["changed"]
        assert "Connect to it by turtles.kubevirt.portforward" in str(done)
    else:
        assert "10.244.0.7 port 22 doesn't answer" in done.msg


def test_an_ssh_server_is_known_by_its_banner():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert "port %d: Connection refused" % port in _reachable.why_no_ssh("127.0.0.1", port)
        listener.listen()

        def answer(text):
            connection, _peer = listener.accept()
            with connection:
                connection.sendall(text)

        for text, why in ((b"SSH-2.0-test\r\n", None), (b"hello\n", "accepts connections but closes them")):
            threading.Thread(target=answer, args=(text,), daemon=True).start()
            found = _reachable.why_no_ssh("127.0.0.1", port)
            assert found is None if why is None else why in found


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vms": None}, "vms, template: missing. Give the machines, or prune to only delete some."),
        ({"vms": [{"nmae": "a"}]}, "vms[0].nmae: unknown key. Did you mean name?"),
        ({"vms": [{"name": "a", "wait": False}]}, "vms[0].wait: is given once, for the whole task."),
        ({"vms": [{"name": "a", "cpu": 2}]}, "vms[0].cpu: must be a mapping such as {cores: 2}"),
        ({"vms": [{"name": "a", "state": "on"}]}, "vms[0]: value of state must be one of"),
        ({"vms": [{"name": "A_b"}]}, "vms[0]: name: 'A_b' isn't a Kubernetes name"),
        ({"vms": [{"memory": "1Gi"}]}, "vms[0]: name: missing"),
        ({"vms": vms("a", "b", "a")}, "vms[0] and vms[2] are both VirtualMachine default/a"),
        ({"vms": [{"name": "a"}]}, "vms[0]: VirtualMachine default/a doesn't exist and isn't declared"),
        ({"vms": [{"name": "a", "disks": [{"name": "d"}]}]}, "vms[0]: one of the following is required: image"),
        ({"rollout": {"batch": "some"}}, "rollout.batch: must be a number of machines from 1, or a percentage"),
        ({"rollout": {"batch": "0%"}}, "rollout.batch: must be"),
        ({"rollout": {"batch": "²"}}, "rollout.batch: must be a number of machines from 1"),
        ({"rollout": {"batch": "٣%"}}, "rollout.batch: must be a number of machines from 1"),
        ({"rollout": {"canary": -1}}, "rollout.canary: -1 is negative"),
        ({"rollout": {}, "wait": False}, None),
        ({"rollout": {"canary": 1}, "wait": False}, "rollout: has no effect without waiting"),
        ({"forks": 0}, "forks: must be from 1 to 100, but is 0"),
        ({"prune": {"label_selector": " ", "max": 1}}, "prune.label_selector: is empty"),
        ({"prune": {"label_selector": "a=b", "max": -1}}, "prune.max: -1 is negative"),
        ({"probe": {"command": []}}, "probe.command: is empty"),
        ({"template": {"name": "a"}}, "template: is evaluated by the action plugin"),
        ({"count": 3}, "count: needs a template"),
    ],
)
def test_bad_input_is_told_with_its_place(api, run, options, message):
    done = run("fleet", **{"vms": vms("a"), "namespace": "default", "progress": 0, "wait_timeout": 1, **options})
    if message:
        assert message in done.msg
        assert api.written() == []


def test_mistakes_are_told_together(run):
    failed = run("fleet", vms=[{"name": "a", "memroy": 1}, {"name": "b", "imagge": 1}], namespace="default")
    assert "vms[0].memroy: unknown key. Did you mean memory? vms[1].imagge" in failed.msg.replace("?.", "?")


def test_what_the_server_refuses_is_told_for_each_machine(api, fleet):
    def refuse(_method, plural, obj):
        if plural == "virtualmachines" and obj["metadata"]["name"] == "b":
            return Refused(422, "Invalid", "spec.template: no", causes=[{"field": "spec.template", "message": "no"}])
        return None

    api.refuse = refuse
    for check in (True, False):
        failed = fleet(*vms("a", "b"), check=check)
        assert (
            "1 of 2 machines in batch 1 of 1 failed. VirtualMachine default/b: refused: spec.template: no."
            in failed.msg
        )
    assert statuses(failed) == {"a": "created", "b": "failed"}


def test_a_quota_that_is_used_up_isnt_taken_for_a_missing_right(api, fleet):
    said = 'virtualmachines.kubevirt.io "a" is forbidden: exceeded quota: machines, requested: 1, used: 1, limited: 1'
    api.refuse = lambda _method, plural, _obj: Refused(403, "Forbidden", said) if plural == "virtualmachines" else None
    message = fleet(*vms("a")).msg
    assert "limited: 1. Delete objects that are no longer needed, or have the ResourceQuota raised." in message
    assert "Grant the user" not in message
