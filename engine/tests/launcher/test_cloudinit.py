# SPDX-License-Identifier: GPL-3.0-or-later
"""cloud-init seeds, read back with pycdlib."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from turtles.api import guests
from turtles.domain import credentials, paths
from turtles.launcher import cloudinit
from turtles.launcher.errors import LaunchError

from .conftest import VMI_UID, make_vmi


def read(path: Path, name: str, kind: str = "rr_path") -> bytes:
    image = pycdlib.PyCdlib()
    image.open(str(path))
    buffer = io.BytesIO()
    image.get_file_from_iso_fp(buffer, **{kind: f"/{name}"})
    image.close()
    return buffer.getvalue()


def label(path: Path) -> str:
    image = pycdlib.PyCdlib()
    image.open(str(path))
    identifier = image.pvd.volume_identifier.decode().strip()
    image.close()
    return identifier


def make(root: Path, kind: str, source: dict[str, Any], **spec: Any) -> Path:
    return cloudinit.make_seed({"name": "seed", kind: source}, make_vmi(**spec), root)


def secret(root: Path, folder: Any, key: str, content: bytes) -> None:
    directory = root / str(folder).lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / key).write_bytes(content)


def test_no_cloud(tmp_path):
    path = make(tmp_path, "cloudInitNoCloud", {"userData": "#cloud-config\n", "networkData": "version: 2\n"})
    assert path == tmp_path / str(paths.cloud_init_no_cloud_seed("seed")).lstrip("/")
    assert label(path) == "cidata"
    for kind in ("rr_path", "joliet_path"):
        assert read(path, "user-data", kind) == b"#cloud-config\n"
        assert read(path, "network-config", kind) == b"version: 2\n"
        assert json.loads(read(path, "meta-data", kind)) == {
            "instance-id": "testvm.default",
            "local-hostname": "testvm",
        }
    assert path.stat().st_mode & 0o077 == 0


def test_config_drive(tmp_path):
    path = make(
        tmp_path, "cloudInitConfigDrive", {"userData": "#!/bin/sh\n", "networkData": '{"links": []}'}, hostname="web"
    )
    assert path == tmp_path / str(paths.cloud_init_config_drive_seed("seed")).lstrip("/")
    assert label(path) == "config-2"
    assert read(path, "openstack/latest/user_data") == b"#!/bin/sh\n"
    assert read(path, "openstack/latest/network_data.json", "joliet_path") == b'{"links": []}'
    assert json.loads(read(path, "openstack/latest/meta_data.json")) == {
        "instance_id": "testvm.default",
        "local_hostname": "web",
        "hostname": "web",
        "uuid": VMI_UID,
    }


def test_config_drive_has_the_firmwares_uuid():
    vmi = make_vmi(domain={"firmware": {"uuid": "11111111-2222-3333-4444-555555555555"}, "devices": {}})
    files = cloudinit.seed_files({"name": "seed", "cloudInitConfigDrive": {"userData": "x"}}, vmi)
    assert json.loads(files["openstack/latest/meta_data.json"])["uuid"].startswith("11111111-")


@pytest.mark.parametrize("kind", ["cloudInitNoCloud", "cloudInitConfigDrive"])
@pytest.mark.parametrize("wrap", [False, True])
def test_base64(kind, wrap):
    user, network = b"\xff\x00 user " * 20, b"network"
    encode = base64.encodebytes if wrap else base64.b64encode
    source = {"userDataBase64": encode(user).decode(), "networkDataBase64": encode(network).decode()}
    files = cloudinit.seed_files({"name": "seed", kind: source}, make_vmi())
    assert user in files.values()
    assert network in files.values()


@pytest.mark.parametrize("user_key", ["userdata", "userData"])
@pytest.mark.parametrize("network_key", ["networkdata", "networkData"])
def test_secrets(tmp_path, user_key, network_key):
    secret(tmp_path, paths.cloud_init_user_data_dir("seed"), user_key, b"user")
    secret(tmp_path, paths.cloud_init_network_data_dir("seed"), network_key, b"network")
    source = {"secretRef": {"name": "s"}, "networkDataSecretRef": {"name": "n"}}
    files = cloudinit.seed_files({"name": "seed", "cloudInitNoCloud": source}, make_vmi(), tmp_path)
    assert (files["user-data"], files["network-config"]) == (b"user", b"network")


def test_only_network_data_still_has_user_data():
    files = cloudinit.seed_files({"name": "seed", "cloudInitNoCloud": {"networkData": "x"}}, make_vmi())
    assert files["user-data"] == b""


@pytest.mark.parametrize("value", ["SGkuXG4", "%%%=", "SGku XG4="])
@pytest.mark.parametrize("field", ["userDataBase64", "networkDataBase64"])
def test_bad_base64(field, value):
    with pytest.raises(LaunchError, match=f"^volume 'seed': cloudInitConfigDrive.{field} is not valid base64"):
        cloudinit.seed_files({"name": "seed", "cloudInitConfigDrive": {field: value}}, make_vmi())


def test_missing_key_in_secret(tmp_path):
    secret(tmp_path, paths.cloud_init_user_data_dir("seed"), "user-data", b"x")
    with pytest.raises(
        LaunchError, match=r"Secret 's' of cloudInitNoCloud\.secretRef has neither the key 'userdata' nor"
    ):
        cloudinit.seed_files({"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "s"}}}, make_vmi(), tmp_path)


def test_too_much_data():
    with pytest.raises(LaunchError, match="more than the 16777216 that are accepted"):
        cloudinit.seed_files({"name": "seed", "cloudInitNoCloud": {"userData": "x" * (2**24 + 1)}}, make_vmi())


@pytest.mark.parametrize(
    ("name", "hostname", "expected"),
    [
        ("web", None, "web"),
        ("web.example", None, "web"),
        ("x" * 80, None, "x" * 63),
        ("x" * 62 + "-" + "y", None, "x" * 62),
        ("x" * 60 + "---" + "y", None, "x" * 60),
        ("web", "db", "db"),
    ],
)
@pytest.mark.parametrize("kind", ["cloudInitNoCloud", "cloudInitConfigDrive"])
def test_hostname(kind, name, hostname, expected):
    vmi = make_vmi(**({"hostname": hostname} if hostname else {}))
    vmi["metadata"]["name"] = name
    assert guests.hostname(vmi) == expected
    files = cloudinit.seed_files({"name": "seed", kind: {"userData": "x"}}, vmi)
    (metadata,) = (json.loads(text) for path, text in files.items() if "meta" in path)
    assert {value for key, value in metadata.items() if "hostname" in key} == {expected}


@pytest.mark.parametrize("kind", ["cloudInitNoCloud", "cloudInitConfigDrive"])
def test_an_empty_reference_counts_as_absent(kind, tmp_path):
    empty = {"secretRef": {"name": ""}, "networkDataSecretRef": {}}
    files = cloudinit.seed_files({"name": "seed", kind: {**empty, "networkData": "n"}}, make_vmi(), tmp_path)
    assert b"n" in files.values()
    files = cloudinit.seed_files({"name": "seed", kind: {**empty, "userData": "u"}}, make_vmi(), tmp_path)
    assert b"u" in files.values()
    assert b"n" not in files.values()


def test_seeds_have_the_ssh_keys_of_their_secrets(tmp_path):
    secret = tmp_path / str(credentials.secret_dir("keys")).lstrip("/")
    (secret / "..data").mkdir(parents=True)
    (secret / "me").write_text("ssh-ed25519 AAAA me\n\nssh-ed25519 BBBB me\n")
    for method, kind, name, key in (
        ("noCloud", "cloudInitNoCloud", "meta-data", "public-keys"),
        ("configDrive", "cloudInitConfigDrive", "openstack/latest/meta_data.json", "public_keys"),
    ):
        source = {"secret": {"secretName": "keys"}}
        access = [{"sshPublicKey": {"source": source, "propagationMethod": {method: {}}}}]
        seed = make(tmp_path, kind, {"userData": "x"}, accessCredentials=access)
        assert json.loads(read(seed, name))[key] == {"0": "ssh-ed25519 AAAA me", "1": "ssh-ed25519 BBBB me"}
        seed = make(tmp_path, kind, {"userData": "x"})
        assert key not in json.loads(read(seed, name))


def test_tags_of_interfaces_are_in_the_config_drive(tmp_path):
    tagged = {
        "name": "default",
        "bridge": {},
        "tag": "lan",
        "pciAddress": "0000:81:01.0",
        "macAddress": "02:00:00:00:00:01",
    }
    domain = {"devices": {"interfaces": [tagged, {"name": "other", "bridge": {}}]}}
    seed = make(tmp_path, "cloudInitConfigDrive", {"userData": "x"}, domain=domain)
    assert json.loads(read(seed, "openstack/latest/meta_data.json"))["devices"] == [
        {"type": "nic", "bus": "pci", "address": "0000:81:01.0", "mac": "02:00:00:00:00:01", "tags": ["lan"]}
    ]


def test_tags_of_host_devices_are_in_the_config_drive(tmp_path, monkeypatch):
    monkeypatch.setenv("USB_RESOURCE_EXAMPLE_ORG_STICK", "001:002")
    monkeypatch.setenv("PCI_RESOURCE_EXAMPLE_ORG_GPU", "0000:01:00.0")
    devices = {
        "gpus": [{"name": "a", "deviceName": "example.org/gpu", "tag": "render"}],
        "hostDevices": [
            {"name": "b", "deviceName": "example.org/stick", "tag": "key"},
            {"name": "c", "deviceName": "example.org/other"},
        ],
    }
    seed = make(tmp_path, "cloudInitConfigDrive", {"userData": "x"}, domain={"devices": devices})
    assert json.loads(read(seed, "openstack/latest/meta_data.json"))["devices"] == [
        {"type": "hostdev", "bus": "pci", "tags": ["render"]},
        {"type": "hostdev", "bus": "usb", "tags": ["key"]},
    ]
