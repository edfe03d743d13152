# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine's devices, probes and credentials make of its Pod."""

import json
from typing import Any

import pytest

from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.hook_sidecars import ANNOTATION
from turtles.controller.pod import state
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod
from turtles.controller.pod.obstacles import obstacles
from turtles.controller.vmi import vsock
from turtles.controller.vmi.template import make_vmi


def machine(devices: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "testvm", "namespace": "default", "uid": "u-1"},
        "spec": {"domain": {"devices": devices or {}, "memory": {"guest": "64Mi"}}, **spec},
    }


def efi(**options: Any) -> dict[str, Any]:
    return {"domain": {"memory": {"guest": "64Mi"}, "firmware": {"bootloader": {"efi": options}}}}


def compute(vmi: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = launcher_pod(vmi, LauncherConfig("launcher"))["spec"]["containers"][0]
    return container


DEFAULTS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


@pytest.mark.parametrize("kind", ["livenessProbe", "readinessProbe"])
@pytest.mark.parametrize(
    ("probe", "handler", "seconds"),
    [
        ({"tcpSocket": {"port": 80}}, {"tcpSocket": {"port": 80}}, 1),
        ({"httpGet": {"port": 80, "path": "/x"}}, {"httpGet": {"port": 80, "path": "/x"}}, 1),
        (
            {"guestAgentPing": {}},
            {
                "exec": {
                    "command": [
                        "virt-probe",
                        "--domainName",
                        "default_testvm",
                        "--timeoutSeconds",
                        "1",
                        "--guestAgentPing",
                    ]
                }
            },
            2,
        ),
        (
            {"exec": {"command": ["cat", "-n", "/tmp/ready"]}},
            {
                "exec": {
                    "command": [
                        "virt-probe",
                        "--domainName",
                        "default_testvm",
                        "--timeoutSeconds",
                        "1",
                        "--command",
                        "cat",
                        "--",
                        "-n",
                        "/tmp/ready",
                    ]
                }
            },
            2,
        ),
    ],
)
def test_probes_are_the_containers(kind, probe, handler, seconds):
    found = compute(machine(**{kind: {**probe, **DEFAULTS, "initialDelaySeconds": 5}}))[kind]
    assert found == {**handler, **DEFAULTS, "timeoutSeconds": seconds, "initialDelaySeconds": 15}


def test_a_machine_without_probes_has_none():
    assert not {"livenessProbe", "readinessProbe"} & compute(machine()).keys()


def test_devices_are_limits():
    devices = {
        "autoattachVSOCK": True,
        "gpus": [{"name": name, "deviceName": "example.org/gpu"} for name in ("a", "b")],
        "hostDevices": [{"name": "c", "deviceName": "example.org/stick"}],
    }
    limits = compute(machine(devices))["resources"]["limits"]
    wanted = {"devices.kubevirt.io/vhost-vsock": "1", "example.org/gpu": "2", "example.org/stick": "1"}
    assert wanted.items() <= limits.items()


def test_secrets_with_credentials_are_mounted_once():
    source = {"secret": {"secretName": "my.keys"}}
    ssh = {"sshPublicKey": {"source": source, "propagationMethod": {"noCloud": {}}}}
    password = {"userPassword": {"source": source, "propagationMethod": {"qemuGuestAgent": {}}}}
    pod = launcher_pod(machine(accessCredentials=[ssh, password]), LauncherConfig("launcher"))
    [volume] = [each for each in pod["spec"]["volumes"] if each["name"].startswith("access-")]
    assert volume == {"name": "access-credentials-0", "secret": {"secretName": "my.keys"}}
    [mount] = [each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert mount["mountPath"].endswith("/access-credentials/my.keys")
    assert mount["readOnly"]


PERMITTED = from_kubevirt(
    {
        "spec": {
            "configuration": {
                "permittedHostDevices": {
                    "pciHostDevices": [{"pciVendorSelector": "10DE:1EB8", "resourceName": "example.org/gpu"}]
                }
            }
        }
    }
)


STATE = from_kubevirt({"spec": {"configuration": {"vmStateStorageClass": "local"}}})


@pytest.mark.parametrize(
    ("devices", "spec", "config", "words"),
    [
        ({}, {}, DEFAULT, ""),
        ({"gpus": [{"name": "a", "deviceName": "example.org/gpu"}]}, {}, PERMITTED, ""),
        ({"gpus": [{"name": "a", "deviceName": "example.org/any"}]}, {}, DEFAULT, ""),
        (
            {"gpus": [{"name": "a", "deviceName": "example.org/x"}]},
            {},
            PERMITTED,
            "GPU example.org/x is not permitted in permittedHostDevices configuration",
        ),
        (
            {"hostDevices": [{"name": "a", "deviceName": "example.org/x"}]},
            {},
            PERMITTED,
            "HostDevice example.org/x is not permitted in permittedHostDevices configuration",
        ),
        ({"gpus": [{"name": "a", "claimName": "c"}]}, {}, DEFAULT, "gpus[0].claimName: resource claims are not"),
        ({"gpus": [{"name": "a", "deviceName": "b", "tag": "t"}]}, {}, DEFAULT, ""),
        ({"tpm": {"persistent": True}}, {}, DEFAULT, "tpm.persistent needs a claim: set spec.configuration.vmState"),
        ({"tpm": {"persistent": True}}, {}, STATE, ""),
        ({"tpm": {"persistent": True, "enabled": False}}, {}, DEFAULT, ""),
        ({}, efi(persistent=True), DEFAULT, "efi.persistent needs a claim: set spec.configuration.vmStateStorageClass"),
        ({}, efi(persistent=True), STATE, ""),
        ({}, efi(), DEFAULT, ""),
        ({"downwardMetrics": {}}, {}, DEFAULT, ""),
        ({"interfaces": [{"name": "a", "passtBinding": {}}]}, {}, DEFAULT, ""),
        ({}, {"networks": [{"name": "a", "multus": {"networkName": "n"}}]}, DEFAULT, ""),
        ({}, {"networks": [{"name": "a", "resourceClaim": {}}]}, DEFAULT, "networks[0].resourceClaim is not"),
        (
            {"interfaces": [{"name": "a", "bridge": {}, "state": "absent"}]},
            {"networks": [{"name": "a", "resourceClaim": {}}]},
            DEFAULT,
            "",
        ),
    ],
)
def test_obstacles(devices, spec, config, words):
    found = obstacles(machine(devices, **spec), config)
    assert (words in found[0]) if words else not found


def test_the_state_of_a_tpm_is_on_a_claim_of_the_virtual_machine():
    vmi = machine({"tpm": {"persistent": True}})
    owner = {
        "kind": "VirtualMachine",
        "apiVersion": "kubevirt.io/v1",
        "name": "testvm",
        "uid": "vm",
        "controller": True,
    }
    vmi["metadata"]["ownerReferences"] = [owner]
    claim = state.claim(vmi, STATE)
    assert claim["metadata"]["ownerReferences"] == [owner]
    assert claim["spec"]["storageClassName"] == "local"
    assert claim["spec"]["resources"] == {"requests": {"storage": "10Mi"}}
    pod = launcher_pod(vmi, LauncherConfig("launcher"))
    source = {"claimName": claim["metadata"]["name"]}
    assert [each for each in pod["spec"]["volumes"] if each.get("persistentVolumeClaim") == source]
    del vmi["metadata"]["ownerReferences"]
    assert state.claim(vmi, STATE)["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachineInstance"
    assert state.claim(machine({"tpm": {}}), STATE) is None


@pytest.mark.parametrize(("devices", "has"), [({"tpm": {}}, True), ({"tpm": {"enabled": False}}, False), ({}, False)])
def test_swtpm_setup_can_write_to_tmp(devices, has):
    """The root file system of the container is read-only."""
    vmi = machine(devices)
    vmi["spec"]["volumes"] = [{"name": "tmp", "persistentVolumeClaim": {"claimName": "own"}}]
    mounts = {mount["mountPath"]: mount["name"] for mount in compute(vmi)["volumeMounts"]}
    assert ("/tmp" in mounts) is has
    volumes = {volume["name"]: volume for volume in launcher_pod(vmi, LauncherConfig("launcher"))["spec"]["volumes"]}
    assert (volumes.get("tmp") == {"name": "tmp", "emptyDir": {}}) is has


def test_variables_of_efi_are_on_the_same_claim():
    vmi = machine(**efi(persistent=True))
    claim = state.claim(vmi, STATE)
    mounts = compute(vmi)["volumeMounts"]
    assert claim["metadata"]["name"] == "persistent-state-for-testvm"
    assert {"name": "vm-state", "mountPath": "/var/run/kubevirt-private/persistent-state"} in mounts
    assert state.claim(machine(**efi()), STATE) is None


def test_vsock_addresses_are_each_machines_own():
    wanted = machine({"autoattachVSOCK": True})
    assert vsock.is_without_address(wanted)
    assert not vsock.is_without_address(machine())
    first = vsock.allocate("u-1", ())
    assert first == vsock.allocate("u-1", ()), "the same machine gets the same"
    second = vsock.allocate("u-1", {first})
    assert first != second
    assert all(3 <= cid < 2**32 - 1 for cid in (first, second))
    assert vsock.addresses([{"status": {"VSOCKCID": first}}, {}]) == {first}


def test_an_input_device_is_attached_to_instances_of_virtual_machines():
    template = {"spec": {"domain": {"devices": {"autoattachInputDevice": True}}}}
    owner = {"kind": "VirtualMachine", "apiVersion": "kubevirt.io/v1", "metadata": {"namespace": "n", "name": "v"}}
    owner["metadata"]["uid"] = "u"
    tablet = {"name": "default-0", "type": "tablet"}
    assert make_vmi(owner, template, "v")["spec"]["domain"]["devices"]["inputs"] == [tablet]
    own = [{"name": "mine", "type": "tablet"}]
    template["spec"]["domain"]["devices"]["inputs"] = own
    assert make_vmi(owner, template, "v")["spec"]["domain"]["devices"]["inputs"] == own


SILENT = from_kubevirt({"spec": {"configuration": {"virtualMachineOptions": {"disableSerialConsoleLog": {}}}}})


@pytest.mark.parametrize(
    ("devices", "cluster", "logged"),
    [
        ({}, DEFAULT, True),
        ({"logSerialConsole": False}, DEFAULT, False),
        ({"logSerialConsole": True}, SILENT, True),
        ({}, SILENT, False),
        ({"logSerialConsole": True, "autoattachSerialConsole": False}, DEFAULT, False),
    ],
)
def test_the_serial_console_is_logged(devices: dict[str, Any], cluster: ClusterConfiguration, logged: bool) -> None:
    launcher, *others = launcher_pod(machine(devices), LauncherConfig("launcher", cluster=cluster))["spec"][
        "containers"
    ]
    assert ("--log-serial-console" in launcher["command"]) is logged
    assert [each["name"] for each in others if each["name"] == "guest-console-log"] == ["guest-console-log"] * logged


def test_the_container_that_logs_the_serial_console() -> None:
    def container(resources: dict[str, Any], *limited: str) -> dict[str, Any]:
        vmi = machine()
        vmi["spec"]["domain"]["resources"] = resources
        found = launcher_pod(vmi, LauncherConfig("launcher", limited=frozenset(limited), image_volumes=True))
        console: dict[str, Any] = found["spec"]["containers"][1]
        return console

    found = container({})
    assert found["resources"] == {"requests": {"cpu": "5m", "memory": "4M"}, "limits": {"memory": "60M"}}
    assert found["command"] + found["args"] == ["/usr/bin/virt-tail", "/var/run/kubevirt/sockets/virt-serial0-log"]
    assert found["volumeMounts"] == [{"name": "sockets", "mountPath": "/var/run/kubevirt/sockets", "readOnly": True}]
    assert found["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container({}, "cpu")["resources"]["limits"] == {"memory": "60M", "cpu": "100m"}
    assert container({"limits": {"cpu": "2"}})["resources"]["limits"] == {"memory": "60M", "cpu": "100m"}
    every = {"cpu": "1", "memory": "128M"}
    assert container({"requests": every, "limits": every})["resources"]["requests"] == {"cpu": "100m", "memory": "60M"}


def with_sidecars(*sidecars: dict[str, Any], **options: Any) -> dict[str, Any]:
    vmi = machine()
    vmi["metadata"]["annotations"] = {ANNOTATION: json.dumps(sidecars)}
    spec: dict[str, Any] = launcher_pod(vmi, LauncherConfig("launcher", cluster=SILENT, **options))["spec"]
    return spec


def test_hook_sidecars() -> None:
    spec = with_sidecars(
        {"image": "reg/a", "imagePullPolicy": "Always", "command": ["/a"], "args": ["--b"]},
        {
            "image": "reg/b",
            "configMap": {"name": "cm", "key": "run.sh", "hookPath": "/usr/bin/onDefineDomain"},
            "pvc": {"name": "pvc", "volumePath": "/debug", "sharedComputePath": "/var/run/debug"},
        },
        {"configMap": {"name": "cm", "key": "run.sh", "hookPath": "/usr/bin/onDefineDomain"}},
    )
    launcher, first, second, third = spec["containers"]
    sockets = {"name": "hook-sidecar-sockets", "mountPath": "/var/run/kubevirt-hooks"}
    assert launcher["command"][-2:] == ["--hook-sidecars", "3"]
    assert launcher["volumeMounts"][-2:] == [sockets, {"name": "hook-sidecar-1-claim", "mountPath": "/var/run/debug"}]
    assert first == {
        "name": "hook-sidecar-0",
        "image": "reg/a",
        "imagePullPolicy": "Always",
        "command": ["/a"],
        "args": ["--b"],
        "env": [{"name": "CONTAINER_NAME", "value": "hook-sidecar-0"}],
        "resources": {},
        "securityContext": {
            "runAsUser": 107,
            "runAsGroup": 107,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [sockets],
    }
    program = {"subPath": "run.sh", "readOnly": True}
    assert second["volumeMounts"] == [
        sockets,
        {"name": "hook-sidecar-1-files", "mountPath": "/usr/bin/onDefineDomain", **program},
        {"name": "hook-sidecar-1-claim", "mountPath": "/debug"},
    ]
    assert (third["image"], third["imagePullPolicy"]) == ("launcher", "IfNotPresent")
    assert third["command"] + third["args"] == ["/usr/bin/virt-sidecar-shim", "--version", "v1alpha3"]
    path = "/var/run/kubevirt-hook-programs/onDefineDomain"
    assert third["volumeMounts"][1] == {"name": "hook-sidecar-2-files", "mountPath": path, **program}
    volumes = {volume.pop("name"): volume for volume in spec["volumes"]}
    assert volumes["hook-sidecar-sockets"] == {"emptyDir": {}}
    assert volumes["hook-sidecar-1-files"] == {"configMap": {"name": "cm", "defaultMode": 0o755}}
    assert volumes["hook-sidecar-1-claim"] == {"persistentVolumeClaim": {"claimName": "pvc"}}


def test_what_hook_sidecars_get() -> None:
    limited = with_sidecars({"image": "x"}, limited=frozenset(("cpu",)))["containers"][1]["resources"]
    assert limited == {"requests": {"cpu": "200m"}, "limits": {"cpu": "200m"}}
    vmi = machine()
    vmi["spec"]["domain"]["resources"] = {"limits": {"cpu": "2"}}
    program = {"configMap": {"name": "c", "key": "k", "hookPath": "/usr/bin/onDefineDomain"}}
    vmi["metadata"]["annotations"] = {ANNOTATION: json.dumps([{"image": "x"}, program])}
    pod = launcher_pod(vmi, LauncherConfig("launcher", cluster=SILENT))["spec"]
    assert [each["resources"].get("limits") for each in pod["containers"][1:]] == [None, {"cpu": "200m"}]
    with_hooks, without = (with_sidecars(*each)["containers"][0] for each in ([{"image": "x"}], []))
    requests = [int(each["resources"]["requests"]["memory"]) for each in (with_hooks, without)]
    assert requests[0] - requests[1] == 48 * 1024 * 1024
    assert "--hook-sidecars" not in without["command"]


def test_an_annotation_that_admission_has_not_seen() -> None:
    vmi = machine()
    vmi["metadata"]["annotations"] = {ANNOTATION: "{"}
    (found,) = obstacles(vmi, DEFAULT)
    assert found.startswith("metadata.annotations.hooks.kubevirt.io/hookSidecars is not JSON")


def passt(*ports: dict[str, Any]) -> dict[str, Any]:
    return machine(
        {"interfaces": [{"name": "a", "passtBinding": {}, "ports": list(ports)}]}, networks=[{"name": "a", "pod": {}}]
    )


def seccomp(custom: dict[str, Any]) -> ClusterConfiguration:
    settings = {"virtualMachineInstanceProfile": {"customProfile": custom}}
    return from_kubevirt({"spec": {"configuration": {"seccompConfiguration": settings}}})


@pytest.mark.parametrize(
    ("vmi", "cluster", "of_pod", "own"),
    [
        (machine(), DEFAULT, {"type": "RuntimeDefault"}, None),
        (passt(), DEFAULT, {"type": "RuntimeDefault"}, {"type": "Unconfined"}),
        (passt(), seccomp({"runtimeDefaultProfile": True}), {"type": "RuntimeDefault"}, None),
        (
            passt(),
            seccomp({"localhostProfile": "kubevirt/kubevirt.json"}),
            {"type": "Localhost", "localhostProfile": "kubevirt/kubevirt.json"},
            None,
        ),
        (machine(), seccomp({"runtimeDefaultProfile": False}), {"type": "RuntimeDefault"}, None),
    ],
)
def test_filters_of_system_calls(
    vmi: dict[str, Any], cluster: ClusterConfiguration, of_pod: dict[str, str], own: dict[str, str] | None
) -> None:
    """passt makes a user namespace, which container runtimes forbid; what the installation says comes first."""
    spec = launcher_pod(vmi, LauncherConfig("launcher", cluster=cluster))["spec"]
    assert spec["securityContext"]["seccompProfile"] == of_pod
    assert spec["containers"][0]["securityContext"].get("seccompProfile") == own


def test_memory_of_passt() -> None:
    """The kernel needs 4.5 KiB for each of its sockets, of which there is one for each port of TCP and UDP."""

    def extra(vmi: dict[str, Any]) -> int:
        before = launcher_pod(machine(), LauncherConfig("launcher"))
        after = launcher_pod(vmi, LauncherConfig("launcher"))
        overheads = (
            int(pod["metadata"]["annotations"]["kubevirt.io/memory-overhead-bytes"]) for pod in (after, before)
        )
        return (next(overheads) - next(overheads)) // 2**20

    assert extra(passt({"port": 22})) == 24
    assert extra(passt()) == 600
