# SPDX-License-Identifier: GPL-3.0-or-later
"""First consumers of claims that are bound only when a Pod uses them.

A machine starts when its disks are there, and a disk is made once its claim is bound: on the node where the machine is
to run. So a Pod with the needs of the machine's launcher comes before it, which does nothing but be scheduled, as
KubeVirt has it (user guide, "Disks and volumes": WaitForFirstConsumer).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence

from turtles.api import cdi, labels
from turtles.api.kinds.vmi.hotplug import is_hotpluggable
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import is_final, phase_of
from turtles.controller.caches import BY_OWNER, data_volumes_of, users_of_data_volume
from turtles.controller.pod.attachment import on_node_of
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod
from turtles.controller.pod.roles import by_role
from turtles.controller.shared import Shared
from turtles.domain import paths
from turtles.kube.client import AlreadyExists
from turtles.kube.informer import Key
from turtles.kube.kubevirt import VMI
from turtles.kube.manager import Controller, Trigger, each, owner_of
from turtles.kube.resources import POD

log = logging.getLogger(__name__)

APP = "virt-launcher-provisioner"
#: What the Pod does: nothing (:mod:`turtles.launcher.main`).
COMMAND = ["/usr/bin/virt-launcher", "provision"]


def consumer_name(vmi: Object) -> str:
    """Return the name of a VMI's first consumer. The same VMI always gets the same name."""
    return f"virt-provision-{hashlib.sha256(vmi['metadata']['uid'].encode()).hexdigest()[:10]}"


def waiting_volumes(vmi: Object, launcher: Object | None, data_volumes: Mapping[str, Object]) -> list[Object]:
    """Return the volumes of a VMI whose claims wait for a consumer: before it starts those that it starts with, and
    once it has a node those that come later.

    :param launcher: its Pod, or None. :param data_volumes: those that fill its claims, by name.
    """
    if is_deleted(vmi) or is_final(vmi) or (launcher is not None and not launcher["spec"].get("nodeName")):
        return []
    waiting = {name for name, found in data_volumes.items() if phase_of(found) in cdi.AWAITS_CONSUMER}
    return [
        volume
        for volume in vmi["spec"].get("volumes") or ()
        if paths.claim_of(volume) in waiting and is_hotpluggable(volume) == (launcher is not None)
    ]


def consumer_pod(vmi: Object, launcher: Object | None, volumes: Sequence[Object], config: LauncherConfig) -> Object:
    """Return the Pod: as the launcher's, as far as it is about where it runs; or on the launcher's node.

    :param volumes: whose claims it uses.
    """
    wanted = launcher_pod({**vmi, "spec": {**vmi["spec"], "volumes": []}}, config)
    container = wanted["spec"]["containers"][0]
    kept = ("image", "imagePullPolicy", "securityContext", *(() if launcher else ("resources",)))
    dropped = ("readinessGates", "initContainers", "hostname", "subdomain", "serviceAccountName")
    spec = {key: value for key, value in wanted["spec"].items() if key not in dropped}
    if launcher is not None:
        spec = {key: value for key, value in spec.items() if key not in ("nodeSelector", "topologySpreadConstraints")}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": on_node_of(launcher)}}
    claims = dict.fromkeys(str(paths.claim_of(volume)) for volume in volumes)
    spec |= {
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 0,
        "volumes": [
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
            for number, claim in enumerate(claims)
        ],
        "containers": [{"name": "provision", "command": list(COMMAND), **{key: container[key] for key in kept}}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": consumer_name(vmi),
            "namespace": vmi["metadata"]["namespace"],
            # None of the launcher's: those select what Services, budgets and network policies are about.
            "labels": {labels.APP: APP},
            "annotations": {"kubevirt.io/ephemeral-provisioning": "true"},
            "ownerReferences": wanted["metadata"]["ownerReferences"],
        },
        "spec": spec,
    }


class ConsumerController:
    """Creates first consumers, and deletes them when they aren't needed any more."""

    def __init__(self, shared: Shared, configuration: Callable[[Object], LauncherConfig]) -> None:
        """Make the controller.

        :param configuration: gives what launchers of a VMI are made with.
        """
        self._writer, self._caches, self._configuration = shared.writer, shared.caches, configuration
        self._pods = shared.manager.informer(POD, label_selector=f"{labels.APP}={APP}")

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        vmis, pods = self._caches.vmis, self._caches.pods
        triggers = (
            each(vmis),
            owner_of(pods, VMI.kind),
            owner_of(self._pods, VMI.kind),
            Trigger(self._caches.data_volumes, lambda old, new: users_of_data_volume(vmis, old, new)),
        )
        return Controller("first_consumer", self.reconcile, triggers, reads=(self._caches.nodes,))

    def reconcile(self, key: Key) -> None:
        """See to one VMI."""
        vmi = self._caches.vmis.get(*key)
        if vmi is None:
            return
        namespace, uid = vmi["metadata"]["namespace"], vmi["metadata"]["uid"]
        pod = self._pods.get(namespace, consumer_name(vmi))
        data_volumes = data_volumes_of(self._caches, namespace, vmi["spec"])
        launcher = by_role(vmi, self._caches.pods.by_index(BY_OWNER, uid)).launcher
        volumes = waiting_volumes(vmi, launcher, data_volumes)
        wanted = bool(volumes) and (pod is None or _uses(pod) == {paths.claim_of(volume) for volume in volumes})
        if wanted and pod is None:
            self._create(consumer_pod(vmi, launcher, volumes, self._configuration(vmi)))
        elif pod is not None and not wanted and not is_deleted(pod):
            self._writer.delete(self._pods, pod)

    def _create(self, wanted: Object) -> None:
        with contextlib.suppress(AlreadyExists):
            self._writer.create(self._pods, wanted)
            log.info("first consumer created", extra={"namespace": wanted["metadata"]["namespace"]})


def _uses(pod: Object) -> set[str]:
    return {volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]}
