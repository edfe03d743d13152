# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import threading

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _vm_status
from api import Refused

OPTIONS = {"name": "web", "namespace": "default", "wait_timeout": 5}
WEB = {**OPTIONS, "image": "example.com/web:1", "memory": "64Mi"}
TESTVM = """
apiVersion: kubevirt.io/v1alpha3
kind: VirtualMachine
metadata: {name: testvm, namespace: default}
spec:
  running: false
  template:
    metadata: {labels: {kubevirt.io/size: small}}
    spec:
      domain:
        devices:
          disks: [{name: containerdisk, disk: {bus: virtio}}]
          interfaces: [{name: default, bridge: {}}]
        resources: {requests: {memory: 64M}}
      networks: [{name: default, pod: {}}]
      volumes: [{name: containerdisk, containerDisk: {image: demo}}]
"""


def vm_of(api, name="web"):
    return api.get("virtualmachines", "default", name)


@pytest.mark.parametrize("states", [("running", "stopped", "running", "absent"), ("stopped", "running", "absent")])
def test_each_state_is_reached_once_and_predicted(api, run, states):
    for state in states:
        before = vm_of(api)
        predicted = run("vm", check=True, state=state, **WEB)
        assert predicted.get("changed"), (state, predicted)
        assert vm_of(api) == before
        done = run("vm", state=state, **WEB)
        assert done["changed"], done
        assert done["result"].get("spec") == predicted["result"].get("spec")
        assert not run("vm", check=True, state=state, **WEB)["changed"]
        api.requests.clear()
        assert not run("vm", state=state, **WEB)["changed"]
        assert api.written() == []
    assert vm_of(api) is None


def test_the_returned_objects_are_those_after_the_action(api, run):
    done = run("vm", state="running", **WEB)
    assert done["result"]["status"]["printableStatus"] == "Running"
    assert done["vmi"]["status"]["phase"] == "Running"
    assert done["address"] == "10.244.0.7"
    stopped = run("vm", state="stopped", **OPTIONS)
    assert stopped["result"]["status"]["printableStatus"] == "Stopped"
    assert (stopped["vmi"], stopped["address"]) == ({}, "")


def test_present_does_not_start_what_is_stopped_nor_stop_what_runs(api, run):
    assert run("vm", **WEB)["result"]["spec"]["runStrategy"] == "Halted"
    assert run("vm", **{**WEB, "memory": "128Mi"})["result"]["spec"]["runStrategy"] == "Halted"
    run("vm", state="running", **OPTIONS)
    assert run("vm", **{**WEB, "memory": "256Mi"})["result"]["spec"]["runStrategy"] == "Always"


def test_stopped_does_not_create_a_running_machine(api, run):
    done = run("vm", state="stopped", run_strategy="RerunOnFailure", **WEB)
    assert done["result"]["spec"]["runStrategy"] == "Halted"
    assert api.get("virtualmachineinstances", "default", "web") is None
    assert not run("vm", state="stopped", run_strategy="RerunOnFailure", **WEB)["changed"]


@pytest.mark.parametrize("state", ["running", "stopped", "restarted", "present"])
def test_a_missing_machine_without_a_declaration_is_an_error(run, api, state):
    for check in (True, False):
        failed = run("vm", check=check, state=state, **OPTIONS)
        assert failed["failed"]
        assert "VirtualMachine default/web doesn't exist" in failed.msg
    assert api.written() == []


def test_the_older_form_of_the_run_strategy(api, run):
    manifest = {"definition": TESTVM, "wait_timeout": 5}
    assert run("vm", **manifest)["changed"]
    assert not run("vm", **manifest)["changed"]
    done = run("vm", state="running", **manifest)
    assert done["result"]["spec"]["running"] is True
    assert "runStrategy" not in done["result"]["spec"]
    assert not run("vm", state="running", **manifest)["changed"]
    assert run("vm", **manifest)["result"]["spec"]["running"] is False


def test_another_run_strategy_replaces_the_older_form(api, run):
    run("vm", definition=TESTVM, wait_timeout=60)
    done = run("vm", definition=TESTVM, run_strategy="Always", wait_timeout=60)
    assert done["result"]["spec"]["runStrategy"] == "Always"
    assert "running" not in done["result"]["spec"]


def test_manual_is_started_and_stopped_by_requests_alone(api, run):
    manual = {**WEB, "run_strategy": "Manual"}
    assert run("vm", state="running", **manual)["result"]["spec"]["runStrategy"] == "Manual"
    assert not run("vm", state="running", **manual)["changed"]
    assert run("vm", state="stopped", **manual)["changed"]
    assert not run("vm", state="stopped", **manual)["changed"]


def test_restarted_waits_for_another_instance(api, run):
    first = run("vm", state="running", **WEB)["vmi"]["metadata"]["uid"]
    assert run("vm", check=True, state="restarted", **OPTIONS)["changed"]
    done = run("vm", state="restarted", **OPTIONS)
    assert done["changed"]
    assert done["vmi"]["metadata"]["uid"] != first


def test_restarted_starts_what_is_stopped(api, run):
    run("vm", state="stopped", **WEB)
    assert run("vm", state="restarted", **OPTIONS)["vmi"]["status"]["phase"] == "Running"


@pytest.mark.parametrize("strategy", ["Halted", "Manual"])
def test_what_is_on_its_way_down_is_started_when_it_is_down(api, run, strategy):
    run("vm", state="running", **{**WEB, "run_strategy": "Manual"})
    leaving = api.get("virtualmachineinstances", "default", "web")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("virtualmachineinstances", leaving)
    vm = vm_of(api)
    vm.update(spec={**vm["spec"], "runStrategy": strategy}, asked=False)
    api.put("virtualmachines", vm)

    def gone():
        api.put("virtualmachineinstances", leaving, "DELETED")
        stopped = vm_of(api)
        stopped["status"] = {"printableStatus": "Stopped"}
        api.put("virtualmachines", stopped)
        api.reconcile("default", "web")

    threading.Timer(0.5, api.atomic, (gone,)).start()
    done = run("vm", state="running", **OPTIONS)
    assert done["changed"], done
    assert done["vmi"]["metadata"]["uid"] != leaving["metadata"]["uid"]
    assert done["result"]["spec"]["runStrategy"] == ("Always" if strategy == "Halted" else "Manual")


def test_a_restart_that_is_needed_is_told(api, run):
    run("vm", state="running", **WEB)

    def controller_looks():
        vm = vm_of(api)
        vm["status"]["desiredGeneration"] = 2
        vm["status"]["conditions"].append({"type": "RestartRequired", "status": "True"})
        api.put("virtualmachines", vm)

    vm = vm_of(api)
    vm["metadata"]["generation"], vm["status"]["desiredGeneration"] = 2, 1
    api.put("virtualmachines", vm)
    api.reconcile = lambda namespace, name: threading.Timer(0.3, controller_looks).start()
    done = run("vm", **{**WEB, "memory": "128Mi"})
    assert done["restart_required"]
    assert "restart it (state=restarted)" in done["warnings"][0]


def test_waiting_is_watching(api, run):
    api.delay = 0.6
    done = run("vm", state="running", **WEB)
    assert 0.5 < done["duration"] < 2
    reads = [path for method, path, query in api.requests if method == "GET" and "watch" not in query]
    assert len(reads) < 10


@pytest.mark.parametrize("state", ["running", "stopped", "present"])
def test_an_unchanged_machine_costs_two_requests(api, run, state):
    run("vm", state=state, **WEB)
    api.requests.clear()
    assert not run("vm", state=state, **WEB)["changed"]
    assert len(api.requests) == 2


def test_an_already_running_answer_does_not_skip_the_wait(api, run):
    run("vm", state="stopped", **WEB)
    original = api.subresource

    def race(namespace, name, action):
        api.delay = 0.5
        original(namespace, name, action)
        raise Refused(409, "Conflict", "VM is already running")

    api.subresource = race
    done = run("vm", state="running", **OPTIONS)
    assert done["vmi"]["status"]["phase"] == "Running"


def test_a_conflict_is_tried_again_with_the_new_object(api, run):
    run("vm", **WEB)
    api.conflicts = 2
    assert run("vm", **{**WEB, "memory": "128Mi"})["changed"]
    api.conflicts = 99
    assert run("vm", **{**WEB, "memory": "256Mi"})["failed"]


def test_a_hopeless_state_fails_at_once_and_says_why(api, run):
    api.trouble = "ImagePullBackOff"
    api.put(
        "pods",
        {
            "metadata": {
                "name": "virt-launcher-web-abcde",
                "namespace": "default",
                "labels": {"vmi.kubevirt.io/id": "web", "kubevirt.io": "virt-launcher"},
            },
            "status": {
                "containerStatuses": [
                    {
                        "name": "compute",
                        "state": {
                            "waiting": {"reason": "ImagePullBackOff", "message": "example.com/web:1: manifest unknown"}
                        },
                    }
                ]
            },
        },
    )
    api.put(
        "events",
        {
            "metadata": {"name": "e1", "namespace": "default"},
            "type": "Warning",
            "reason": "Failed",
            "message": "pull failed 3 times",
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "involvedObject": {"kind": "Pod", "name": "virt-launcher-web-abcde"},
        },
    )
    failed = run("vm", state="running", **{**WEB, "wait_timeout": 60})
    assert failed["failed"]
    for words in ("default/web", "ImagePullBackOff", "manifest unknown", "pull failed 3 times"):
        assert words in failed.msg
    assert failed["diagnosis"]["events"][0]["reason"] == "Failed"


CAUSE = {
    "type": "Failure",
    "status": "True",
    "reason": "LauncherFailed",
    "message": "volume root: image x has no file in /disk",
}


def test_a_crash_loop_is_reported_with_its_cause(api, run):
    """Events may be gone, and the instance is."""
    api.trouble = "CrashLoopBackOff"

    def explained(namespace, name):
        vm = vm_of(api)
        vm["status"]["conditions"].append(CAUSE)
        vm["status"]["startFailure"] = {"consecutiveFailCount": 3}
        api.put("virtualmachines", vm)

    original = api.reconcile

    def reconcile(namespace, name):
        original(namespace, name)
        explained(namespace, name)

    api.reconcile = reconcile
    failed = run("vm", state="running", **{**WEB, "wait_timeout": 60})
    assert failed["failed"]
    for words in ("CrashLoopBackOff", "3 starts have failed", CAUSE["message"]):
        assert words in failed.msg


@pytest.mark.parametrize(
    ("phase", "counts"), [(None, True), ("Failed", True), ("Scheduling", False), ("Running", False)]
)
def test_why_the_instance_before_ended_says_nothing_of_the_one_that_comes_up(phase, counts):
    vm = {"metadata": {"generation": 1}, "status": {"printableStatus": "Starting", "conditions": [CAUSE]}}
    vmi = {"metadata": {}, "status": {"phase": phase}} if phase else None
    assert _vm_status.is_troubled(vm)
    assert any(CAUSE["message"] in reason for reason in _vm_status.hopeless(vm, vmi)) is counts


def test_a_failed_task_that_did_change_the_machine_says_so(api, run):
    api.trouble = "ImagePullBackOff"
    failed = run("vm", state="running", **WEB)
    assert failed["failed"]
    assert failed["changed"]
    assert not run("vm", state="running", **WEB)["changed"]
    started = run("vm", state="running", force=True, **{**WEB, "memory": "lots"})
    assert (started["failed"], started["changed"]) == (True, False)


BAD = {**WEB, "image": "example.com/wrong:1"}


@pytest.fixture
def waiting_for_an_image(api, run):
    """A machine whose instance waits for an image that doesn't exist."""
    api.missing_images = {BAD["image"]}
    failed = run("vm", state="running", **BAD)
    assert "ImagePullBackOff" in failed.msg
    return api.get("virtualmachineinstances", "default", "web")["metadata"]["uid"]


@pytest.mark.parametrize("options", [{"state": "running"}, {"run_strategy": "Always"}])
def test_a_corrected_image_starts_an_instance_that_never_ran(api, run, waiting_for_an_image, options):
    predicted = run("vm", check=True, **options, **WEB)
    assert predicted["changed"]
    assert predicted["diff"]["after"]["guest"] == "running"
    done = run("vm", **options, **WEB)
    assert done["vmi"]["status"]["phase"] == "Running", done
    assert done["vmi"]["metadata"]["uid"] != waiting_for_an_image
    assert not done["restart_required"]
    assert not run("vm", **options, **WEB)["changed"]


def test_an_image_corrected_by_another_task_starts_it_too(api, run, waiting_for_an_image):
    vm = vm_of(api)
    vm["spec"]["template"]["spec"]["volumes"][0]["containerDisk"]["image"] = WEB["image"]
    api.put("virtualmachines", vm)
    api.reconcile("default", "web")
    done = run("vm", state="running", **OPTIONS)
    assert done["changed"], done
    assert done["vmi"]["status"]["phase"] == "Running"


def test_an_instance_the_controller_replaces_itself(api, run, waiting_for_an_image):
    def replaced(namespace, name, action):
        api.put("virtualmachineinstances", api.get("virtualmachineinstances", namespace, name), "DELETED")
        api.reconcile(namespace, name)
        raise Refused(409, "Conflict", "unable to complete request: stop/start already underway")

    api.subresource = replaced
    assert run("vm", state="running", **WEB)["vmi"]["status"]["phase"] == "Running"


def test_an_image_that_is_still_wrong_fails_with_its_own_error(api, run, waiting_for_an_image):
    api.missing_images.add("example.com/worse:1")
    failed = run("vm", state="running", **{**WEB, "image": "example.com/worse:1"})
    assert failed["changed"]
    assert "ImagePullBackOff" in failed.msg
    assert "example.com/worse:1" in failed.msg
    assert "example.com/wrong:1" not in failed.msg


def test_what_the_old_instance_left_in_the_status_is_not_judged(api, run, waiting_for_an_image):
    """The machine's status still speaks of the old instance when the new one is there already."""
    original = api._reconcile

    def late(namespace, name):
        if api.get("virtualmachineinstances", namespace, name):
            return
        vm = vm_of(api)
        status, spec = vm["status"], api._started(vm)
        vm["status"] = {**status, "desiredGeneration": spec["desiredGeneration"]}
        api.put("virtualmachines", vm)
        threading.Timer(0.4, original, (namespace, name)).start()

    api._reconcile = late
    assert run("vm", state="running", **WEB)["vmi"]["status"]["phase"] == "Running"


def test_a_guest_that_runs_is_not_restarted_for_a_change(api, run):
    api.missing_images = set()
    first = run("vm", state="running", **WEB)["vmi"]["metadata"]["uid"]
    done = run("vm", state="running", **{**WEB, "memory": "128Mi"})
    assert done["vmi"]["metadata"]["uid"] == first
    assert done["restart_required"]


def test_a_crash_loop_of_an_earlier_declaration_is_waited_out(api, run):
    api.missing_images = set()
    run("vm", state="running", wait=False, **WEB)
    vmi, vm = api.get("virtualmachineinstances", "default", "web"), vm_of(api)
    api.put("virtualmachineinstances", vmi, "DELETED")
    vm["status"] = {"printableStatus": "CrashLoopBackOff", "desiredGeneration": 1, "observedGeneration": 1}
    api.put("virtualmachines", vm)
    original = api._reconcile

    def backing_off(namespace, name):
        vm = vm_of(api)
        vm["status"]["desiredGeneration"] = 2
        api.put("virtualmachines", vm)
        threading.Timer(0.4, original, (namespace, name)).start()

    assert "CrashLoopBackOff" in run("vm", state="running", **WEB).msg
    api._reconcile = backing_off
    assert run("vm", state="running", **{**WEB, "memory": "128Mi"})["vmi"]["status"]["phase"] == "Running"


def test_troubles_of_an_earlier_machine_of_that_name_are_not_told(api, run):
    run("vm", **WEB)
    vm = vm_of(api)
    vm["metadata"]["creationTimestamp"] = "2026-01-01T00:00:10Z"
    api.put("virtualmachines", vm)
    for name, when in (("old", "2026-01-01T00:00:09Z"), ("new", "2026-01-01T00:00:10.123456Z")):
        event = {"type": "Warning", "reason": "Failed", "message": "the %s trouble" % name, "lastTimestamp": when}
        about = {"kind": "VirtualMachine", "name": "web"}
        api.put("events", {"metadata": {"namespace": "default", "name": name}, "involvedObject": about, **event})
    api.trouble = "ErrorUnschedulable"
    failed = run("vm", state="running", **{**WEB, "wait_timeout": 1})
    assert "the new trouble" in failed.msg
    assert "the old trouble" not in failed.msg


def test_a_timeout_says_what_was_missing(api, run):
    api.trouble = "ErrorUnschedulable"
    failed = run("vm", state="running", **{**WEB, "wait_timeout": 1})
    assert "default/web isn't running within 1 seconds (wait_timeout). " in failed.msg
    assert "ErrorUnschedulable" in failed.msg


def test_a_refusal_names_object_and_field(api, run):
    causes = [{"field": "spec.template.spec.volumes[0].name", "message": "isn't named by any disk"}]
    api.refuse = lambda method, plural, obj: Refused(422, "Invalid", "denied", causes=causes)
    for check in (True, False):
        failed = run("vm", check=check, **WEB)
        assert (
            failed.msg
            == "VirtualMachine default/web: refused: spec.template.spec.volumes[0].name: isn't named by any disk"
        )
    assert vm_of(api) is None


def test_a_namespace_that_is_missing(api, run):
    failed = run("vm", **{**WEB, "namespace": "nowhere"})
    assert "namespace nowhere doesn't exist. Create it first" in failed.msg
    predicted = run("vm", check=True, **{**WEB, "namespace": "nowhere"})
    assert predicted["changed"]
    assert "nowhere" in predicted["warnings"][0]


def test_a_wrong_token_is_named_but_not_shown(server, run):
    failed = run("vm", api_key="wrong-token-value", **WEB)
    assert "doesn't accept the credentials" in failed.msg
    assert "wrong-token-value" not in str(failed)


def test_a_token_inside_a_kubeconfig_is_not_shown(server, run):
    done = run("vm", host=None, api_key=None, kubeconfig=server.api.credentials(), **WEB)
    assert done["changed"]
    assert server.api.token not in str(done)


def test_nobody_listens(run):
    failed = run("vm", host="http://127.0.0.1:9", **WEB)
    assert failed.msg == (
        "The Kubernetes API at http://127.0.0.1:9 (from the option host) can't be reached: Failed to establish a new "
        "connection: [Errno 111] Connection refused. Check that the API server runs and that the address is right."
    )


def test_a_missing_kubeconfig(run, tmp_path):
    failed = run("vm", host=None, api_key=None, kubeconfig=str(tmp_path / "no"), **WEB)
    assert "doesn't exist" in failed.msg
    assert "K8S_AUTH_KUBECONFIG" in failed.msg


@pytest.mark.parametrize("credentials", ["api_key", "client_cert"])
def test_host_and_credentials_leave_out_the_kubeconfig(server, run, monkeypatch, tmp_path, credentials):
    """The precedence of kubernetes.core."""
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", "/nowhere")
    monkeypatch.setenv("K8S_AUTH_CONTEXT", "none")
    options = {}
    if credentials == "client_cert":
        (tmp_path / "pem").write_text("")
        options = {"api_key": None, "client_cert": str(tmp_path / "pem"), "client_key": str(tmp_path / "pem")}
    done = run("vm", **options, **{**WEB, "namespace": None})
    if credentials == "api_key":
        assert done["result"]["metadata"]["namespace"] == "default"
    else:
        assert "doesn't accept the credentials of the option client_cert and the option client_key" in done.msg


def test_credentials_that_are_missing_are_named(run):
    failed = run("vm", api_key=None, **WEB)
    assert "(from the option host) needs credentials, but none are given" in failed.msg


def test_host_alone_takes_the_credentials_of_a_kubeconfig(server, run, monkeypatch, tmp_path):
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(path))
    failed = run("vm", api_key=None, **WEB)
    for words in (
        "the option host is given without credentials",
        "environment variable K8S_AUTH_KUBECONFIG",
        str(path),
    ):
        assert words in failed.msg
    kubeconfig = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": server.api.token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps(kubeconfig))
    assert not run("vm", api_key=None, **WEB).get("failed")
    failed = run("vm", api_key=None, host="http://127.0.0.1:9", **WEB)
    assert "http://127.0.0.1:9 (from the option host) can't be reached" in failed.msg


def test_a_file_that_is_no_kubeconfig(run, tmp_path):
    (tmp_path / "text").write_text("hello")
    failed = run("vm", host=None, api_key=None, kubeconfig=str(tmp_path / "text"), **WEB)
    assert failed.msg == "kubeconfig %s isn't a kubeconfig: part of it has the wrong type" % (tmp_path / "text")


def test_spec_has_the_last_word_in_either_form_of_the_run_strategy(api, run):
    done = run("vm", definition=TESTVM, spec={"runStrategy": "Manual"}, wait=False)
    assert done["result"]["spec"]["runStrategy"] == "Manual"
    assert "running" not in done["result"]["spec"]


def test_what_the_server_warns_of_is_told(api, run):
    api.warning = 'unknown field \\"spec.template.spec.domain.memry\\"'
    assert run("vm", **WEB)["warnings"] == ['The API server warns: unknown field "spec.template.spec.domain.memry"']
    assert "warnings" not in run("vm", **WEB)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Web_1"}, "name: 'Web_1' isn't a Kubernetes name"),
        ({"wait_timeout": -1}, "wait_timeout: -1 is negative. Give seconds, or set wait=false."),
        ({"name": None}, "name: missing"),
        ({"definition": "a: [b"}, "definition isn't valid YAML"),
        ({"definition": {"kind": "Pod"}}, "definition.kind: 'Pod' isn't VirtualMachine"),
        ({"definition": "{kind: VirtualMachine}\n---\n{kind: VirtualMachine}"}, "definition has 2 objects"),
        ({"definition": {"metadata": {"name": "other"}}}, "name: 'web' contradicts metadata.name 'other'"),
        ({"definition": {"apiVersion": "v1"}}, "definition.apiVersion: 'v1' has no VirtualMachine"),
        ({"src": "/nonexistent.yaml"}, "src: /nonexistent.yaml can't be read"),
        ({"spec": {"running": True, "runStrategy": "Halted"}}, "spec: running and runStrategy can't be combined"),
        (
            {"definition": {"spec": {"running": True, "runStrategy": "Halted"}}},
            "definition.spec: running and runStrategy can't be combined",
        ),
        ({"state": "running", "run_strategy": "Halted"}, "run_strategy=Halted contradicts state=running"),
        (
            {"disks": [{"name": "a", "capacity": "1Gi"}, {"name": "a", "claim": "b"}]},
            "the name a is used more than once",
        ),
        ({"ssh_keys": ["k"], "cloud_init": {"user_data": "#!/bin/sh"}}, "only if that is cloud-config"),
        ({"ssh_keys": ["k"], "cloud_init": {"user_data_secret": "s"}}, "can't be combined"),
        ({"cloud_init": {"user_data": [1]}}, "cloud_init.user_data must be text or a mapping"),
        ({"termination_grace_period": -1}, "termination_grace_period: -1 is negative"),
        ({"labels": {"a": {"b": "c"}}}, "labels.a: must be a string"),
        ({"spec": {"running": "yes"}}, "spec.running: 'yes' isn't true or false"),
    ],
)
def test_bad_input(api, run, options, words):
    failed = run("vm", **{**WEB, **options})
    assert failed["failed"]
    assert words in failed.msg
    assert api.written() == []


def test_high_level_options(api, run):
    done = run(
        "vm",
        **{
            **WEB,
            "cpu": {"cores": 2},
            "labels": {"app": "web", "prod": True},
            "hostname": "w",
            "termination_grace_period": 0,
            "disks": [
                {"name": "data", "claim": "c"},
                {"name": "cd", "image": "iso", "type": "cdrom"},
                {"name": "tmp", "capacity": "1Gi", "serial": "s"},
            ],
            "interfaces": [
                {"name": "default", "ports": [22]},
                {"name": "lan", "network": "ns/lan", "binding": "bridge"},
                {"name": "other", "binding": "passt"},
            ],
            "ssh_keys": ["ssh-ed25519 AAA"],
            "cloud_init": {"user_data": {"packages": ["vim"]}},
        },
    )
    spec = done["result"]["spec"]["template"]["spec"]
    assert [d["name"] for d in spec["domain"]["devices"]["disks"]] == [
        "containerdisk",
        "data",
        "cd",
        "tmp",
        "cloudinitdisk",
    ]
    assert spec["domain"]["memory"] == {"guest": "64Mi"}
    assert spec["volumes"][-1]["cloudInitNoCloud"]["userData"] == (
        "#cloud-config\npackages:\n- vim\nssh_authorized_keys:\n- ssh-ed25519 AAA\n"
    )
    assert spec["networks"] == [
        {"name": "default", "pod": {}},
        {"name": "lan", "multus": {"networkName": "ns/lan"}},
        {"name": "other", "pod": {}},
    ]
    interfaces = spec["domain"]["devices"]["interfaces"]
    assert interfaces[0] == {"name": "default", "masquerade": {}, "ports": [{"port": 22}]}
    assert interfaces[2] == {"name": "other", "passtBinding": {}}
    assert spec["terminationGracePeriodSeconds"] == 0
    assert done["result"]["metadata"]["labels"] == {"app": "web", "prod": "true"}
    assert done["result"]["spec"]["template"]["metadata"]["labels"] == {"app": "web", "prod": "true"}


def test_force_switches_off(api, run):
    run("vm", state="running", **WEB)
    assert run("vm", state="absent", force=True, **OPTIONS)["changed"]
    assert any(path.endswith("/web/stop") for _m, path, _q in api.requests)
    assert vm_of(api) is None


def test_a_generated_name(api, run):
    definition = {"metadata": {"generateName": "vm-", "namespace": "default"}}
    options = {**WEB, "name": None, "definition": definition}
    assert run("vm", **options)["result"]["metadata"]["name"] == "vm-x1"


def test_diff_shows_what_changes_and_nothing_of_the_server(api, run):
    run("vm", **WEB)
    diff = run("vm", check=True, **{**WEB, "memory": "128Mi"})["diff"]
    diff["before"]["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = "128Mi"
    assert diff["before"] == diff["after"]
    assert set(diff["after"]["metadata"]) == {"name", "namespace"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "lots"}, "memory: 'lots' isn't a quantity"),
        ({"memory": "-64Mi"}, "memory: '-64Mi' isn't a quantity"),
        ({"disks": [{"name": "data", "capacity": "1 GB"}]}, "disks.capacity: '1 GB' isn't a quantity"),
    ],
)
def test_what_is_no_quantity_is_named_with_an_example(run, options, words):
    found = run("vm", **{**WEB, **options})
    assert found["failed"]
    assert words in found.msg
    assert "such as 512Mi" in found.msg


@pytest.mark.parametrize("memory", ["64Mi", "1.5Gi", "1e9", "128M", "134217728", ".5Gi"])
def test_what_is_a_quantity_goes_to_the_server(run, memory):
    assert not run("vm", **{**WEB, "memory": memory}).get("failed")


def test_interfaces_are_plugged_in_and_out(run, api):
    default, lan = {"name": "default"}, {"name": "lan", "binding": "bridge", "network": "lan"}
    options = {"name": "web", "namespace": "default", "image": "example.com/web:1", "memory": "64Mi", "wait": False}
    run("vm", **options, interfaces=[default])

    def declare(*interfaces):
        done = run("vm", **options, interfaces=list(interfaces))
        assert not done.get("failed"), done
        spec = done["result"]["spec"]["template"]["spec"]
        found = {each["name"]: each.get("state") for each in spec["domain"]["devices"]["interfaces"]}
        assert found.keys() == {each["name"] for each in spec["networks"]}
        return done["changed"], found

    assert declare(default, {**lan, "state": "absent"}) == (False, {"default": None}), "it isn't there anyway"
    assert declare(default, lan) == (True, {"default": None, "lan": None})
    assert declare(default, {**lan, "state": "down"}) == (True, {"default": None, "lan": "down"})
    assert declare(default, {**lan, "state": "absent"}) == (True, {"default": None, "lan": "absent"})
    assert declare(default, {**lan, "state": "absent"}) == (False, {"default": None, "lan": "absent"})
