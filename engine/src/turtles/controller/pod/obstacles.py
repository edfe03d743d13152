# SPDX-License-Identifier: GPL-3.0-or-later
"""Why no Pod can be made for a machine that admission accepted: what only KubeVirt has, or the installation forbids.

Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api import hook_sidecars
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.devices import is_claimed
from turtles.api.kinds.vmi.validation import futile_causes
from turtles.api.language import UNSUPPORTED
from turtles.api.objects import Object
from turtles.controller.state_claims import keeps_tpm
from turtles.domain.definition import keeps_efi_variables

_WHERE = "spec.domain.devices"


def obstacles(vmi: Mapping[str, Any], cluster: ClusterConfiguration, doubles: Mapping[str, Object] = {}) -> list[str]:
    """Return what stands in the way of a VMI's Pod, each with the field and a remedy.

    :param doubles: other VMIs that have the MAC address of an interface on the same network, by the interface's name.
    """
    spec = vmi["spec"]
    devices = (spec.get("domain") or {}).get("devices") or {}
    return [
        *futile_causes(spec),
        *_networks(spec, devices, cluster),
        *_macs(vmi, devices, doubles),
        *_assigned(devices, cluster),
        *_kept(spec, cluster),
        *_sidecars(vmi["metadata"]),
    ]


def _sidecars(metadata: Mapping[str, Any]) -> Iterator[str]:
    try:
        hook_sidecars.read(metadata)
    except hook_sidecars.HookSidecarError as error:
        yield f"metadata.annotations.{hook_sidecars.ANNOTATION} {error}"


def _networks(spec: Mapping[str, Any], devices: Mapping[str, Any], cluster: ClusterConfiguration) -> Iterator[str]:
    for index, interface in enumerate(devices.get("interfaces") or ()):
        plugin = (interface.get("binding") or {}).get("name")
        if plugin is not None and plugin not in cluster.bindings:
            yield (
                f"{_WHERE}.interfaces[{index}].binding.name: no network binding plugin {plugin!r} registered; add it "
                "to spec.configuration.network.binding of the KubeVirt object, or use another binding"
            )
    absent = {each["name"] for each in devices.get("interfaces") or () if each.get("state") == "absent"}
    for index, network in enumerate(spec.get("networks") or ()):
        if network.get("resourceClaim") is not None and network["name"] not in absent:
            yield f"spec.networks[{index}].resourceClaim is {UNSUPPORTED}; use pod or multus"


def _macs(vmi: Mapping[str, Any], devices: Mapping[str, Any], doubles: Mapping[str, Object]) -> Iterator[str]:
    for index, interface in enumerate(devices.get("interfaces") or ()):
        if (other := doubles.get(interface["name"])) is None:
            continue
        metadata = other["metadata"]
        # Whoever may see this machine may not see those of other namespaces.
        own = metadata["namespace"] == vmi["metadata"]["namespace"]
        whose = f"VirtualMachineInstance {metadata['name']}" if own else "a VirtualMachineInstance in another namespace"
        yield (
            f"{_WHERE}.interfaces[{index}].macAddress: {whose} uses {interface.get('macAddress') or 'it'} on the same "
            "network; give one of them another MAC address, or stop the other machine"
        )


def _assigned(devices: Mapping[str, Any], cluster: ClusterConfiguration) -> Iterator[str]:
    permitted = None if cluster.permitted_devices is None else cluster.permitted_devices.resources
    for field, kind in (("gpus", "GPU"), ("hostDevices", "HostDevice")):
        for index, device in enumerate(devices.get(field) or ()):
            name = device.get("deviceName")
            if is_claimed(device):
                yield (
                    f"{_WHERE}.{field}[{index}].claimName: resource claims are {UNSUPPORTED}; use deviceName and a "
                    "device plugin"
                )
            elif permitted is not None and name not in permitted:
                yield f"{kind} {name} is not permitted in permittedHostDevices configuration"


def _kept(spec: Mapping[str, Any], cluster: ClusterConfiguration) -> Iterator[str]:
    if cluster.state_storage_class is not None:
        return
    for field, what, kept in (
        (f"{_WHERE}.tpm", "a TPM that lives", keeps_tpm(spec)),
        ("spec.domain.firmware.bootloader.efi", "variables that live", keeps_efi_variables(spec)),
    ):
        if kept:
            yield (
                f"{field}.persistent needs a claim: set spec.configuration.vmStateStorageClass of the KubeVirt "
                f"object, make a StorageClass the default one, or leave it out for {what} as long as the machine"
            )
