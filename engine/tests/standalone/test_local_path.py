# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims and volumes, against an API server in a dict."""

import time
from pathlib import Path

import pytest
from local_cluster import Cluster

from turtles.kube.resources import POD, PV, PVC
from turtles.standalone.local_path.provisioner import CLASS
from turtles.standalone.well_known import SELECTED_NODE


@pytest.fixture
def cluster(tmp_path):
    """A running cluster."""
    cluster = Cluster(tmp_path / "volumes")
    yield cluster
    cluster.manager.stop()


def test_first_consumer_gets_a_directory_which_goes_with_the_claim(cluster):
    cluster.claim()
    cluster.wait(lambda: any(reason == "WaitForFirstConsumer" for _, reason, _ in cluster.recorder.events))
    cluster.pod()
    claim = cluster.bound()
    cluster.wait(lambda: cluster.client.bindings == [("default", "p", "n1")])
    assert claim["spec"]["storageClassName"] == CLASS
    assert claim["metadata"]["annotations"][SELECTED_NODE] == "n1"
    volume = cluster.object("persistentvolumes", "", claim["spec"]["volumeName"])
    path = Path(volume["spec"]["local"]["path"])
    assert path.is_dir()
    (path / "disk.img").write_text("data")
    uid = claim["metadata"]["uid"]
    cluster.client.patch(PVC, "default", "c", {"metadata": {"deletionTimestamp": "now"}})
    time.sleep(0.05)
    assert cluster.object("persistentvolumeclaims", "default", "c")["metadata"]["uid"] == uid
    cluster.client.delete(POD, "default", "p", grace_period=0)
    cluster.wait(lambda: cluster.object("persistentvolumeclaims", "default", "c") is None)
    cluster.wait(lambda: not path.exists())
    cluster.wait(lambda: cluster.object("persistentvolumes", "", volume["metadata"]["name"]) is None)


def test_too_large_a_claim_says_so(cluster):
    cluster.claim("900Ti")
    cluster.pod()
    cluster.wait(
        lambda: any(
            reason == "ProvisioningFailed" and "are free" in text for _, reason, text in cluster.recorder.events
        )
    )
    assert list(cluster.directory.glob("pvc-*")) == []
    assert cluster.client.bindings == []


def test_missing_claim_keeps_the_pod_waiting(cluster):
    cluster.pod()
    cluster.wait(lambda: any('persistentvolumeclaim "c" not found' in text for *_, text in cluster.recorder.events))
    cluster.claim()
    cluster.wait(lambda: cluster.client.bindings)


def test_existing_volume_is_taken_and_kept(cluster, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    cluster.static_volume(mine, persistentVolumeReclaimPolicy="Delete")
    cluster.claim(storageClassName="")
    assert cluster.bound()["spec"]["volumeName"] == "static"
    cluster.client.patch(PVC, "default", "c", {"metadata": {"deletionTimestamp": "now"}})
    cluster.wait(lambda: cluster.object("persistentvolumes", "", "static")["status"]["phase"] == "Released")
    assert mine.is_dir()


def test_a_claim_that_names_the_volume_of_another_gets_nothing(cluster):
    cluster.claim()
    cluster.pod()
    mine = cluster.bound()
    cluster.wait(lambda: cluster.client.bindings)
    volume = mine["spec"]["volumeName"]
    cluster.claim(namespace="hostile", volumeName=volume, storageClassName=CLASS)
    text = cluster.said("FailedBinding")
    assert volume in text
    assert "already bound to a different claim" in text
    assert "default/c" not in text, "others' names are none of their business"
    assert cluster.object("persistentvolumeclaims", "hostile", "c")["status"]["phase"] == "Pending"
    cluster.pod("hostile")
    text = cluster.said("FailedScheduling")
    assert f'persistentvolumeclaim "c" names persistentvolume "{volume}", which belongs to a claim of another' in text
    assert cluster.client.bindings == [("default", "p", "n1")]
    reference = cluster.object("persistentvolumes", "", volume)["spec"]["claimRef"]
    assert reference["uid"] == mine["metadata"]["uid"]


def test_a_claim_that_says_it_is_bound_to_the_volume_of_another_is_lost(cluster):
    cluster.claim()
    cluster.pod()
    volume = cluster.bound()["spec"]["volumeName"]
    cluster.client.add(
        PVC,
        {
            "metadata": {
                "name": "c",
                "namespace": "hostile",
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}},
                "storageClassName": CLASS,
                "volumeName": volume,
            },
            "status": {"phase": "Bound"},
        },
    )
    assert volume in cluster.said("ClaimMisbound")
    cluster.wait(lambda: cluster.object("persistentvolumeclaims", "hostile", "c")["status"]["phase"] == "Lost")
    cluster.pod("hostile")
    assert "belongs to a claim of another namespace" in cluster.said("FailedScheduling")


def test_a_claim_that_is_made_again_is_another_one(cluster, tmp_path):
    data = tmp_path / "static"
    data.mkdir()
    cluster.static_volume(data, persistentVolumeReclaimPolicy="Retain")
    cluster.claim(storageClassName="")
    first = cluster.bound()["metadata"]["uid"]
    cluster.client.patch(PVC, "default", "c", {"metadata": {"deletionTimestamp": "now"}})
    cluster.wait(lambda: cluster.object("persistentvolumes", "", "static")["status"]["phase"] == "Released")
    cluster.claim(storageClassName="", volumeName="static")
    assert "belongs to an earlier claim default/c, which was deleted" in cluster.said("FailedBinding")
    assert cluster.object("persistentvolumes", "", "static")["spec"]["claimRef"]["uid"] == first
    # As the administrator releases it (Kubernetes documentation, "Retain")
    cluster.client.patch(PV, None, "static", {"spec": {"claimRef": None}})
    assert cluster.bound()["spec"]["volumeName"] == "static"


def test_a_volume_may_wait_for_a_claim_of_a_name(cluster, tmp_path):
    cluster.static_volume(tmp_path, claimRef={"namespace": "default", "name": "c"})
    cluster.claim(namespace="hostile", storageClassName="", volumeName="static")
    assert "a claim of another namespace" in cluster.said("FailedBinding")
    cluster.claim(storageClassName="", volumeName="static")
    assert cluster.bound()["spec"]["volumeName"] == "static"


def test_claim_grows(cluster):
    cluster.claim()
    cluster.pod()
    cluster.bound()
    cluster.client.patch(PVC, "default", "c", {"spec": {"resources": {"requests": {"storage": "2Mi"}}}})
    cluster.wait(
        lambda: cluster.object("persistentvolumeclaims", "default", "c")["status"]["capacity"] == {"storage": "2Mi"}
    )


def test_volumes_are_for_root_and_pods_alone(cluster):
    assert cluster.directory.stat().st_mode & 0o777 == 0o700
