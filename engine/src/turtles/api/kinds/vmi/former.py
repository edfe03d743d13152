# SPDX-License-Identifier: GPL-3.0-or-later
"""What to write today instead of what KubeVirt no longer has: words for those whose manifests are from its early years.

The API server drops fields that a schema doesn't name, so it is what is missing that tells.
"""

from __future__ import annotations

from typing import Any

from turtles.api.objects import get

_BINDINGS = {"slirp": "masquerade: {}", "passt": "passtBinding: {}", "macvtap": "a network binding plugin"}


def remedies(spec: Any, path: str) -> list[str]:
    """Return what to write instead in the spec at `path` of an instance or of a template of one.

    :param spec: of an object that is refused; it may have any shape.
    """
    found = []
    for index, volume in enumerate(_objects(spec, "volumes")):
        if not any(value is not None for key, value in volume.items() if key != "name"):
            found.append(
                f"{path}.volumes[{index}] has no source. If it is a registryDisk, as KubeVirt called them before 0.12, "
                "write containerDisk with the same image"
            )
    for index, network in enumerate(_objects(spec, "networks")):
        if not any(value is not None for key, value in network.items() if key != "name"):
            found.append(
                f"{path}.networks[{index}] has no type. If it is one of genie, which KubeVirt had until 0.28, write "
                "multus with the networkName of a NetworkAttachmentDefinition, or pod: {}"
            )
    # A list: a name may be of any type
    names = [volume.get("name") for volume in _objects(spec, "volumes")]
    for index, disk in enumerate(_objects(spec, "domain", "devices", "disks")):
        if disk.get("name") not in names:
            found.append(
                f"{path}.domain.devices.disks[{index}] belongs to the volume of its own name; volumeName, which "
                "KubeVirt had before 0.13, is dropped. Give disk and volume the same name"
            )
    for index, interface in enumerate(_objects(spec, "domain", "devices", "interfaces")):
        found += [
            f"{path}.domain.devices.interfaces[{index}]: instead of {binding} write {today}"
            for binding, today in _BINDINGS.items()
            if interface.get(binding) is not None
        ]
    return found


def of_instance(vmi: Any) -> list[str]:
    """Return what to write instead in a VirtualMachineInstance."""
    return remedies(get(vmi, "spec"), "spec")


def of_template(obj: Any) -> list[str]:
    """Return what to write instead in what has a template of instances, such as a VirtualMachine."""
    return remedies(get(obj, "spec", "template", "spec"), "spec.template.spec")


def _objects(spec: Any, *path: str) -> list[dict[str, Any]]:
    found = get(spec, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
