# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The high-level options of modules that declare machines, and the VirtualMachine they declare. Pure functions."""

from __future__ import annotations

import re

from ansible.module_utils.basic import env_fallback

from . import _catalogue, _cloud_init
from ._errors import KubeError
from ._metadata import ARGUMENTS as METADATA_ARGUMENTS
from ._metadata import texts_of
from ._values import is_number, plain, type_name
from ._vm_strategy import RUN_STRATEGIES, strategy_of

# Kubernetes API, resource.Quantity; memory and disks have no negative ones.
QUANTITY = re.compile(r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[munkMGTPE]|[eE][+-]?[0-9]+)?$")

# Fewer bytes than KubeVirt takes for the memory of a guest; who writes a smaller number thinks of another unit.
SMALLEST_MEMORY = 1000000

# What the machine is, however many of it there are to be.
MACHINE_ARGUMENTS = {
    **METADATA_ARGUMENTS,
    "memory": {"type": "str"},
    "cpu": {
        "type": "dict",
        "options": {
            "cores": {"type": "int"},
            "sockets": {"type": "int"},
            "threads": {"type": "int"},
            "model": {"type": "str"},
        },
    },
    "image": {"type": "str"},
    "image_catalogue": {"type": "path", "fallback": (env_fallback, ["TURTLES_IMAGE_CATALOGUE"])},
    "disks": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "image": {"type": "str"},
            "claim": {"type": "str"},
            "data_volume": {"type": "str"},
            "capacity": {"type": "str"},
            "type": {"type": "str", "choices": ["disk", "cdrom", "lun"], "default": "disk"},
            "bus": {"type": "str", "choices": ["virtio", "sata", "scsi", "usb"]},
            "boot_order": {"type": "int"},
            "serial": {"type": "str"},
            "read_only": {"type": "bool"},
        },
        "required_one_of": [("image", "claim", "data_volume", "capacity")],
        "mutually_exclusive": [("image", "claim", "data_volume", "capacity")],
    },
    "interfaces": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "binding": {"type": "str", "choices": ["bridge", "masquerade", "passt"], "default": "masquerade"},
            "network": {"type": "str"},
            "model": {"type": "str"},
            "mac_address": {"type": "str"},
            "boot_order": {"type": "int"},
            "ports": {"type": "list", "elements": "int"},
            "state": {"type": "str", "choices": ["up", "down", "absent"]},
        },
    },
    "cloud_init": {
        "type": "dict",
        "options": {
            "type": {"type": "str", "choices": ["nocloud", "configdrive"], "default": "nocloud"},
            "user_data": {"type": "raw"},
            "user_data_secret": {"type": "str", "no_log": False},
            "network_data": {"type": "raw"},
            "network_data_secret": {"type": "str", "no_log": False},
        },
        "mutually_exclusive": [("user_data", "user_data_secret"), ("network_data", "network_data_secret")],
    },
    "ssh_keys": {"type": "list", "elements": "str", "no_log": False},
    "hostname": {"type": "str"},
    "subdomain": {"type": "str"},
    "termination_grace_period": {"type": "int"},
    "node_selector": {"type": "dict"},
    "affinity": {"type": "dict"},
    "machine_type": {"type": "str"},
    "bootloader": {"type": "str", "choices": ["bios", "efi"]},
    "smbios_uuid": {"type": "str"},
    "hugepage_size": {"type": "str"},
    "headless": {"type": "bool"},
}
# What a VirtualMachine takes its size and its defaults from, and which kind a bare name means.
_MATCHERS = {"instancetype": "VirtualMachineClusterInstancetype", "preference": "VirtualMachineClusterPreference"}
_MATCHER_KEYS = {
    "name": "name",
    "kind": "kind",
    "revision_name": "revisionName",
    "infer_from_volume": "inferFromVolume",
    "infer_from_volume_failure_policy": "inferFromVolumeFailurePolicy",
}
# What a VirtualMachine has, and instances alone have not.
VIRTUAL_MACHINE_ARGUMENTS = {
    "data_volume_templates": {"type": "list", "elements": "dict"},
    **{option: {"type": "raw"} for option in _MATCHERS},
}
ARGUMENTS = {
    "run_strategy": {"type": "str", "choices": list(RUN_STRATEGIES)},
    "running": {"type": "bool"},
    **VIRTUAL_MACHINE_ARGUMENTS,
    **MACHINE_ARGUMENTS,
}


def cpu_of(params):
    """Return the processors that the option cpu declares, or None."""
    return _given(**(params.get("cpu") or {})) or None


def memory_of(params):
    """Return the amount that the option memory declares, or None.

    :raises KubeError: it is none.
    """
    memory = params.get("memory")
    if not memory:
        return None
    if is_number(memory) and int(memory) < SMALLEST_MEMORY:
        raise KubeError("memory: %s means bytes. Write a suffix: %sMi or %sGi." % (memory, memory, memory))
    return check_quantity("memory", memory)


def declare(params):
    """Return the part of a VirtualMachine (metadata and spec) that the high-level options in params declare.

    :raises KubeError: naming the option that is wrong.
    """
    disks, volumes = _disks(params)
    interfaces, networks = _interfaces(params)
    headless = params.get("headless")
    devices = _given(
        disks=disks or None,
        interfaces=interfaces,
        autoattachGraphicsDevice=None if headless is None else not headless,
    )
    machine_type = params.get("machine_type")
    domain = _given(
        cpu=cpu_of(params),
        memory=_memory(params),
        devices=devices or None,
        firmware=_firmware(params),
        machine={"type": machine_type} if machine_type else None,
    )
    grace = params.get("termination_grace_period")
    if grace is not None and grace < 0:
        raise KubeError("termination_grace_period: %d is negative; give seconds, or 0 for none" % grace)
    template = _given(
        affinity=plain(params.get("affinity")),
        domain=domain or None,
        hostname=params.get("hostname"),
        networks=networks,
        nodeSelector=texts_of(params, "node_selector"),
        subdomain=params.get("subdomain"),
        terminationGracePeriodSeconds=grace,
        volumes=volumes or None,
    )
    labels, annotations = (texts_of(params, option) for option in ("labels", "annotations"))
    metadata = _given(labels=labels, annotations=annotations)
    if metadata or template:
        template = _given(metadata=metadata or None, spec=template or None)
    spec = _given(
        runStrategy=params.get("run_strategy") or strategy_of({"running": params.get("running")}),
        dataVolumeTemplates=_data_volume_templates(params),
        template=template or None,
        **{option: _matcher(option, params.get(option)) for option in _MATCHERS},
    )
    return _given(metadata=metadata or None, spec=spec or None)


def _memory(params):
    """Return what the options memory and hugepage_size declare, or None."""
    size = params.get("hugepage_size")
    declared = _given(
        guest=memory_of(params), hugepages={"pageSize": check_quantity("hugepage_size", size)} if size else None
    )
    return declared or None


def _firmware(params):
    """Return what the options bootloader and smbios_uuid declare, or None."""
    loader = params.get("bootloader")
    # Secure boot, the API's default with EFI, needs features.smm as well, and system firmware that is signed.
    loaders = {"bios": {"bios": {}}, "efi": {"efi": {"secureBoot": False}}}
    return _given(bootloader=loaders.get(loader), uuid=params.get("smbios_uuid")) or None


def _data_volume_templates(params):
    """Return the option data_volume_templates, checked as far as disks and server need it."""
    templates = params.get("data_volume_templates")
    for number, template in enumerate(templates or []):
        if not ((template.get("metadata") or {}).get("name") and isinstance(template.get("spec"), dict)):
            raise KubeError(
                "data_volume_templates[%d]: metadata.name and spec are required, as in spec.dataVolumeTemplates of the "
                "KubeVirt API." % number
            )
    return plain(templates)


def _matcher(option, value):
    """Return what a VirtualMachine takes something from, or None. Nothing stays of what it took that from before."""
    if value is None:
        return None
    value = plain(value)
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        raise KubeError("%s: must be a name, or a mapping with name and kind, but is a %s" % (option, type_name(value)))
    # The API's own names do as well.
    names = {field: key for key, field in _MATCHER_KEYS.items()}
    value = {names.get(key, key): text for key, text in value.items()}
    unknown = sorted(set(map(str, value)) - set(_MATCHER_KEYS))
    if unknown:
        raise KubeError("%s.%s: no such option. The options are %s." % (option, unknown[0], ", ".join(_MATCHER_KEYS)))
    for key, text in value.items():
        if text is not None and not isinstance(text, str):
            raise KubeError("%s.%s: must be a string, but is a %s" % (option, key, type_name(text)))
    if not (value.get("name") or value.get("infer_from_volume")):
        raise KubeError("%s: name is missing. Give it, or infer_from_volume." % option)
    declared = {field: value.get(key) for key, field in _MATCHER_KEYS.items()}
    if declared["name"]:
        declared["kind"] = declared["kind"] or _MATCHERS[option]
    return declared


def _given(**members):
    return {name: value for name, value in members.items() if value is not None}


def check_quantity(option, value):
    """Return a quantity as the API has it. Checked here because the server would answer with a pattern."""
    if not QUANTITY.match(value):
        raise KubeError("%s: %r isn't a quantity. Write bytes, with a suffix such as 512Mi or 2Gi." % (option, value))
    return value


def _disks(params):
    disks, volumes = [], []
    images = _catalogue.read(params.get("image_catalogue"))
    if params.get("image"):
        image = _catalogue.container_disk("image", params["image"], images)
        disks.append({"name": "containerdisk", "disk": {"bus": "virtio"}})
        volumes.append({"name": "containerdisk", "containerDisk": {"image": image}})
    for number, disk in enumerate(params.get("disks") or []):
        kind = disk.get("type") or "disk"
        # A guest's firmware and kernel find a CD-ROM on SATA without a further driver.
        target = _given(
            bus=disk.get("bus") or ("sata" if kind == "cdrom" else "virtio"), readonly=disk.get("read_only")
        )
        disks.append(
            _given(name=disk["name"], bootOrder=disk.get("boot_order"), serial=disk.get("serial"), **{kind: target})
        )
        volume = {"name": disk["name"]}
        if disk.get("image"):
            image = _catalogue.container_disk("disks[%d].image" % number, disk["image"], images)
            volume["containerDisk"] = {"image": image}
        elif disk.get("claim"):
            volume["persistentVolumeClaim"] = {"claimName": disk["claim"]}
        elif disk.get("data_volume"):
            volume["dataVolume"] = {"name": disk["data_volume"]}
        else:
            volume["emptyDisk"] = {"capacity": check_quantity("disks.capacity", disk["capacity"])}
        volumes.append(volume)
    seed = _seed(params)
    if seed:
        disks.append({"name": "cloudinitdisk", "disk": {"bus": "virtio"}})
        volumes.append({"name": "cloudinitdisk", **seed})
    _unique("disks", [disk["name"] for disk in disks])
    return disks, volumes


# Fields of bindings whose names are others.
_BINDINGS = {"passt": "passtBinding"}


def _interfaces(params):
    if params.get("interfaces") is None:
        return None, None
    interfaces, networks = [], []
    for interface in params["interfaces"]:
        interfaces.append(
            _given(
                name=interface["name"],
                model=interface.get("model"),
                macAddress=interface.get("mac_address"),
                bootOrder=interface.get("boot_order"),
                ports=[{"port": port} for port in interface["ports"]] if interface.get("ports") else None,
                state=interface.get("state"),
                **{_BINDINGS.get(interface.get("binding"), interface.get("binding") or "masquerade"): {}},
            )
        )
        network = interface.get("network")
        networks.append(
            {"name": interface["name"], **({"multus": {"networkName": network}} if network else {"pod": {}})}
        )
    _unique("interfaces", [interface["name"] for interface in interfaces])
    return interfaces, networks


def forget_unplugged(template, live):
    """Remove interfaces from a template's spec that are to be absent, and aren't in the live one (or None).

    The server removes an interface from the template once it is unplugged; declared again, it is no difference.
    """
    devices = (template.get("domain") or {}).get("devices") or {}
    there = (((live or {}).get("domain") or {}).get("devices") or {}).get("interfaces") or []
    known = {interface.get("name") for interface in there}
    gone = {
        interface.get("name")
        for interface in devices.get("interfaces") or []
        if interface.get("state") == "absent" and interface.get("name") not in known
    }
    if gone:
        devices["interfaces"] = [each for each in devices["interfaces"] if each.get("name") not in gone]
        template["networks"] = [each for each in template.get("networks") or [] if each.get("name") not in gone]


def _unique(option, names):
    for name in names:
        if names.count(name) > 1:
            raise KubeError("%s: the name %s is used more than once. Give each entry a unique name." % (option, name))


def _seed(params):
    """Return the volume source of the cloud-init seed, or None."""
    options = params.get("cloud_init") or {}
    user_data = options.get("user_data")
    if params.get("ssh_keys"):
        if options.get("user_data_secret"):
            raise KubeError("ssh_keys and cloud_init.user_data_secret can't be combined. Put the keys in the Secret.")
        user_data = _cloud_init.with_keys("cloud_init.user_data", user_data, params["ssh_keys"])
    else:
        user_data = _cloud_init.with_normal_keys("cloud_init.user_data", user_data)
    header = _cloud_init.CLOUD_CONFIG + "\n"
    source = _given(
        userData=_cloud_init.as_text("cloud_init.user_data", user_data, header),
        secretRef=_reference(options.get("user_data_secret")),
        networkData=_cloud_init.as_text("cloud_init.network_data", options.get("network_data"), ""),
        networkDataSecretRef=_reference(options.get("network_data_secret")),
    )
    if not source:
        return None
    return {"cloudInitConfigDrive" if options.get("type") == "configdrive" else "cloudInitNoCloud": source}


def _reference(name):
    return {"name": name} if name else None
