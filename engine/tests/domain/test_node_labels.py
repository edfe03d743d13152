# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

from turtles.domain import node_labels

DOMAIN = """<domainCapabilities><domain>kvm</domain><cpu>
<mode name='host-model' supported='yes'><model fallback='forbid'>Skylake-Client-IBRS</model><vendor>Intel</vendor>
<feature policy='require' name='ss'/><feature policy='disable' name='mpx'/></mode>
<mode name='custom' supported='yes'><model usable='yes'>Haswell</model><model usable='no'>EPYC</model>
<model usable='yes'>qemu64</model><model usable='yes'>Odd name</model></mode></cpu></domainCapabilities>"""
HOST = """<capabilities><host><cpu><counter name='tsc' frequency='2400000000' scaling='yes'/></cpu></host>
<guest><arch name='x86_64'><machine maxCpus='255'>pc-i440fx-7.2</machine>
<machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine><machine>pc-q35-6.0</machine></arch></guest>
<guest><arch name='i686'><machine>pc-q35-2.4</machine></arch></guest></capabilities>"""
FEATURES = (
    "<cpu mode='custom'><model>x</model><feature policy='require' name='avx2'/><feature policy='disable' "
    "name='hle'/></cpu>"
)
MACHINES = {f"machine-type.node.kubevirt.io/{name}": "true" for name in ("q35", "pc-q35-7.2", "pc-q35-6.0")}


def test_a_node_with_kvm() -> None:
    assert node_labels.probed(DOMAIN, HOST, FEATURES, kvm=True) == {
        **MACHINES,
        "host-model-cpu.node.kubevirt.io/Skylake-Client-IBRS": "true",
        "cpu-model-migration.node.kubevirt.io/Skylake-Client-IBRS": "true",
        "cpu-vendor.node.kubevirt.io/Intel": "true",
        "host-model-required-features.node.kubevirt.io/ss": "true",
        "cpu-feature.node.kubevirt.io/ss": "true",
        "cpu-feature.node.kubevirt.io/avx2": "true",
        "cpu-model.node.kubevirt.io/Haswell": "true",
        "cpu-model-migration.node.kubevirt.io/Haswell": "true",
        "cpu-timer.node.kubevirt.io/tsc-frequency": "2400000000",
        "cpu-timer.node.kubevirt.io/tsc-scalable": "true",
        "scheduling.node.kubevirt.io/tsc-frequency-2400000000": "true",
    }


def test_an_emulator_needs_no_certain_node() -> None:
    assert node_labels.probed(DOMAIN, HOST, FEATURES, kvm=False) == MACHINES


def test_nothing_known() -> None:
    assert node_labels.probed("", "", "", kvm=True) == {}


@pytest.mark.parametrize(
    ("vendor", "label"), [("GenuineIntel", "Intel"), ("AuthenticAMD", "AMD"), ("HygonGenuine", "HygonGenuine")]
)
def test_static(vendor: str, label: str) -> None:
    found = node_labels.static(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    assert found == {f"cpu-vendor.node.kubevirt.io/{label}": "true", "machine-type.node.kubevirt.io/q35": "true"}
