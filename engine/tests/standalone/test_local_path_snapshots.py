# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of volumes, and claims that are filled from them, against an API server in a dict."""

import os
import threading
from pathlib import Path

import pytest
from local_cluster import Cluster

from turtles.kube.resources import POD, PV, PVC, VOLUMESNAPSHOT, VOLUMESNAPSHOTCLASS, VOLUMESNAPSHOTCONTENT
from turtles.standalone.local_path import snapshot_kinds
from turtles.standalone.local_path.copies import Copies, CopyError
from turtles.standalone.local_path.provisioner import CLASS, PROVISIONER

_GROUP = VOLUMESNAPSHOT.group


@pytest.fixture
def cluster(tmp_path):
    """A running cluster with a claim of 1 MiB that has a file on its volume."""
    cluster = Cluster(tmp_path / "volumes")
    cluster.claim()
    cluster.pod()
    cluster.bound()
    (folder(cluster, "c") / "disk.img").write_text("first")
    yield cluster
    cluster.manager.stop()


def folder(cluster, claim):
    """Return the directory of a claim's volume."""
    name = cluster.bound(claim)["spec"]["volumeName"]
    return Path(cluster.object("persistentvolumes", "", name)["spec"]["local"]["path"])


def snapshot(cluster, name="s", claim="c", **spec):
    """Ask for a snapshot."""
    source = {"persistentVolumeClaimName": claim}
    cluster.client.add(
        VOLUMESNAPSHOT, {"metadata": {"name": name, "namespace": "default"}, "spec": {"source": source, **spec}}
    )


def status(cluster, name="s"):
    """Return a snapshot's status."""
    return (cluster.object("volumesnapshots", "default", name) or {}).get("status") or {}


def ready(cluster, name="s"):
    """Return a snapshot once it can be used."""
    cluster.wait(lambda: status(cluster, name).get("readyToUse"))
    return cluster.object("volumesnapshots", "default", name)


def failure(cluster, name="s"):
    """Return what is wrong with a snapshot."""
    return cluster.wait(lambda: (status(cluster, name).get("error") or {}).get("message"))


def filled(cluster, storage="1Mi", name="copy", kind="VolumeSnapshot", source="s"):
    """Create a claim that is to be filled, and a Pod that wants it."""
    group = {"apiGroup": _GROUP} if kind == "VolumeSnapshot" else {}
    cluster.claim(storage, name=name, dataSource={"kind": kind, "name": source, **group})
    cluster.pod(name=name, claim=name)


def test_a_snapshot_keeps_what_a_claim_had(cluster):
    snapshot(cluster)
    found = ready(cluster)
    assert found["status"]["restoreSize"] == str(2**20)
    assert found["spec"]["volumeSnapshotClassName"] == CLASS
    assert found["status"]["creationTime"].endswith("Z")
    (folder(cluster, "c") / "disk.img").write_text("second")
    filled(cluster)
    assert (folder(cluster, "copy") / "disk.img").read_text() == "first"
    assert (folder(cluster, "c") / "disk.img").read_text() == "second"


def test_a_snapshot_outlives_its_claim_and_takes_its_copy_along(cluster):
    snapshot(cluster)
    content = ready(cluster)["status"]["boundVolumeSnapshotContentName"]
    copy = next((cluster.directory / "snapshots").glob("snapshot-*[!e]"))
    cluster.client.delete(PVC, "default", "c")
    cluster.wait(lambda: not list(cluster.directory.glob("pvc-*")))
    assert (copy / "disk.img").read_text() == "first"
    cluster.client.delete(VOLUMESNAPSHOT, "default", "s")
    cluster.wait(lambda: cluster.object("volumesnapshots", "default", "s") is None)
    assert cluster.object("volumesnapshotcontents", "", content) is None
    assert list((cluster.directory / "snapshots").iterdir()) == []


def test_what_is_retained_can_be_bound_again(cluster):
    policy = {"metadata": {"name": "keep"}, "driver": PROVISIONER, "deletionPolicy": "Retain"}
    cluster.client.add(VOLUMESNAPSHOTCLASS, policy)
    snapshot(cluster, volumeSnapshotClassName="keep")
    content = ready(cluster)["status"]["boundVolumeSnapshotContentName"]
    handle = cluster.object("volumesnapshotcontents", "", content)["status"]["snapshotHandle"]
    cluster.client.delete(VOLUMESNAPSHOT, "default", "s")
    cluster.wait(lambda: cluster.object("volumesnapshots", "default", "s") is None)
    cluster.client.delete(VOLUMESNAPSHOTCONTENT, None, content)
    cluster.wait(lambda: cluster.object("volumesnapshotcontents", "", content) is None)
    cluster.client.add(
        VOLUMESNAPSHOTCONTENT,
        {
            "metadata": {"name": "kept"},
            "spec": {
                "deletionPolicy": "Retain",
                "driver": PROVISIONER,
                "source": {"snapshotHandle": handle},
                "volumeSnapshotRef": {"namespace": "default", "name": "again"},
            },
        },
    )
    source = {"volumeSnapshotContentName": "kept"}
    cluster.client.add(
        VOLUMESNAPSHOT, {"metadata": {"name": "again", "namespace": "default"}, "spec": {"source": source}}
    )
    assert ready(cluster, "again")["status"]["restoreSize"] == str(2**20)
    filled(cluster, source="again")
    assert (folder(cluster, "copy") / "disk.img").read_text() == "first"


def test_a_snapshot_waits_for_the_claims_that_it_fills(cluster):
    snapshot(cluster)
    ready(cluster)
    cluster.claim(name="copy", dataSourceRef={"apiGroup": _GROUP, "kind": "VolumeSnapshot", "name": "s"})
    cluster.said("WaitForFirstConsumer")
    cluster.client.delete(VOLUMESNAPSHOT, "default", "s")
    cluster.pod(name="copy", claim="copy")
    assert (folder(cluster, "copy") / "disk.img").read_text() == "first"
    cluster.wait(lambda: cluster.object("volumesnapshots", "default", "s") is None)


def test_a_claim_is_cloned(cluster):
    filled(cluster, kind="PersistentVolumeClaim", source="c")
    assert (folder(cluster, "copy") / "disk.img").read_text() == "first"


def test_volumes_of_blocks(cluster):
    """A file as large as the claim, in blocks that any device counts in; filled from what is one, too."""
    cluster.claim("1000k", name="d", volumeMode="Block")
    cluster.pod(name="d", claim="d")
    path = folder(cluster, "d") / "device"
    assert path.stat().st_size == 245 * 4096
    volume = cluster.object("persistentvolumes", "", cluster.bound("d")["spec"]["volumeName"])
    assert volume["spec"]["volumeMode"] == "Block"
    path.write_bytes(b"x" * path.stat().st_size)
    snapshot(cluster, "of-d", "d")
    content = ready(cluster, "of-d")["status"]["boundVolumeSnapshotContentName"]
    assert cluster.object("volumesnapshotcontents", "", content)["spec"]["sourceVolumeMode"] == "Block"
    source = {"apiGroup": _GROUP, "kind": "VolumeSnapshot", "name": "of-d"}
    cluster.claim("2Mi", name="e", volumeMode="Block", dataSource=source)
    cluster.pod(name="e", claim="e")
    grown = folder(cluster, "e") / "device"
    assert grown.read_bytes() == b"x" * (245 * 4096) + bytes((2 << 20) - 245 * 4096)
    change = {"spec": {"resources": {"requests": {"storage": "3Mi"}}}}
    cluster.client.patch(PVC, "default", "e", change)
    cluster.wait(lambda: cluster.bound("e")["status"]["capacity"]["storage"] == "3Mi")
    assert grown.stat().st_size == 3 << 20
    cluster.claim("2Mi", name="f", dataSource=source)
    cluster.pod(name="f", claim="f")
    assert "volumeMode Filesystem is requested, and the source VolumeSnapshot of-d has Block" in cluster.said(
        "ProvisioningFailed"
    )


@pytest.mark.parametrize(("kind", "source"), [("VolumeSnapshot", "s"), ("PersistentVolumeClaim", "c")])
def test_too_small_a_claim_is_refused(cluster, kind, source):
    snapshot(cluster)
    ready(cluster)
    filled(cluster, "512Ki", kind=kind, source=source)
    text = cluster.said("ProvisioningFailed")
    assert f"requested volume size 512Ki is less than the size 1048576 of the source {kind} {source}" in text
    assert cluster.object("persistentvolumeclaims", "default", "copy")["status"]["phase"] == "Pending"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"apiGroup": _GROUP, "kind": "VolumeSnapshot", "name": "none"}, "VolumeSnapshot none not found"),
        ({"kind": "PersistentVolumeClaim", "name": "none"}, "PersistentVolumeClaim none not found"),
        ({"kind": "ConfigMap", "name": "x"}, "can't populate a volume"),
        (
            {"apiGroup": _GROUP, "kind": "VolumeSnapshot", "name": "s", "namespace": "other"},
            "spec.dataSourceRef.namespace: other is another namespace",
        ),
    ],
)
def test_sources_that_can_not_be(cluster, source, words):
    cluster.claim(name="copy", dataSourceRef=source)
    cluster.pod(name="copy", claim="copy")
    assert words in cluster.said("ProvisioningFailed")


def test_a_claim_of_a_populator_is_bound_to_the_volume_that_is_handed_over(cluster):
    source = {"apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": "x"}
    cluster.claim(name="copy", dataSourceRef=source)
    cluster.said("WaitForFirstConsumer")
    # The volume of a claim that is gone is not what it wants, nor is an empty one provisioned
    cluster.pod(name="copy", claim="copy")
    assert "VolumeImportSource.cdi.kubevirt.io" in cluster.said("WaitForPopulator")
    wanted = cluster.object("persistentvolumeclaims", "default", "copy")
    assert wanted["status"]["phase"] == "Pending"
    assert "volumeName" not in wanted["spec"]
    name = cluster.bound("c")["spec"]["volumeName"]
    reference = {"uid": wanted["metadata"]["uid"], "name": "copy", "namespace": "default"}
    cluster.client.patch(PV, None, name, {"spec": {"claimRef": reference}})
    assert cluster.bound("copy")["spec"]["volumeName"] == name
    cluster.wait(lambda: cluster.object("persistentvolumeclaims", "default", "c")["status"]["phase"] == "Lost")
    cluster.client.delete(POD, "default", "p")
    cluster.client.delete(PVC, "default", "c")
    cluster.wait(lambda: cluster.object("persistentvolumeclaims", "default", "c") is None)
    assert (folder(cluster, "copy") / "disk.img").read_text() == "first"


@pytest.mark.parametrize(
    ("claim", "spec", "words"),
    [
        ("none", {}, "PersistentVolumeClaim none not found"),
        ("unbound", {}, "PersistentVolumeClaim unbound is not bound"),
        ("c", {"volumeSnapshotClassName": "none"}, "VolumeSnapshotClass none not found"),
        ("c", {"volumeSnapshotClassName": "foreign"}, "uses the driver example.org"),
    ],
)
def test_snapshots_that_can_not_be(cluster, claim, spec, words):
    foreign = {"metadata": {"name": "foreign"}, "driver": "example.org", "deletionPolicy": "Delete"}
    cluster.client.add(VOLUMESNAPSHOTCLASS, foreign)
    cluster.claim(name="unbound")
    snapshot(cluster, claim=claim, **spec)
    assert words in failure(cluster)
    assert status(cluster)["readyToUse"] is False


def test_a_volume_that_is_written_to_gives_no_torn_snapshot(cluster):
    copies, stop = cluster.provisioner._copies, threading.Event()
    copies._shares_blocks = False
    path = folder(cluster, "c") / "disk.img"

    def write():
        with path.open("r+b", buffering=0) as file:
            while not stop.is_set():
                os.pwrite(file.fileno(), b"x", 0)
                stop.wait(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        snapshot(cluster)
        assert "was written to while it was copied" in failure(cluster)
        assert not list((cluster.directory / "snapshots").glob("snapshot-*-????????????"))
    finally:
        stop.set()
        writer.join()


def test_a_copy_that_was_interrupted_is_made_again(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "disk.img").write_text("whole")
    half = tmp_path / ".partial-target"
    half.mkdir()
    (half / "disk.img").write_text("wh")
    copies = Copies(tmp_path)
    copies.prepare()
    assert not half.exists(), "left by a process that was killed"
    half.mkdir()
    assert copies.make(source, target)
    assert [path.name for path in target.iterdir()] == ["disk.img"]
    assert (target / "disk.img").read_text() == "whole"
    assert not half.exists()


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    copies = Copies(tmp_path)
    copies.prepare()
    with pytest.raises(CopyError, match="isn't there"):
        copies.make(tmp_path / "none", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_copies_have_holes(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with (source / "disk.img").open("wb") as file:
        file.truncate(2**30)
        file.seek(2**29)
        file.write(b"data")
    copies = Copies(tmp_path)
    copies.prepare()
    assert copies.make(source, tmp_path / "target")
    stat = (tmp_path / "target" / "disk.img").stat()
    assert stat.st_size == 2**30
    assert stat.st_blocks * 512 < 2**20


def test_definitions_are_those_of_kubernetes():
    definitions = {entry["metadata"]["name"]: entry["spec"] for entry in snapshot_kinds.crds()}
    assert set(definitions) == {f"volumesnapshot{each}.{_GROUP}" for each in ("s", "contents", "classes")}
    assert definitions[f"volumesnapshotclasses.{_GROUP}"]["scope"] == "Cluster"
    assert definitions[f"volumesnapshots.{_GROUP}"]["names"]["shortNames"] == ["vs", "vss"]
