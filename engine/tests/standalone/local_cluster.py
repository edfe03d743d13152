# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduler, claims, volumes and snapshots, against an API server in a dict."""

import threading
import time

from podrunner.fakes import FakeClient, FakeRecorder

from turtles.kube.manager import Manager
from turtles.kube.resources import (
    NODE,
    POD,
    PV,
    PVC,
    STORAGECLASS,
    VOLUMESNAPSHOT,
    VOLUMESNAPSHOTCLASS,
    VOLUMESNAPSHOTCONTENT,
)
from turtles.standalone.local_path.claims import ClaimController
from turtles.standalone.local_path.provisioner import Provisioner
from turtles.standalone.local_path.snapshots import ContentController, SnapshotController
from turtles.standalone.local_path.volumes import VolumeController
from turtles.standalone.scheduler import Scheduler


class Cluster:
    """Scheduler, claims and volumes, with a node."""

    def __init__(self, directory):
        self.client, self.recorder, self.directory = FakeClient(), FakeRecorder(), directory
        self.client.finalized = (VOLUMESNAPSHOT, VOLUMESNAPSHOTCONTENT)
        self.manager = Manager(self.client)
        pods, nodes, claims, volumes, classes = (
            self.manager.share(self.client.informer(resource)) for resource in (POD, NODE, PVC, PV, STORAGECLASS)
        )
        snapshots, contents, snapshot_classes = (
            self.manager.share(self.client.informer(resource))
            for resource in (VOLUMESNAPSHOT, VOLUMESNAPSHOTCONTENT, VOLUMESNAPSHOTCLASS)
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
        self.provisioner = provisioner = Provisioner(self.client, directory)
        provisioner.prepare(classes.list(), snapshot_classes.list())
        for controller in (
            ClaimController(self.client, self.recorder, provisioner, pods, claims, volumes, classes, nodes),
            VolumeController(self.client, provisioner, claims, volumes),
            SnapshotController(self.client, self.recorder, snapshots, contents, snapshot_classes, claims, volumes),
            ContentController(self.client, provisioner, contents, volumes),
            Scheduler(self.client, self.recorder, pods, nodes, claims, volumes, classes),
        ):
            self.manager.add(controller.controller())
        gate = threading.Event()
        gate.set()
        self.manager.start(gate)

    def claim(self, storage="1Mi", namespace="default", name="c", **spec):
        """Create a claim."""
        return self.client.add(
            PVC,
            {
                "metadata": {"name": name, "namespace": namespace},
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

    def pod(self, namespace="default", name="p", claim="c"):
        """Create a Pod that uses the claim."""
        return self.client.add(
            POD,
            {
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "containers": [{"name": "c"}],
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
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

    def bound(self, name="c"):
        """Return a claim once it is bound."""
        return self.wait(
            lambda: (
                (claim := self.object("persistentvolumeclaims", "default", name))
                and claim.get("status", {}).get("phase") == "Bound"
                and claim
            )
        )

    def said(self, reason):
        """Wait for an event and return its message."""
        return self.wait(lambda: next((text for _, kind, text in self.recorder.events if kind == reason), None))

    def object(self, plural, namespace, name):
        """Return an object or None."""
        return self.client.objects.get((plural, namespace, name))
