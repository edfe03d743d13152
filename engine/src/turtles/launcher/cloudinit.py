# SPDX-License-Identifier: GPL-3.0-or-later
"""cloud-init seeds: the NoCloud and ConfigDrive images (ISO 9660) made of a volume's data.

Sources: cloud-init's documentation of both data sources, and the KubeVirt user guide, "Startup scripts".
"""

import base64
import binascii
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pycdlib

from turtles.api.guests import hostname
from turtles.domain import paths
from turtles.domain.definition.host_devices import USB_PREFIX, variable
from turtles.launcher import credentials
from turtles.launcher.errors import LaunchError

#: Far more than any cloud accepts as user data; keeps a mistake from filling the node.
MAX_DATA_BYTES = 16 * 1024 * 1024
#: What Joliet has room for: characters of a volume's label, and of a name.
_JOLIET_LABEL, _JOLIET_NAME = 16, 64
_NO_LINE_BREAKS = {ord("\r"): None, ord("\n"): None}


def instance_id(name: str, namespace: str) -> str:
    """Return the instance id of a VMI: the same after every start, so that cloud-init runs per-instance work once."""
    return f"{name}.{namespace}"


#: Changes KubeVirt's CloudInitData.
Hook = Callable[[dict[str, Any]], Mapping[str, Any]]


def seed_files(
    volume: Mapping[str, Any], vmi: Mapping[str, Any], root: Path = Path("/"), hook: Hook | None = None
) -> dict[str, bytes]:
    """Return the files of a cloud-init *volume*'s seed by their path in it.

    :param volume: an entry of ``spec.volumes`` with cloudInitNoCloud or cloudInitConfigDrive.
    :param vmi: the VMI; its metadata's name, namespace and uid and its spec's hostname are used.
    :param root: where the mounted Secrets are looked for (tests).
    :param hook: has the last word about the data.
    :raises LaunchError: if data is not base64, a Secret lacks its key, or there is too much data.
    """
    kind = "cloudInitNoCloud" if "cloudInitNoCloud" in volume else "cloudInitConfigDrive"
    source, name = volume[kind] or {}, volume["name"]
    user = _data(
        name, kind, source, ("userData", "userDataBase64", "secretRef"), paths.cloud_init_user_data_dir(name), root
    )
    network = _data(
        name,
        kind,
        source,
        ("networkData", "networkDataBase64", "networkDataSecretRef"),
        paths.cloud_init_network_data_dir(name),
        root,
    )
    metadata = vmi["metadata"]
    identity, host = instance_id(metadata["name"], metadata["namespace"]), hostname(vmi)
    files: dict[str, bytes]
    meta: dict[str, Any]
    if kind == "cloudInitNoCloud":
        # user-data must be there, even if empty, or the data source doesn't count as present.
        meta = {"instance-id": identity, "local-hostname": host}
        if keys := credentials.seed_keys(vmi["spec"], "noCloud", root):
            meta["public-keys"] = keys
        if hook is not None:
            meta, user, network = _hooked(hook, name, "noCloud", meta, user, network)
        files = {"meta-data": json.dumps(meta).encode(), "user-data": user or b""}
        if network is not None:
            files["network-config"] = network
        return files
    meta = {
        "instance_id": identity,
        "local_hostname": host,
        "hostname": host,
        "uuid": (vmi["spec"].get("domain", {}).get("firmware") or {}).get("uuid") or metadata["uid"],
    }
    if keys := credentials.seed_keys(vmi["spec"], "configDrive", root):
        meta["public_keys"] = keys
    spec = vmi["spec"]
    if devices := [*_tagged_interfaces(spec), *_tagged_disks(spec), *_tagged_host_devices(spec, os.environ)]:
        meta["devices"] = devices
    if hook is not None:
        meta, user, network = _hooked(hook, name, "configDrive", meta, user, network)
    files = {"openstack/latest/meta_data.json": json.dumps(meta).encode()}
    if user is not None:
        files["openstack/latest/user_data"] = user
    if network is not None:
        files["openstack/latest/network_data.json"] = network
    return files


def _hooked(
    hook: Hook, volume: str, source: str, meta: dict[str, Any], user: bytes | None, network: bytes | None
) -> tuple[dict[str, Any], bytes | None, bytes | None]:
    """Return meta-data, user data and network data after a hook has had them.

    :raises LaunchError: if the data is no text, as hooks have it, or what they return isn't any.
    """
    try:
        texts = {"UserData": (user or b"").decode(), "NetworkData": (network or b"").decode()}
    except UnicodeDecodeError as error:
        raise LaunchError(f"volume {volume!r}: its data isn't text, which hook sidecars require: {error}") from error
    field = "NoCloudMetaData" if source == "noCloud" else "ConfigDriveMetaData"
    seed = hook({"DataSource": source, **texts, "VolumeName": volume, "DevicesData": None, field: meta})
    results = [seed.get(key) or "" for key in texts]
    metadata = seed.get(field) or meta
    if not all(isinstance(text, str) for text in results) or not isinstance(metadata, dict):
        raise LaunchError(f"volume {volume!r}: a hook sidecar returned something other than cloud-init data")
    encoded = [text.encode(errors="replace") for text in results]
    if sum(map(len, encoded)) > MAX_DATA_BYTES:
        raise LaunchError(f"volume {volume!r}: a hook sidecar returned more than {MAX_DATA_BYTES} bytes of data")
    return metadata, encoded[0] or None, encoded[1] or None


def _tagged_disks(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the device metadata (OpenStack's "Device tagging") of those disks that have a tag."""
    tagged = []
    for disk in (spec.get("domain") or {}).get("devices", {}).get("disks") or ():
        if not disk.get("tag"):
            continue
        target: Mapping[str, Any] = next((disk[kind] for kind in ("disk", "cdrom", "lun") if disk.get(kind)), {})
        entry = {"type": "disk", "bus": target.get("bus") or "sata", "tags": [disk["tag"]]}
        if target.get("pciAddress"):
            entry |= {"bus": "pci", "address": target["pciAddress"]}
        if disk.get("serial"):
            entry["serial"] = disk["serial"]
        tagged.append(entry)
    return tagged


def _tagged_interfaces(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the interfaces with a tag, as OpenStack's metadata has them; what the guest chooses itself is left out."""
    interfaces = (spec.get("domain", {}).get("devices") or {}).get("interfaces") or ()
    return [
        {
            "type": "nic",
            "bus": "pci",
            **({"address": interface["pciAddress"]} if interface.get("pciAddress") else {}),
            **({"mac": interface["macAddress"]} if interface.get("macAddress") else {}),
            "tags": [interface["tag"]],
        }
        for interface in interfaces
        if interface.get("tag")
    ]


def _tagged_host_devices(spec: Mapping[str, Any], environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the GPUs and host devices that have a tag, as KubeVirt describes them, with the bus they are on.

    :param environment: in which device plugins say what kind of device they gave.
    """
    devices = (spec.get("domain") or {}).get("devices") or {}
    return [
        {
            "type": "hostdev",
            "bus": "usb" if variable(USB_PREFIX, device.get("deviceName") or "") in environment else "pci",
            "tags": [device["tag"]],
        }
        for device in (*(devices.get("gpus") or ()), *(devices.get("hostDevices") or ()))
        if device.get("tag")
    ]


def _data(
    volume: str, kind: str, source: Mapping[str, Any], fields: tuple[str, str, str], directory: Any, root: Path
) -> bytes | None:
    """Return the data that one of three *fields* gives (inline, base64, Secret), None if none of them is there.

    Whatever is empty counts as absent, as it does in admission.
    """
    inline, encoded, secret = fields
    secret_name = (source.get(secret) or {}).get("name")
    data: bytes | None = None
    if source.get(inline):
        data = str(source[inline]).encode()
    elif source.get(encoded):
        try:
            # Line breaks are how base64 is usually wrapped; anything else that isn't of the alphabet is a mistake.
            data = base64.b64decode(str(source[encoded]).translate(_NO_LINE_BREAKS), validate=True)
        except (binascii.Error, ValueError) as error:
            raise LaunchError(f"volume {volume!r}: {kind}.{encoded} is not valid base64 ({error})") from error
    elif secret_name:
        key = inline.lower()
        folder = root / str(directory).lstrip("/")
        file = next((folder / name for name in (key, inline) if (folder / name).is_file()), None)
        if file is None:
            raise LaunchError(
                f"volume {volume!r}: Secret {secret_name!r} of {kind}.{secret} has neither the key "
                f"{key!r} nor {inline!r}; add one of them to the Secret"
            )
        data = file.read_bytes()
    if data is not None and len(data) > MAX_DATA_BYTES:
        raise LaunchError(
            f"volume {volume!r}: {len(data)} bytes of {inline} are more than the {MAX_DATA_BYTES} that are accepted"
        )
    return data


def render_seed(label: str, files: Mapping[str, bytes]) -> bytes:
    """Return the ISO 9660 image with volume *label* that holds *files* (path in the image → content).

    Names are kept by Joliet, where they and the label fit into it, and Rock Ridge; the ISO 9660 names below are mere
    placeholders.
    """
    image = pycdlib.PyCdlib()
    fits = len(label) <= _JOLIET_LABEL and all(len(part) <= _JOLIET_NAME for name in files for part in name.split("/"))
    image.new(interchange_level=3, joliet=3 if fits else None, rock_ridge="1.09", vol_ident=label)
    folders: dict[str, str] = {"": ""}
    for number, (name, content) in enumerate(files.items()):
        *parents, base = name.split("/")
        for depth in range(1, len(parents) + 1):
            folder = "/".join(parents[:depth])
            if folder not in folders:
                above = folders["/".join(parents[: depth - 1])]
                folders[folder] = f"{above}/D{len(folders)}"
                image.add_directory(
                    folders[folder], rr_name=parents[depth - 1], joliet_path=f"/{folder}" if fits else None
                )
        iso_path = f"{folders['/'.join(parents)]}/F{number}.;1"
        image.add_fp(
            io.BytesIO(content), len(content), iso_path, rr_name=base, joliet_path=f"/{name}" if fits else None
        )
    buffer = io.BytesIO()
    image.write_fp(buffer)
    image.close()
    return buffer.getvalue()


def make_seed(
    volume: Mapping[str, Any], vmi: Mapping[str, Any], root: Path = Path("/"), hook: Hook | None = None
) -> Path:
    """Write the seed of a cloud-init *volume* to where its disk expects it; return that path.

    :param hook: as of :func:`seed_files`.

    :raises LaunchError: see :func:`seed_files`.
    :raises OSError: if it can't be written.
    """
    if "cloudInitNoCloud" in volume:
        target, label = paths.cloud_init_no_cloud_seed(volume["name"]), "cidata"
    else:
        target, label = paths.cloud_init_config_drive_seed(volume["name"]), "config-2"
    path = root / str(target).lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # it may hold passwords
    path.write_bytes(render_seed(label, seed_files(volume, vmi, root, hook)))
    return path
