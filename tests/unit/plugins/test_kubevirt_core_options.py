# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options that the modules share with kubevirt.core and with community.kubevirt before it."""

from __future__ import annotations

import importlib
import threading

import pytest
from ansible_collections.turtles.kubevirt.plugins.plugin_utils._in_process import MODULES

OPTIONS = {"name": "web", "namespace": "default", "wait_timeout": 5}
WEB = {**OPTIONS, "image": "example.com/web:1", "memory": "64Mi"}


def spec_of(run, **options):
    done = run("vm", **{**WEB, "wait": False, **options})
    assert not done.get("failed"), done.msg
    return done["result"]["spec"]


def sent(api, last):
    """The last body that was sent to a path that ends so."""
    return next((body for end, body in reversed(api.bodies) if end == last and body), None)


# What kubevirt.core 2.3 has, but for how its server is reached.
OF_BOTH_INFO_MODULES = {
    *("api_version", "name", "namespace", "label_selectors", "field_selectors", "wait", "wait_sleep", "wait_timeout"),
    "hidden_fields",
}
PEERS_OPTIONS = {
    "vm": {
        *("annotations", "api_version", "data_volume_templates", "delete_options", "force", "generate_name"),
        *("grace_period_seconds", "hidden_fields", "instancetype", "labels", "name", "namespace", "preference"),
        *("run_strategy", "running", "spec", "state", "wait", "wait_sleep", "wait_timeout"),
    },
    "vm_info": {*OF_BOTH_INFO_MODULES, "running"},
    "vmi_info": OF_BOTH_INFO_MODULES,
}


@pytest.mark.parametrize("module", PEERS_OPTIONS)
def test_each_option_has_its_place(module):
    own = importlib.import_module(MODULES + module).MODULE.arguments()["argument_spec"]
    assert PEERS_OPTIONS[module] <= set(own)


# The module vm


def test_started_is_running(api, run):
    assert run("vm", state="started", **WEB)["result"]["status"]["printableStatus"] == "Running"
    assert not run("vm", state="running", **WEB)["changed"]
    assert not run("fleet", state="started", vms=[WEB | {"wait_timeout": None}])["changed"]


@pytest.mark.parametrize(("running", "strategy"), [(True, "Always"), (False, "Halted")])
def test_running_is_a_run_strategy(run, running, strategy):
    assert spec_of(run, running=running)["runStrategy"] == strategy


def test_running_keeps_the_form_that_the_object_has(api, run):
    definition = {"spec": {"running": False}}
    assert spec_of(run, definition=definition)["running"] is False
    done = run("vm", running=True, **WEB)
    assert done["changed"]
    assert not run("vm", running=True, **WEB)["changed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"running": False, "state": "running"}, "running=false contradicts state=running"),
        ({"running": True, "state": "stopped"}, "running=true contradicts state=stopped"),
        ({"name": None, "generate_name": "web-", "state": "absent"}, "generate_name: creates a new machine"),
        ({"name": None, "generate_name": "Web_"}, "generate_name: 'Web_' isn't a valid prefix for"),
        ({"grace_period_seconds": -1}, "grace_period_seconds: -1 is negative"),
        ({"grace_period_seconds": 5, "force": True}, "contradicts force=true"),
        ({"grace_period_seconds": 5, "state": "restarted"}, "KubeVirt takes 0 only"),
        ({"hidden_fields": ["metadata..name"]}, "hidden_fields[0]: 'metadata..name' isn't a field"),
        ({"data_volume_templates": [{"spec": {}}]}, "data_volume_templates[0]: metadata.name and spec are required"),
        ({"hugepage_size": "big"}, "hugepage_size: 'big' isn't a quantity"),
    ],
)
def test_contradictions(api, run, options, words):
    given = {name: value for name, value in {**WEB, **options}.items() if value is not None}
    assert words in run("vm", **given).msg
    assert api.written() == []


def test_names_that_the_server_makes(api, run):
    generated = {**WEB, "generate_name": "web-", "state": "running"}
    del generated["name"]
    names = {run("vm", **generated)["result"]["metadata"]["name"] for _time in range(2)}
    assert len(names) == 2
    assert all(name.startswith("web-") for name in names)
    assert run("vm", check=True, **generated)["changed"]
    assert "a fleet finds its machines by name" in run("fleet", vms=[{"generate_name": "web-"}]).msg


def test_matchers_with_the_names_of_the_api(run):
    matcher = {"inferFromVolume": "root", "inferFromVolumeFailurePolicy": "Ignore"}
    spec = spec_of(run, memory=None, instancetype=matcher, preference={"name": "debian", "revisionName": "r1"})
    assert spec["instancetype"] == matcher
    assert spec["preference"] == {"name": "debian", "kind": "VirtualMachineClusterPreference", "revisionName": "r1"}


def test_data_volumes(run):
    template = {"metadata": {"name": "root"}, "spec": {"storage": {"resources": {"requests": {"storage": "5Gi"}}}}}
    spec = spec_of(run, image=None, disks=[{"name": "root", "data_volume": "root"}], data_volume_templates=[template])
    assert spec["dataVolumeTemplates"] == [template]
    assert spec["template"]["spec"]["volumes"] == [{"name": "root", "dataVolume": {"name": "root"}}]


def test_options_of_the_guest_from_community_kubevirt(run):
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    options = {
        "affinity": affinity,
        "bootloader": "efi",
        "headless": True,
        "hugepage_size": "2Mi",
        "machine_type": "q35",
        "smbios_uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223",
        "subdomain": "shop",
    }
    template = spec_of(run, **options)["template"]["spec"]
    assert (template["affinity"], template["subdomain"]) == (affinity, "shop")
    domain = template["domain"]
    assert domain["firmware"] == {"bootloader": {"efi": {"secureBoot": False}}, "uuid": options["smbios_uuid"]}
    assert domain["memory"] == {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}
    assert domain["machine"] == {"type": "q35"}
    assert domain["devices"]["autoattachGraphicsDevice"] is False
    assert spec_of(run, bootloader="bios")["template"]["spec"]["domain"]["firmware"]["bootloader"] == {"bios": {}}


def test_the_grace_period_reaches_the_guest(api, run):
    run("vm", state="running", **WEB)
    assert run("vm", state="stopped", grace_period_seconds=7, **OPTIONS)["changed"]
    assert sent(api, "stop") == {"gracePeriod": 7}
    run("vm", state="running", **OPTIONS)
    assert run("vm", state="restarted", grace_period_seconds=0, **OPTIONS)["changed"]
    assert sent(api, "restart") == {"gracePeriodSeconds": 0}
    api.bodies.clear()
    assert run("vm", state="absent", grace_period_seconds=9, **OPTIONS)["changed"]
    assert sent(api, "stop") == {"gracePeriod": 9}


def test_options_of_deleting(api, run):
    uid = run("vm", state="running", **WEB)["result"]["metadata"]["uid"]
    other = {"propagationPolicy": "Orphan", "preconditions": {"uid": "another"}}
    for check in (True, False):
        failed = run("vm", check=check, state="absent", delete_options=other, **OPTIONS)
        assert "its metadata.uid is %s, but delete_options.preconditions.uid is another" % uid in failed.msg
    assert api.get("virtualmachines", "default", "web")
    right = {"propagationPolicy": "Orphan", "preconditions": {"uid": uid}}
    assert run("vm", state="absent", delete_options=right, grace_period_seconds=9, **OPTIONS)["changed"]
    assert sent(api, "stop") is None
    assert sent(api, "web")["propagationPolicy"] == "Orphan"
    assert sent(api, "web")["preconditions"] == {"uid": uid}
    assert not run("vm", state="absent", delete_options=other, **OPTIONS)["changed"]


@pytest.mark.parametrize("module", ["vm", "vm_info"])
def test_hidden_fields(api, run, module):
    run("vm", annotations={"kubemacpool.io/transaction-timestamp": "now", "a.b/c": "1"}, wait=False, **WEB)

    def shown(**options):
        done = run(module, **OPTIONS, **options) if module == "vm" else run(module, name="web", **options)
        return done["result"] if module == "vm" else done["resources"][0]

    default = shown()
    assert default["metadata"]["annotations"] == {"a.b/c": "1"}
    assert "managedFields" not in default["metadata"]
    assert "managedFields" in shown(hidden_fields=[])["metadata"]
    fields = ["metadata.annotations[a.b/c]", "spec.template.spec.volumes[0].containerDisk", "no.such[0].field"]
    hidden = shown(hidden_fields=fields)
    assert list(hidden["metadata"]["annotations"]) == ["kubemacpool.io/transaction-timestamp"]
    assert hidden["spec"]["template"]["spec"]["volumes"] == [{"name": "containerdisk"}]


# The modules that read


@pytest.mark.parametrize("module", ["vm_info", "vmi_info"])
def test_waiting_for_what_comes_later(api, run, module):
    begin = threading.Timer(0.3, lambda: run("vm", state="running", wait=False, **WEB))
    begin.start()
    done = run(module, name="web", namespace="default", wait=True, wait_timeout=60)
    begin.join()
    assert [obj["metadata"]["name"] for obj in done["resources"]] == ["web"]


def test_waiting_for_a_stop(api, run):
    run("vm", state="running", **WEB)
    api.delay = 0.3
    run("vm", state="stopped", wait=False, **OPTIONS)
    done = run("vm_info", namespace="default", running=False, wait=True, wait_timeout=60)
    assert done["resources"][0]["status"]["printableStatus"] == "Stopped"


def test_waiting_for_all_that_match(api, run):
    for name in ("one", "two"):
        run("vm", labels={"app": "web"}, wait=False, **{**WEB, "name": name})
    run("vm", state="running", **{**OPTIONS, "name": "one"})
    failed = run("vm_info", label_selectors=["app=web"], wait=True, wait_timeout=1)
    assert "VirtualMachine default/two isn't ready within 1 seconds (wait_timeout)" in failed.msg
    run("vm", state="running", **{**OPTIONS, "name": "two"})
    assert len(run("vm_info", label_selectors=["app=web"], wait=True)["resources"]) == 2


def test_waiting_in_vain(api, run):
    failed = run("vm_info", name="web", namespace="default", wait=True, wait_timeout=1)
    assert failed.msg == "VirtualMachine default/web isn't there within 1 seconds (wait_timeout)."
    api.trouble = "ImagePullBackOff"
    run("vm", state="running", **{**WEB, "wait": False})
    failed = run("vm_info", name="web", namespace="default", wait=True, wait_timeout=30)
    assert "VirtualMachine default/web isn't ready: ImagePullBackOff" in failed.msg
    assert failed["diagnosis"]["printable_status"] == "ImagePullBackOff"


def test_running_needs_wait(run):
    assert "Set wait=true" in run("vm_info", name="web", running=False).msg
