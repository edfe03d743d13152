# SPDX-License-Identifier: GPL-3.0-or-later
import base64
import os
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from turtles.kube.errors import ApiError
from turtles.standalone import block_files
from turtles.standalone.files import write_json
from turtles.standalone.podrunner import node
from turtles.standalone.podrunner import syscalls as sc
from turtles.standalone.podrunner.mount_points import is_mount
from turtles.standalone.podrunner.volume_files import VolumeError, own_by_group, sub_path
from turtles.standalone.podrunner.volumes import Volumes

POD = {
    "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
    "spec": {"volumes": [{"name": "seed", "secret": {"secretName": "login"}}]},
}


class OneSecret:
    """A client that knows a Secret."""

    def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any]:
        return {
            "kind": "Secret",
            "metadata": {"namespace": namespace, "name": name},
            "data": {"userdata": base64.b64encode(b"password: hunter2").decode()},
        }


def test_secrets_are_for_root_and_the_pod_alone(tmp_path: Path) -> None:
    # An earlier version's folder was open to everybody.
    (tmp_path / "run/volumes").mkdir(parents=True, mode=0o755)
    volumes = Volumes(OneSecret(), tmp_path / "run")  # type: ignore[arg-type]
    folder = volumes.prepare(POD, tmp_path / "pod", {})["seed"]
    assert (folder / "userdata").read_bytes() == b"password: hunter2"
    private = tmp_path / "run/volumes"
    assert folder.is_relative_to(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


class OneVolume:
    """A client with a claim of each of two namespaces that name one volume."""

    def __init__(self, path: Path, **reference: str) -> None:
        self.volume = {"metadata": {"name": "v1"}, "spec": {"hostPath": {"path": str(path)}, "claimRef": reference}}

    def get(self, resource: Any, namespace: str | None, name: str) -> dict[str, Any]:
        if namespace is None:
            return self.volume
        return {
            "metadata": {"namespace": namespace, "name": name, "uid": f"uid-of-{namespace}"},
            "spec": {"volumeName": "v1"},
            "status": {"phase": "Bound"},
        }


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"namespace": "other", "name": "data", "uid": "uid-of-other"}, "a claim of another namespace"),
        ({"namespace": "default", "name": "mine", "uid": "uid-of-mine"}, "claim default/mine"),
        (
            {"namespace": "default", "name": "data", "uid": "uid-before"},
            "an earlier claim default/data, which was deleted",
        ),
        ({"namespace": "default", "name": "data"}, "an earlier claim default/data"),
        ({"namespace": "other", "name": "data", "uid": "uid-of-default"}, "a claim of another namespace"),
        ({}, "no claim yet"),
    ],
)
def test_a_claim_gets_no_volume_that_does_not_name_it(tmp_path: Path, reference: dict[str, str], words: str) -> None:
    """A claim's volumeName is its owner's to write; nothing of the volume is touched for the claim of another."""
    (tmp_path / "data").mkdir(mode=0o700)
    pod = {
        "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
        "spec": {
            "securityContext": {"fsGroup": 107},
            "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    client = OneVolume(tmp_path / "data", **reference)
    volumes = Volumes(client, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(VolumeError, match="default/data names PersistentVolume v1, which belongs to") as error:
        volumes.prepare(pod, tmp_path / "pod", {})
    assert f"belongs to {words}" in str(error.value)
    assert error.value.reason == "FailedMount"
    assert (tmp_path / "data").stat().st_gid != 107
    client.volume["spec"]["claimRef"] = {"namespace": "default", "name": "data", "uid": "uid-of-default"}
    assert volumes.prepare(pod, tmp_path / "pod", {}) == {"root": tmp_path / "data"}


class Issuer:
    """A client that gives tokens which were issued when it is told."""

    def __init__(self) -> None:
        self.issued, self.asked, self.error = time.time(), [], None

    def create(self, resource: Any, body: dict[str, Any], **where: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.asked.append((resource.plural, where, body["spec"]))
        claims = {"iat": self.issued, "exp": self.issued + 1000, "jti": str(len(self.asked))}
        return {"status": {"token": jwt.encode(claims, "k" * 32)}}


def test_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    source = {"path": "sub/token", "audience": "vault", "expirationSeconds": 1000}
    pod = {
        "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
        "spec": {
            "serviceAccountName": "robot",
            "securityContext": {"fsGroup": os.getgid()},
            "volumes": [
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": source}], "defaultMode": 0o600}}
            ],
        },
    }
    issuer = Issuer()
    volumes = Volumes(issuer, tmp_path / "run")  # type: ignore[arg-type]
    assert volumes.renew(pod) is None, "there is none yet"
    path = volumes.prepare(pod, tmp_path / "pod", {})["t"] / "sub/token"
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u-1"}
    where = {"namespace": "default", "name": "robot", "subresource": "token"}
    spec = {"audiences": ["vault"], "expirationSeconds": 1000, "boundObjectRef": reference}
    assert issuer.asked == [("serviceaccounts", where, spec)]
    assert 790 < volumes.renew(pod) <= 800
    first = path.read_bytes()
    issuer.issued -= 790
    volumes.prepare(pod, tmp_path / "pod", {})
    assert 5 < volumes.renew(pod) <= 10
    issuer.issued -= 15
    volumes.prepare(pod, tmp_path / "pod", {})
    issuer.error, old = ApiError(0, "", "down"), path.read_bytes()
    assert (volumes.renew(pod), path.read_bytes()) == (30, old), "the old one is good for some time yet"
    issuer.error, issuer.issued = None, time.time()
    assert 790 < volumes.renew(pod) <= 800
    assert path.read_bytes() not in (first, old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [one.name for one in path.parent.iterdir()] == ["token"]


def test_fs_group_goes_to_what_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pod that swaps a file for a link, just when root has found it to be a file, gains nothing."""
    outside, volume, group = tmp_path / "outside", tmp_path / "volume", os.getgid()
    (volume / "folder").mkdir(parents=True)
    (volume / "folder/plain").touch(mode=0o600)
    (volume / "link").symlink_to(outside)
    for path in (outside, volume / "swapped"):
        path.touch()
        path.chmod(0o600)
    is_regular = stat.S_ISREG

    def swap(mode: int) -> bool:
        if is_regular(mode) and not (volume / "swapped").is_symlink():
            (volume / "swapped").unlink()
            (volume / "swapped").symlink_to(outside)
        return is_regular(mode)

    monkeypatch.setattr(stat, "S_ISREG", swap)
    own_by_group(volume, group)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert stat.S_IMODE((volume / "folder/plain").stat().st_mode) == 0o660
    assert stat.S_IMODE((volume / "folder").stat().st_mode) & 0o2070 == 0o2070


@pytest.mark.root
def test_a_sub_path_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    source = sub_path(volume, "a/b")
    os.close(sc.open_tree(str(source), no_links=True))
    (volume / "a").rename(volume / "was")
    (volume / "a").symlink_to("/etc")
    (volume / "was/b").rmdir()
    with pytest.raises(OSError, match="symbolic links"):
        sc.open_tree(str(source), no_links=True)


@pytest.mark.root
def test_memory_is_mounted_after_a_crash_in_between(tmp_path: Path) -> None:
    pod: dict[str, Any] = {
        "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
        "spec": {"securityContext": {"fsGroup": 107}, "volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}]},
    }
    volumes = Volumes(OneSecret(), tmp_path / "run")  # type: ignore[arg-type]
    # The directory is made, the mount is not.
    (tmp_path / "pod/volumes/kubernetes.io~empty-dir/m").mkdir(parents=True)
    folder = volumes.prepare(pod, tmp_path / "pod", {})["m"]
    try:
        assert is_mount(folder)
        assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_gid) == (0o2777, 107)
        assert volumes.prepare(pod, tmp_path / "pod", {})["m"] == folder
    finally:
        volumes.remove("u-1", tmp_path / "pod")
    assert not is_mount(folder)


def huge(medium: str, limits: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
        "spec": {
            "securityContext": {"fsGroup": 107},
            "containers": [{"name": "c", "resources": {"limits": limits}}],
            "volumes": [{"name": "m", "emptyDir": {"medium": medium}}],
        },
    }


@pytest.mark.root
@pytest.mark.parametrize("medium", ["HugePages", "HugePages-2Mi"])
def test_huge_pages_are_mounted(tmp_path: Path, medium: str) -> None:
    volumes = Volumes(OneSecret(), tmp_path / "run")  # type: ignore[arg-type]
    pod = huge(medium, {"hugepages-2Mi": "4Mi", "memory": "1Mi"})
    folder = volumes.prepare(pod, tmp_path / "pod", {})["m"]
    try:
        assert volumes.prepare(pod, tmp_path / "pod", {})["m"] == folder
        assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_gid) == (0o777, 107)
        found = os.statvfs(folder)
        assert (found.f_bsize, found.f_blocks) == (2 << 20, 2)
    finally:
        volumes.remove("u-1", tmp_path / "pod")
    assert not is_mount(folder)


@pytest.mark.parametrize(
    ("medium", "limits"),
    [
        ("HugePages", {}),
        ("HugePages", {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}),
        ("HugePages-1Gi", {"hugepages-2Mi": "4Mi"}),
    ],
)
def test_huge_pages_of_which_size(tmp_path: Path, medium: str, limits: dict[str, str]) -> None:
    volumes = Volumes(OneSecret(), tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(VolumeError, match=f"volume m: medium {medium} needs a limit of hugepages-"):
        volumes.prepare(huge(medium, limits), tmp_path / "pod", {})


def test_huge_pages_of_the_node(tmp_path: Path) -> None:
    for name, count in (("hugepages-2048kB", "80"), ("hugepages-1048576kB", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nr_hugepages").write_text(f"{count}\n")
    assert node.huge_pages(tmp_path) == {"hugepages-2Mi": 160 << 20, "hugepages-1Gi": 0}
    assert node.huge_pages(tmp_path / "none") == {}


def test_a_group_is_not_set_through_endless_folders(tmp_path: Path) -> None:
    tmp_path.joinpath("v", *["d"] * 300).mkdir(parents=True)
    with pytest.raises(VolumeError, match="more than 200 deep"):
        own_by_group(tmp_path / "v", 107)


def backing(device: Path) -> str | None:
    file = Path("/sys/block", device.name, "loop/backing_file")
    return file.read_text().rstrip() if file.exists() else None


@pytest.mark.root
def test_a_volume_of_blocks_is_a_device_of_each_pod(tmp_path: Path) -> None:
    """A loop device on the volume's file, also for a node that starts again, and gone with the Pod."""
    volume, run = tmp_path / "volume", tmp_path / "run"
    volume.mkdir()
    reference = {"namespace": "default", "name": "c", "uid": "uid-of-default"}
    client = OneVolume(volume, **reference)
    client.volume["spec"]["volumeMode"] = "Block"
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    one, other = ({"metadata": {**POD["metadata"], "uid": uid}, "spec": {"volumes": [claim]}} for uid in ("u-1", "u-2"))
    volumes = Volumes(client, run)  # type: ignore[arg-type]
    with pytest.raises(VolumeError, match="has no file device"):
        volumes.prepare(one, tmp_path / "pod", {})
    block_files.make(volume, 1 << 20)
    device = volumes.prepare(one, tmp_path / "pod", {})["v"]
    try:
        assert device.is_block_device()
        assert backing(device) == str(volume / "device")
        again = Volumes(client, run)  # type: ignore[arg-type]
        assert again.prepare(one, tmp_path / "pod", {})["v"] == device
        second = again.prepare(other, tmp_path / "pod", {})["v"]
        assert second != device
        with device.open("r+b") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        block_files.make(volume, 2 << 20)
        with device.open("rb") as file:
            assert file.seek(0, os.SEEK_END) == 2 << 20, "it grows while it is used"
        again.remove("u-2", tmp_path / "other")
        assert backing(second) is None
        assert backing(device) is not None, "that of another Pod stays"
        assert (volume / "device").read_bytes()[:4] == b"xxxx"
        (volume / "device").unlink()
    finally:
        volumes.remove("u-1", tmp_path / "pod")
    assert backing(device) is None, "also if the volume went before the Pod"
    assert not list((run / "block").iterdir())


@pytest.mark.root
def test_devices_of_all_pods_are_given_back(tmp_path: Path) -> None:
    block_files.make(tmp_path, 1 << 20)
    records = [tmp_path / "block" / uid / "v" for uid in ("u-1", "u-2")]
    devices = [block_files.attach(tmp_path, record) for record in records]
    assert block_files.detach_below(tmp_path / "block")
    assert [backing(device) for device in devices] == [None, None]
    assert not block_files.detach_below(tmp_path / "block")


@pytest.mark.root
def test_a_device_that_is_somebody_elses_by_now_stays(tmp_path: Path) -> None:
    """A node that was killed has noted a device, and somebody else has set it up."""
    volume, other = tmp_path / "volume", tmp_path / "other"
    for each in (volume, other):
        each.mkdir()
        block_files.make(each, 1 << 20)
    theirs = block_files.attach(other, tmp_path / "theirs")
    try:
        record = tmp_path / "record"
        write_json(record, {"device": str(theirs), "file": str(volume / "device")})
        block_files.detach(record)
        assert backing(theirs) == str(other / "device")
        write_json(record, {"device": str(theirs), "file": str(volume / "device")})
        own = block_files.attach(volume, record)
        assert own != theirs
        block_files.detach(record)
        assert backing(own) is None
    finally:
        block_files.detach(tmp_path / "theirs")
