# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims and volumes, against an API server in a dict."""

import time
from pathlib import Path

import pytest
from podrunner.fakes import FakeClient, FakeRecorder

from turtles.kube.resources import NODE, POD, PV, PVC, STORAGECLASS
from turtles.standalone.local_path import CLASS, LocalPath
from turtles.standalone.scheduler import SELECTED_NODE, Scheduler


class Cluster:
    """Scheduler and volumes with a node."""

    def __init__(self, directory):
        self.client, self.recorder, self.directory = FakeClient(), FakeRecorder(), directory
        pods, nodes, claims, volumes, classes = (
            self.client.informer(resource) for resource in (POD, NODE, PVC, PV, STORAGECLASS))
        self.client.add(NODE, {
            "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}, "spec": {},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi"},
                       "conditions": [{"type": "Ready", "status": "True"}]}})
        self.local_path = LocalPath(self.client, self.recorder, directory, pods, claims, volumes, classes, nodes)
        self.scheduler = Scheduler(self.client, self.recorder, pods, nodes, claims, volumes, classes)
        self.local_path.start()
        self.scheduler.start()

    def claim(self, storage="1Mi", **spec):
        """Create a claim."""
        return self.client.add(PVC, {
            "metadata": {"name": "c", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, **spec}})

    def pod(self):
        """Create a Pod that uses the claim."""
        return self.client.add(POD, {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c"}],
                     "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}})

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
    cluster.local_path.stop()
    cluster.scheduler.stop()


def bound(cluster):
    """Return the claim once it is bound."""
    return cluster.wait(lambda: (claim := cluster.object("persistentvolumeclaims", "default", "c"))
                        and claim.get("status", {}).get("phase") == "Bound" and claim)


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
    cluster.wait(lambda: any(reason == "ProvisioningFailed" and "are free" in text
                             for _, reason, text in cluster.recorder.events))
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
    cluster.client.add(PV, {
        "metadata": {"name": "static"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                 "persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": str(mine)}}})
    cluster.claim(storageClassName="")
    assert bound(cluster)["spec"]["volumeName"] == "static"
    cluster.client.patch(PVC, "default", "c", {"metadata": {"deletionTimestamp": "now"}})
    cluster.wait(lambda: cluster.object("persistentvolumes", "", "static")["status"]["phase"] == "Released")
    assert mine.is_dir()


def test_claim_grows(cluster):
    cluster.claim()
    cluster.pod()
    bound(cluster)
    cluster.client.patch(PVC, "default", "c", {"spec": {"resources": {"requests": {"storage": "2Mi"}}}})
    cluster.wait(lambda: cluster.object("persistentvolumeclaims", "default", "c")["status"]["capacity"]
                 == {"storage": "2Mi"})


def test_volumes_are_for_root_and_pods_alone(cluster):
    assert cluster.directory.stat().st_mode & 0o777 == 0o700
