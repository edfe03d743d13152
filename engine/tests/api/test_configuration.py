# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.objects import put, talk_vm, talk_vmi
from turtles.api import configuration
from turtles.api.configuration import ClusterConfiguration, WorkloadUpdates
from turtles.api.configuration_reader import from_kubevirt, in_force
from turtles.api.kind import Context, Refusal
from turtles.api.kinds import vm as vms
from turtles.api.kinds.kubevirt.schema import KUBEVIRT_SPEC
from turtles.api.kinds.kubevirt.validation import validate as validate_kubevirt
from turtles.api.kinds.kubevirt.validation import warn as warnings_kubevirt
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.validation import validate
from turtles.api.language import Cause


def kubevirt(**spec):
    return {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt"}, "spec": spec}


def configured(path, value):
    return put(kubevirt(), f"spec.configuration.{path}", value)


def test_an_empty_object_and_none_give_kubevirts_defaults():
    found = from_kubevirt(kubevirt())
    assert found == from_kubevirt(None) == configuration.DEFAULT
    assert (found.cpu_allocation_ratio, found.memory_overcommit) == (10, 100)
    assert (found.default_network_interface, found.permit_bridge_on_pod_network) == ("bridge", True)
    assert (found.machine_type, found.cpu_model, found.eviction_strategy) == ("q35", "host-model", "None")
    assert found.use_emulation is None
    assert found.has_gate("ImageVolume")
    assert not found.has_gate("HostDisk")
    assert found.log_level("virtAPI") == "info"
    assert found.uninstall_blocked


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("developerConfiguration.useEmulation", True, "use_emulation", True),
        ("developerConfiguration.useEmulation", False, "use_emulation", False),
        ("developerConfiguration.cpuAllocationRatio", 4, "cpu_allocation_ratio", 4),
        ("developerConfiguration.cpuAllocationRatio", 0, "cpu_allocation_ratio", 10),
        ("developerConfiguration.memoryOvercommit", 150, "memory_overcommit", 150),
        ("developerConfiguration.nodeSelectors", {"zone": "a"}, "node_selectors", {"zone": "a"}),
        ("network.defaultNetworkInterface", "masquerade", "default_network_interface", "masquerade"),
        ("network.permitBridgeInterfaceOnPodNetwork", False, "permit_bridge_on_pod_network", False),
        ("imagePullPolicy", "Always", "image_pull_policy", "Always"),
        ("machineType", "pc-q35-7.2", "machine_type", "pc-q35-7.2"),
        ("architectureConfiguration.amd64.machineType", "pc-q35-7.0", "machine_type", "pc-q35-7.0"),
        ("architectureConfiguration.amd64.emulatedMachines", ["pc-q35-7*"], "emulated_machines", ("pc-q35-7*",)),
        ("evictionStrategy", "LiveMigrate", "eviction_strategy", "LiveMigrate"),
        ("cpuModel", "Nehalem", "cpu_model", "Nehalem"),
        ("cpuRequest", "300m", "cpu_request", "300m"),
        ("memBalloonStatsPeriod", 0, "balloon_stats_period", 0),
        ("virtualMachineOptions", {"disableFreePageReporting": {}}, "free_page_reporting", False),
        ("virtualMachineOptions", {"disableSerialConsoleLog": {}}, "free_page_reporting", True),
        ("virtualMachineOptions", {"disableSerialConsoleLog": {}}, "log_serial_console", False),
        ("virtualMachineOptions", {"disableFreePageReporting": {}}, "log_serial_console", True),
        ("additionalGuestMemoryOverheadRatio", "1.5", "overhead_ratio", 1.5),
        ("defaultRuntimeClass", "kata", "runtime_class", "kata"),
    ],
)
def test_a_key_of_the_configuration(path, value, field, expected):
    found = from_kubevirt(configured(path, value))
    assert getattr(found, field) == expected


def test_gates_are_switched_on_and_off():
    developer = {"featureGates": ["HostDisk", "Snapshot"], "disabledFeatureGates": ["Snapshot", "ImageVolume"]}
    found = from_kubevirt(configured("developerConfiguration", developer))
    assert found.has_gate("HostDisk")
    assert not found.has_gate("Snapshot")
    assert not found.has_gate("ImageVolume")


def test_verbosity_becomes_a_log_level():
    found = from_kubevirt(configured("developerConfiguration.logVerbosity", {"virtAPI": 3, "virtHandler": 1}))
    levels = [found.log_level(name) for name in ("virtAPI", "virtHandler", "virtController")]
    assert levels == ["debug", "info", "info"]


def test_the_oldest_object_counts():
    young, old = kubevirt(), kubevirt()
    young["metadata"] = {"name": "a", "creationTimestamp": "2026-01-02T00:00:00Z"}
    old["metadata"] = {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert in_force([young, old]) is old
    assert in_force([]) is None


def test_machines_get_what_is_configured():
    vmi = talk_vmi()
    del vmi["spec"]["networks"], vmi["spec"]["domain"]["devices"]["interfaces"]
    chosen = ClusterConfiguration(
        cpu_request="300m",
        cpu_model="Nehalem",
        default_network_interface="masquerade",
        eviction_strategy="External",
        machine_type="pc-q35-7.2",
    )
    spec = default(vmi, Context(chosen))["spec"]
    assert spec["domain"]["resources"]["requests"] == {"memory": "64M", "cpu": "300m"}
    assert spec["domain"]["cpu"]["model"] == "Nehalem"
    assert spec["domain"]["cpu"]["sockets"] == 1
    assert spec["domain"]["machine"]["type"] == "pc-q35-7.2"
    assert spec["domain"]["devices"]["interfaces"] == [{"name": "default", "masquerade": {}}]
    assert spec["evictionStrategy"] == "External"
    asked = put(talk_vmi(), "spec.domain.resources.requests.cpu", "2")
    assert default(asked, Context(chosen))["spec"]["domain"]["resources"]["requests"]["cpu"] == "2"


def test_bridge_on_the_pod_network_can_be_forbidden():
    vmi = default(talk_vmi())
    assert not validate(vmi)
    causes = validate(vmi, Context(ClusterConfiguration(permit_bridge_on_pod_network=False)))
    assert {(cause.message, cause.field) for cause in causes} == {
        (
            "Bridge on pod network configuration is not enabled under kubevirt-config",
            "spec.domain.devices.interfaces[0].name",
        )
    }


def test_bridge_by_default_can_be_forbidden():
    forbidden = Context(ClusterConfiguration(permit_bridge_on_pod_network=False))
    vmi, vm = talk_vmi(), talk_vm()
    for spec in (vmi["spec"], vm["spec"]["template"]["spec"]):
        del spec["networks"], spec["domain"]["devices"]["interfaces"]
    for judge in (lambda: default(vmi, forbidden), lambda: vms.validate(vm, forbidden)):
        with pytest.raises(Refusal, match="bridge interface is not enabled in kubevirt-config") as refusal:
            judge()
        assert refusal.value.code == 400
    put(vmi, "spec.domain.devices.autoattachPodInterface", False)
    assert validate(default(vmi, forbidden), forbidden) == []
    masquerade = Context(
        ClusterConfiguration(permit_bridge_on_pod_network=False, default_network_interface="masquerade")
    )
    assert vms.validate(vm, masquerade) == []


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("configuration.developerConfiguration.cpuAllocationRatio", 0, "must be greater than 0, not 0"),
        ("configuration.developerConfiguration.memoryOvercommit", -5, "must be greater than 0, not -5"),
        ("configuration.network.defaultNetworkInterface", "slirp", "must be one of bridge, masquerade"),
        ("configuration.machineType", "pc", "spec.configuration.machineType is not supported: pc"),
        ("configuration.imagePullPolicy", "Sometimes", "must be one of Always, IfNotPresent, Never"),
        ("configuration.cpuRequest", "-1", "must not be negative"),
        ("configuration.cpuRequest", "much", "spec.configuration.cpuRequest"),
        ("configuration.migrations", {"progressTimeout": "1m"}, "progressTimeout must be of type integer"),
        ("infra", {"replicas": 300}, "spec.infra.replicas must be between 0 and 255"),
        ("infra", {"nodePlacement": {"tolerations": {}}}, "spec.infra.nodePlacement.tolerations must be of type array"),
        ("configuration.smbios", {"sku": 1}, "spec.configuration.smbios.sku must be of type string"),
        ("uninstallStrategy", "Never", "must be one of BlockUninstallIfWorkloadsExist, RemoveWorkloads"),
        ("configuration.developerConfiguration", [], "must be of type object"),
        ("workloadUpdateStrategy", {"workloadUpdateMethods": ["Evict", "Kill"]}, "must be one of LiveMigrate, Evict"),
        ("workloadUpdateStrategy", {"batchEvictionSize": -1}, "must not be negative: -1"),
        ("workloadUpdateStrategy", {"batchEvictionInterval": "soon"}, "'soon' is not a duration"),
        ("workloadUpdateStrategy", {"batchEvictionInterval": "-5s"}, "must not be negative: -5s"),
    ],
)
def test_what_is_refused(path, value, words):
    (cause,) = validate_kubevirt(put(kubevirt(), f"spec.{path}", value))
    assert words in cause.message
    assert cause.field.startswith("spec.")


_PROFILE = "spec.configuration.seccompConfiguration.virtualMachineInstanceProfile.customProfile"
_TLS = "spec.configuration.tlsConfiguration"


@pytest.mark.parametrize(
    ("path", "value", "causes"),
    [
        ("configuration.additionalGuestMemoryOverheadRatio", "1.5", []),
        (
            "configuration.additionalGuestMemoryOverheadRatio",
            "0.5",
            [("FieldValueNotSupported", "ratio provided, 0.5, cannot be smaller than 1.0", "")],
        ),
        (
            "configuration.additionalGuestMemoryOverheadRatio",
            "much",
            [
                (
                    "FieldValueNotSupported",
                    'ratio provided, much, cannot be parsed into float: strconv.ParseFloat: parsing "much": invalid '
                    "syntax",
                    "",
                )
            ],
        ),
        ("infra", {"replicas": 0}, [("FieldValueInvalid", "infra replica count can't be 0", "")]),
        (
            "configuration.developerConfiguration",
            {"featureGates": ["Root", "Sidecar"], "disabledFeatureGates": ["Sidecar"]},
            [
                (
                    "FieldValueForbidden",
                    'feature gate "Sidecar" exists on both "FeatureGates" and "DisabledFeatureGates"',
                    "spec.configuration.developerConfiguration.featureGates",
                )
            ],
        ),
        ("configuration.tlsConfiguration", {"minTLSVersion": "VersionTLS13"}, []),
        (
            "configuration.tlsConfiguration",
            {"minTLSVersion": "VersionTLS12", "ciphers": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]},
            [],
        ),
        (
            "configuration.tlsConfiguration",
            {"ciphers": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]},
            [
                (
                    "FieldValueNotSupported",
                    f"You cannot specify ciphers when {_TLS}.minTLSVersion is empty or VersionTLS13",
                    f"{_TLS}.ciphers",
                )
            ],
        ),
        (
            "configuration.tlsConfiguration",
            {"minTLSVersion": "VersionTLS12", "ciphers": ["TLS_AES_128_GCM_SHA256", "NULL"]},
            [("FieldValueNotSupported", "NULL is not a valid cipher", f"{_TLS}.ciphers#1")],
        ),
        ("configuration.seccompConfiguration", {}, []),
        (
            "configuration.seccompConfiguration.virtualMachineInstanceProfile",
            {},
            [("FieldValueInvalid", f"{_PROFILE} needs to be set", _PROFILE)],
        ),
        (
            "configuration.seccompConfiguration.virtualMachineInstanceProfile.customProfile",
            {"localhostProfile": "x.json", "runtimeDefaultProfile": True},
            [
                (
                    "FieldValueInvalid",
                    f"{_PROFILE}.localhostProfile cannot be set when {_PROFILE}.runtimeDefaultProfile is set",
                    f"{_PROFILE}.localhostProfile",
                ),
                (
                    "FieldValueInvalid",
                    f"{_PROFILE}.runtimeDefaultProfile cannot be set when {_PROFILE}.localhostProfile is set",
                    f"{_PROFILE}.runtimeDefaultProfile",
                ),
            ],
        ),
        (
            "customizeComponents.patches",
            [
                {"resourceName": "virt-api", "resourceType": "Deployment", "type": "merge", "patch": text}
                for text in ("{}", '{"a')
            ],
            [("FieldValueNotSupported", 'patch "{\\"a" is not valid JSON', "")],
        ),
    ],
)
def test_what_kubevirt_refuses_is_refused_with_its_words(path, value, causes):
    assert validate_kubevirt(put(kubevirt(), f"spec.{path}", value)) == [Cause(*each) for each in causes]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("configuration.selinuxLauncherType", "t"),
        ("configuration.developerConfiguration.logVerbosity.nodeVerbosity", {"n": 3}),
        ("configuration.tlsConfiguration", {"minTLSVersion": "VersionTLS12"}),
        ("configuration.instancetype", {"referencePolicy": "expand"}),
        ("configuration.apiConfiguration", {"restClient": {"rateLimiter": {"tokenBucketRateLimiter": {"qps": 1}}}}),
        ("workloads.replicas", 3),
        ("imageTag", "v1.9.0"),
    ],
)
def test_what_has_no_effect_is_taken_with_a_warning(path, value):
    found = put(kubevirt(), f"spec.{path}", value)
    assert validate_kubevirt(found) == []
    assert warnings_kubevirt(found) == [f"spec.{path} has no effect in this engine"]


def self_signed(**found):
    return put(kubevirt(), "spec.certificateRotateStrategy.selfSigned", found)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({}, (365 * 24, 73 * 24, 30 * 24, 6 * 24)),
        # Those of an object that HyperConverged writes
        (
            {
                "ca": {"duration": "48h0m0s", "renewBefore": "24h0m0s"},
                "server": {"duration": "24h0m0s", "renewBefore": "12h0m0s"},
            },
            (48, 24, 24, 12),
        ),
        ({"ca": {"duration": "100h"}}, (100, 20, 100, 20)),
        ({"server": {"duration": "10h"}}, (365 * 24, 73 * 24, 10, 2)),
        ({"caRotateInterval": "168h", "caOverlapInterval": "24h", "certRotateInterval": "24h"}, (168, 24, 24, 4.8)),
    ],
)
def test_certificates_live_as_long_as_they_should(strategy, expected):
    assert validate_kubevirt(self_signed(**strategy)) == []
    found = from_kubevirt(self_signed(**strategy)).rotation
    lifetimes = (found.authority, found.authority_rest, found.serving, found.serving_rest)
    assert tuple(each / timedelta(hours=1) for each in lifetimes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("strategy", "field", "words"),
    [
        ({"ca": {"duration": "1d"}}, "ca.duration", "'1d' is not a duration; one looks like 24h or 1h30m"),
        ({"ca": {"renewBefore": "soon"}}, "ca.renewBefore", "'soon' is not a duration"),
        ({"server": {"duration": "h5"}}, "server.duration", "'h5' is not a duration"),
        ({"server": {"duration": "-5h"}}, None, "Cert RenewBefore cannot exceed Duration ("),
        ({"server": {"duration": "1m"}}, "server.duration", "must be at least 0:10:00"),
        ({"server": {"duration": "1h", "renewBefore": "1h"}}, "server.renewBefore", "must be less than"),
        ({"server": {"duration": "1h", "renewBefore": "1s"}}, "server.renewBefore", "must be at least 0:02:00"),
        ({"ca": {"duration": "1h", "renewBefore": "2h"}}, None, "CA RenewBefore cannot exceed Duration ("),
        ({"server": {"duration": "1h", "renewBefore": "2h"}}, None, "Cert RenewBefore cannot exceed Duration ("),
        ({"ca": {"duration": "9h"}, "server": {"duration": "10h"}}, None, "Certificate duration cannot exceed CA ("),
        ({"caRotateInterval": "9h", "server": {"duration": "5h"}}, None, "caRotateInterval, certRotateInterval and"),
    ],
)
def test_lifetimes_that_make_no_sense_are_refused(strategy, field, words):
    (cause,) = validate_kubevirt(self_signed(**strategy))
    assert cause.field == (f"spec.certificateRotateStrategy.selfSigned.{field}" if field else "")
    assert words in cause.message


def test_settings_of_migrations():
    found = configured("migrations", {"parallelMigrationsPerCluster": 7, "bandwidthPerMigration": "64Mi"})
    assert validate_kubevirt(found) == warnings_kubevirt(found) == []
    settings = from_kubevirt(found).migrations
    assert (settings.parallel_per_cluster, settings.bandwidth) == (7, 64 << 20)
    assert (settings.parallel_outbound_per_node, settings.completion_timeout_per_gib) == (2, 150)
    assert from_kubevirt(configured("migrations", {"allowPostCopy": True})).migrations.allow_workload_disruption
    (warning,) = warnings_kubevirt(configured("migrations", {"disableTLS": True, "progressTimeout": 5}))
    assert warning == "spec.configuration.migrations.disableTLS has no effect in this engine"


def test_gates_without_an_effect_are_accepted_with_a_warning_that_names_them():
    developer = {"featureGates": ["Snapshot", "ImageVolume", "Mine"], "disabledFeatureGates": ["Template"]}
    found = configured("developerConfiguration", developer)
    assert validate_kubevirt(found) == []
    on, off = warnings_kubevirt(found)
    assert "developerConfiguration.featureGates has no effect for Mine, Snapshot:" in on
    assert "developerConfiguration.disabledFeatureGates has no effect for Template:" in off
    for key in developer:
        assert warnings_kubevirt(configured("developerConfiguration", {key: ["ImageVolume"]})) == []


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({}, WorkloadUpdates()),
        ({"workloadUpdateMethods": ["LiveMigrate"]}, WorkloadUpdates(migrate=True)),
        (
            {"workloadUpdateMethods": ["Evict"], "batchEvictionSize": 2, "batchEvictionInterval": "1m30s"},
            WorkloadUpdates(evict=True, batch_size=2, batch_interval=90.0),
        ),
        ({"batchEvictionSize": 0, "batchEvictionInterval": "soon"}, WorkloadUpdates(batch_size=0)),
    ],
)
def test_how_running_machines_get_a_new_launcher(strategy, expected):
    assert from_kubevirt(kubevirt(workloadUpdateStrategy=strategy)).workload_updates == expected


def test_guests_see_what_smbios_is_told_and_kubevirts_values_otherwise():
    assert from_kubevirt(None).smbios == {"manufacturer": "KubeVirt", "product": "None", "family": "KubeVirt"}
    found = from_kubevirt(configured("smbios", {"manufacturer": "Example", "sku": "1", "product": ""}))
    assert found.smbios == {"manufacturer": "Example", "product": "None", "family": "KubeVirt", "sku": "1"}


@pytest.mark.parametrize("path", ["workloadUpdateStrategy", "configuration.permittedHostDevices", "imageTag"])
def test_what_asks_for_nothing_is_accepted(path):
    value = "" if path == "imageTag" else {}
    assert validate_kubevirt(put(kubevirt(), f"spec.{path}", value)) == []


def test_neutral_keys_of_kubevirts_own_example_are_accepted():
    example = kubevirt(
        certificateRotateStrategy={},
        configuration={"developerConfiguration": {"featureGates": []}},
        customizeComponents={},
        imagePullPolicy="IfNotPresent",
        workloadUpdateStrategy={},
    )
    assert validate_kubevirt(example) == []


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.sampled_from(["", "bridge", "1", "pc", "300m"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*KUBEVIRT_SPEC.fields]), inner),
    max_leaves=8,
)


@given(_VALUES)
def test_validation_never_raises_and_what_it_admits_can_be_read(value):
    for candidate in (value, {"spec": value}, {"spec": {"configuration": value}}):
        if validate_kubevirt(candidate) == []:
            assert from_kubevirt(candidate).cpu_allocation_ratio > 0
