# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims and volumes, against an API server in a dict."""

import threading
import time
from pathlib import Path

import pytest
from podrunner.fakes import FakeClient, FakeRecorder

from turtles.kube.manager import Manager
from turtles.kube.resources import NODE, POD, PV, PVC, STORAGECLASS
from turtles.standalone.local_path.claims import ClaimController
from turtles.standalone.local_path.provisioner import CLASS, Provisioner
from turtles.standalone.local_path.volumes import VolumeController
from turtles.standalone.scheduler import SELECTED_NODE, Scheduler


class Cluster:
    """Scheduler, claims and volumes, with a node."""

    def __init__(self, directory):
        self.client, self.recorder, self.directory = FakeClient(), FakeRecorder(), directory
        self.manager = Manager(self.client)
        pods, nodes, claims, volumes, classes = (
            self.manager.share(self.client.informer(resource)) for resource in (POD, NODE, PVC, PV, STORAGECLASS)
        )
        self.client.add(
            NODE,
            {
                "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
                "spec": {},
                "status": {
                    "allocatable": {"cpu": "1", "memory": "1Gi"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )
        provisioner = Provisioner(self.client, directory)
        provisioner.prepare(classes.list())
        for controller in (
            ClaimController(self.client, self.recorder, provisioner, pods, claims, volumes, classes, nodes),
            VolumeController(self.client, provisioner, claims, volumes),
            Scheduler(self.client, self.recorder, pods, nodes, claims, volumes, classes),
        ):
            self.manager.add(controller.controller())
        gate = threading.Event()
        gate.set()
        self.manager.start(gate)

    def claim(self, storage="1Mi", namespace="default", **spec):
        """Create a claim."""
        return self.client.add(
            PVC,
            {
                "metadata": {"name": "c", "namespace": namespace},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, **spec},
            },
        )

    def static_volume(self, path, **spec):
        """Create a volume as an administrator would."""
        return self.client.add(
            PV,
            {
                "metadata": {"name": "static"},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "",
                    "hostPath": {"path": str(path)},
                    **spec,
                },
            },
        )

    def pod(self, namespace="default"):
        """Create a Pod that uses the claim."""
        return self.client.add(
            POD,
            {
                "metadata": {"name": "p", "namespace": namespace},
                "spec": {
                    "containers": [{"name": "c"}],
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
                },
            },
        )

    def wait(self, predicate):
        """Wait until something is true and return it."""
        deadline = time.monotonic() + 60
        while not (result := predicate()):
            assert time.monotonic() < deadline, (self.client.objects, self.recorder.events)
            time.sleep(0.002)
        return result

    def object(self, plural, namespace, name):
        """Return an object or None."""
        return self.client.objects.get((plural, namespace, name))


@pytest.fixture
def cluster(tmp_path):
    """A running cluster."""
    cluster = Cluster(tmp_path / "volumes")
    yield cluster
    cluster.manager.stop()


def bound(cluster):
    """Return the claim once it is bound."""
    return cluster.wait(
        lambda: (
            (claim := cluster.object("persistentvolumeclaims", "default", "c"))
            and claim.get("status", {}).get("phase") == "Bound"
            and claim
        )
    )


def test_first_consumer_gets_a_directory_which_goes_with_the_claim(cluster):
    cluster.claim()
    cluster.wait(lambda: any(reason == "WaitForFirstConsumer" for _, reason, _ in cluster.recorder.events))
    cluster.pod()
    claim = bound(cluster)
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
    assert list(cluster.directory.iterdir()) == []
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
    assert bound(cluster)["spec"]["volumeName"] == "static"
    cluster.client.patch(PVC, "default", "c", {"metadata": {"deletionTimestamp": "now"}})
    cluster.wait(lambda: cluster.object("persistentvolumes", "", "static")["status"]["phase"] == "Released")
    assert mine.is_dir()


def said(cluster, reason):
    """Wait for an event and return its message."""
    return cluster.wait(lambda: next((text for _, kind, text in cluster.recorder.events if kind == reason), None))


def test_a_claim_that_names_the_volume_of_another_gets_nothing(cluster):
    cluster.claim()
    cluster.pod()
    mine = bound(cluster)
    cluster.wait(lambda: cluster.client.bindings)
    volume = mine["spec"]["volumeName"]
    cluster.claim(namespace="hostile", volumeName=volume, storageClassName=CLASS)
    text = said(cluster, "FailedBinding")
    assert volume in text
    assert "already bound to a different claim" in text
    assert "default/c" not in text, "others' names are none of their business"
    assert cluster.object("persistentvolumeclaims", "hostile", "c")["status"]["phase"] == "Pending"
    cluster.pod("hostile")
    text = said(cluster, "FailedScheduling")
    assert f'persistentvolumeclaim "c" names persistentvolume "{volume}", which belongs to a claim of another' in text
    assert cluster.client.bindings == [("default", "p", "n1")]
    reference = cluster.object("persistentvolumes", "", volume)["spec"]["claimRef"]
    assert reference["uid"] == mine["metadata"]["uid"]


def test_a_claim_that_says_it_is_bound_to_the_volume_of_another_is_lost(cluster):
    cluster.claim()
    cluster.pod()
    volume = bound(cluster)["spec"]["volumeName"]
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
    assert volume in said(cluster, "ClaimMisbound")
    cluster.wait(lambda: cluster.object("persistentvolumeclaims", "hostile", "c")["status"]["phase"] == "Lost")
    cluster.pod("hostile")
    assert "belongs to a claim of another namespace" in said(cluster, "FailedScheduling")


def test_a_claim_that_is_made_again_is_another_one(cluster, tmp_path):
    data = tmp_path / "static"
    data.mkdir()
    cluster.static_volume(data, persistentVolumeReclaimPolicy="Retain")
    cluster.claim(storageClassName="")
    first = bound(cluster)["metadata"]["uid"]
    cluster.client.patch(PVC, "default", "c", {"metadata": {"deletionTimestamp": "now"}})
    cluster.wait(lambda: cluster.object("persistentvolumes", "", "static")["status"]["phase"] == "Released")
    cluster.claim(storageClassName="", volumeName="static")
    assert "belongs to an earlier claim default/c, which was deleted" in said(cluster, "FailedBinding")
    assert cluster.object("persistentvolumes", "", "static")["spec"]["claimRef"]["uid"] == first
    # As the administrator releases it (Kubernetes documentation, "Retain")
    cluster.client.patch(PV, None, "static", {"spec": {"claimRef": None}})
    assert bound(cluster)["spec"]["volumeName"] == "static"


def test_a_volume_may_wait_for_a_claim_of_a_name(cluster, tmp_path):
    cluster.static_volume(tmp_path, claimRef={"namespace": "default", "name": "c"})
    cluster.claim(namespace="hostile", storageClassName="", volumeName="static")
    assert "a claim of another namespace" in said(cluster, "FailedBinding")
    cluster.claim(storageClassName="", volumeName="static")
    assert bound(cluster)["spec"]["volumeName"] == "static"


def test_claim_grows(cluster):
    cluster.claim()
    cluster.pod()
    bound(cluster)
    cluster.client.patch(PVC, "default", "c", {"spec": {"resources": {"requests": {"storage": "2Mi"}}}})
    cluster.wait(
        lambda: cluster.object("persistentvolumeclaims", "default", "c")["status"]["capacity"] == {"storage": "2Mi"}
    )


def test_volumes_are_for_root_and_pods_alone(cluster):
    assert cluster.directory.stat().st_mode & 0o777 == 0o700
