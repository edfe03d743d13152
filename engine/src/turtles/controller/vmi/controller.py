# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstance → launcher Pod: reads the caches, asks the plan, and writes what it says.

What the node agent owns is changed in patches that test what they replace.
"""

import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from turtles.api import labels, times
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.configuration import ClusterConfiguration
from turtles.api.import_settings import ImportSettings
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.objects import Object, controller_of, labels_of, own
from turtles.api.phases import PENDING, phase_of, set_phase
from turtles.controller import remedies
from turtles.controller.caches import (
    BY_NAMESPACE,
    BY_OWNER,
    BY_SEEN_MAC,
    PENDING_IN,
    data_volumes_of,
    seen_mac,
    state_claims,
    users_of_claim,
    users_of_data_volume,
)
from turtles.controller.claims import claim_names
from turtles.controller.noted_ends import NotedEnds
from turtles.controller.pod import sriov, state
from turtles.controller.pod.attachment import attachment_pod
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod, pod_name
from turtles.controller.pod.obstacles import obstacles
from turtles.controller.pod.roles import by_role
from turtles.controller.server import Server, image_volumes, pulls_again
from turtles.controller.shared import Shared
from turtles.controller.state_claims import claim_name, current_claim, is_wanted
from turtles.controller.storage_classes import storage_class_of
from turtles.controller.vmi import vsock
from turtles.controller.vmi.decided import Plan
from turtles.controller.vmi.patches import annotation_patch, gate_patch, node_label_patch, vmi_patch
from turtles.controller.vmi.plan import plan
from turtles.controller.vmi.status import ready
from turtles.domain import paths
from turtles.domain.macs import macs
from turtles.kube.client import AlreadyExists, ApiError, NotFound, Unavailable
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import CDI_CONFIG, VMI
from turtles.kube.manager import Controller, Trigger, each, owner_of
from turtles.kube.resources import NETWORK, POD, STORAGECLASS
from turtles.log import about

log = logging.getLogger(__name__)

_FAILED_CREATE = "FailedCreate"


class VMIController:
    """Reconciles VirtualMachineInstances."""

    def __init__(self, shared: Shared, config: LauncherConfig, noted_ends: NotedEnds) -> None:
        """Make the controller.

        :param noted_ends: VMIs whose VM has taken note of their end.
        """
        caches = shared.caches
        self._client, self._writer, self._recorder, self._config = shared.client, shared.writer, shared.recorder, config
        self._vmis, self._pods, self._nodes = caches.vmis, caches.pods, caches.nodes
        self._pvcs, self._quotas, self._attachments = caches.pvcs, caches.quotas, caches.attachments
        self._configuration, self._noted_ends = shared.configuration, noted_ends
        self._server = Server(shared.client)
        self._caches, self._data_volumes = caches, caches.data_volumes
        self._import_configs = shared.manager.informer(CDI_CONFIG, optional=True)
        self._storage_classes = shared.manager.informer(STORAGECLASS)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._vmis),
            owner_of(self._pods, VMI.kind),
            Trigger(self._attachments, _attached_to),
            Trigger(self._pvcs, lambda old, new: users_of_claim(self._vmis, old, new)),
            Trigger(self._data_volumes, lambda old, new: users_of_data_volume(self._vmis, old, new)),
            Trigger(self._quotas, self._waiting_in),
        )
        return Controller(
            "vmi", self.reconcile, triggers, reads=(self._nodes, self._import_configs, self._storage_classes), workers=3
        )

    def _waiting_in(self, old: Object | None, new: Object | None) -> list[Key]:
        # Whoever was refused a Pod may have one now.
        namespace = (new or old or {})["metadata"]["namespace"]
        return [key_of(vmi) for vmi in self._vmis.by_index(PENDING_IN, namespace)]

    def reconcile(self, key: Key) -> float | None:
        """Bring one VMI closer to its spec; returns seconds after which to look again."""
        vmi = self._vmis.get(*key)
        if vmi is None:
            return None
        namespace = vmi["metadata"]["namespace"]
        pods = self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"])
        pvcs = {name: self._pvcs.get(namespace, name) for name in claim_names(vmi["spec"])}
        launchers = {pod["metadata"]["uid"] for pod in pods} | set((vmi.get("status") or {}).get("activePods") or ())
        attachments = [pod for uid in sorted(launchers) for pod in self._attachments.by_index(BY_OWNER, uid)]
        in_the_way = [] if pods else self._obstacles(vmi)
        decided = plan(
            vmi,
            pods,
            pvcs,
            datetime.now(UTC),
            noted=vmi in self._noted_ends,
            obstacles=in_the_way,
            addresses=vsock.addresses(self._vmis.list()) if vsock.is_without_address(vmi) else (),
            attachments=attachments,
            image=self._config.image,
            data_volumes=data_volumes_of(
                self._caches, namespace, vmi["spec"], [claim_name(vmi)] if is_wanted(vmi["spec"]) else []
            ),
            settings=ImportSettings.of(self._import_configs.get(None, CDI_CONFIG_NAME)),
        )
        if decided.lost_pod and (pod := self._live_pod(vmi)) is not None:
            self._pods.observe(pod)
            return 0.1
        if decided.create_pod:
            self._create_pod(vmi, decided.vmi)
        # A VMI that is final stays so; one that fails now is reported first, which explains what happens to its Pod.
        stored = self._store(vmi, decided.vmi)
        for event in decided.events:
            self._recorder.event(vmi, *event)
        if decided.failure:
            self._tell_failure(vmi, decided.failure)
        for pod in decided.delete_pods:
            self._delete_pod(stored, pod)
        launcher = by_role(vmi, pods).launcher
        if launcher is not None:
            self._mark_pod(launcher, decided, (stored.get("status") or {}).get("nodeName"))
        for pod in decided.detach:
            self._detach(stored, pod)
        if launcher is not None:
            for volume in decided.attach:
                self._attach(stored, launcher, volume)
        return decided.wait

    def _obstacles(self, vmi: Object) -> list[str]:
        found = obstacles(vmi, self._with_state_class(), self._doubles(vmi))
        for where in sriov.definitions(vmi).values():
            if why := sriov.obstacle(where, self._definition(*where)):
                found.append(why)
        return found

    def _definition(self, namespace: str, name: str) -> Object | None:
        """Return a NetworkAttachmentDefinition, None if there is none."""
        return self._client.find(NETWORK, namespace, name)

    def _doubles(self, vmi: Object) -> dict[str, Object]:
        """Return other VMIs with the MAC address of an interface on the same network, by the interface's name.

        Of two that wait for their Pods, the older one goes first.
        """
        found = {}
        for name, where, mac in macs(vmi):
            for other in self._vmis.by_index(BY_SEEN_MAC, seen_mac(where, mac)):
                waits = phase_of(other) in ("", PENDING)
                if _identity(other) != _identity(vmi) and (not waits or _age(other) < _age(vmi)):
                    found[name] = other
        return found

    def _live_pod(self, vmi: Object) -> Object | None:
        """Return the VMI's Pod as the server has it now; caches of different kinds may be apart."""
        return own(vmi, self._client.find(POD, vmi["metadata"]["namespace"], pod_name(vmi)))

    def _create_pod(self, vmi: Object, planned: Object) -> None:
        name = pod_name(vmi)
        try:
            config = self.launcher_config(planned)
            self._create_state_claim(vmi, config.state_claim)
            self._writer.create(self._pods, launcher_pod(planned, config))
        except AlreadyExists as error:
            found = self._live_pod(vmi)
            if found is None:
                self._not_created(vmi, f"Pod {name} exists and does not belong to the machine", remedies.POD_IN_THE_WAY)
                raise error
            self._pods.observe(found)
            return
        except Unavailable:
            raise
        except ApiError as error:
            self._not_created(vmi, f"Error creating pod: {error.message}", remedies.of_refusal(error))
            raise
        log.info("Pod created", extra=about("vmi", vmi, pod=name))
        self._recorder.event(vmi, "Normal", "SuccessfulCreate", f"Created virtual machine pod {name}")

    def _attach(self, vmi: Object, launcher: Object, volume: Mapping[str, Any]) -> None:
        """Create the Pod that holds the claim of a volume."""
        pod = attachment_pod(vmi, launcher, volume, self.launcher_config(vmi))
        name = pod["metadata"]["name"]
        try:
            self._writer.create(self._attachments, pod)
        except AlreadyExists:
            return  # the cache was behind, or an earlier one is on its way out: its end calls for the next look
        except Unavailable:
            raise
        except ApiError as error:
            message = f"Error creating attachment pod: {error.message}"
            self._recorder.event(vmi, "Warning", _FAILED_CREATE, remedies.advised(message, remedies.of_refusal(error)))
            raise
        log.info("attachment Pod created", extra=about("vmi", vmi, pod=name))
        self._recorder.event(vmi, "Normal", "SuccessfulCreate", f"Created attachment pod {name}")

    def _detach(self, vmi: Object, pod: Object) -> None:
        """Delete a Pod that holds a claim."""
        if self._writer.delete(self._attachments, pod):
            message = f"Deleted attachment pod {pod['metadata']['name']}"
            self._recorder.event(vmi, "Normal", "SuccessfulDelete", message)

    def _state_claim(self, vmi: Object) -> str | None:
        """Return the name of the claim with what outlives the machine, if it is to have one."""
        if not is_wanted(vmi["spec"]):
            return None
        metadata, owner = vmi["metadata"], controller_of(vmi) or {}
        labelled = state_claims(self._pvcs, metadata["namespace"], metadata["name"])
        vm = self._caches.vms.get(metadata["namespace"], metadata["name"])
        is_its = vm is not None and vm["metadata"]["uid"] == owner.get("uid")
        return current_claim(vmi, labelled, vm if is_its else None)

    def _create_state_claim(self, vmi: Object, name: str | None) -> None:
        """Create the claim with what outlives the machine, if it is to have one and hasn't."""
        claim = state.claim(vmi, self._with_state_class())
        if claim is not None and name is not None and self._pvcs.get(vmi["metadata"]["namespace"], name) is None:
            with contextlib.suppress(AlreadyExists):
                self._writer.create(self._pvcs, claim)

    def _with_state_class(self) -> ClusterConfiguration:
        """Return the configuration in force with the StorageClass of what outlives machines: the default one if it
        names none.
        """
        cluster = self._configuration()
        default = storage_class_of(cluster.state_storage_class, self._storage_classes.list())
        if cluster.state_storage_class is not None or default is None:
            return cluster
        return replace(cluster, state_storage_class=default["metadata"]["name"])

    def _not_created(self, vmi: Object, message: str, remedy: str) -> None:
        """Tell the user why there is no Pod; the next try comes by itself."""
        status = copy.deepcopy(vmi.get("status") or {})
        now = times.now()
        set_phase(status, phase_of(vmi) or PENDING, now)
        conditions = conditions_in(status)
        set_condition(conditions, "Synchronized", "False", _FAILED_CREATE, message, now)
        set_condition(conditions, "Ready", *ready(vmi, None), now)
        self._store(vmi, {**vmi, "status": status})
        self._recorder.event(vmi, "Warning", _FAILED_CREATE, remedies.advised(message, remedy))

    def _delete_pod(self, vmi: Object, pod: Object) -> None:
        name = pod["metadata"]["name"]
        try:
            deleted = self._writer.delete(self._pods, pod)
        except ApiError as error:
            message = f"Failed to delete virtual machine pod {name}: {error.message}"
            self._recorder.event(vmi, "Warning", "FailedDelete", message)
            raise
        if deleted:
            self._recorder.event(vmi, "Normal", "SuccessfulDelete", f"Deleted virtual machine pod {name}")

    def _mark_pod(self, pod: Object, decided: Plan, node: str | None) -> None:
        """Bring what the Pod says up to date, in one request where it can.

        That is its readiness gate, its label with the VMI's node, and its annotations about networks.
        """
        readiness = [] if decided.gate is None else gate_patch(pod, decided.gate, times.now())
        rest = node_label_patch(pod, node) if node else []
        rest += annotation_patch(pod, labels.NETWORKS, decided.networks)
        rest += annotation_patch(pod, labels.NETWORK_INFO, decided.network_info)
        if not readiness and not rest:
            return
        with contextlib.suppress(NotFound):
            self._writer.apply(self._pods, pod, [*readiness, *rest], subresource="status" if readiness else None)

    def _store(self, old: Object, new: Object) -> Object:
        patch = vmi_patch(old, new)
        if not patch:
            return old
        try:
            stored = self._writer.apply(self._vmis, old, patch)
        except NotFound:
            return old
        if phase_of(stored) != phase_of(old):
            log.info("phase changed", extra=about("vmi", old, phase=phase_of(stored)))
        return stored

    def _tell_failure(self, vmi: Object, message: str) -> None:
        """A user who looks at the VM must see what its VMI died of: the VMI may be gone by then."""
        metadata = vmi["metadata"]
        log.warning(
            "VMI failed: %s",
            message,
            extra=about("vmi", vmi, uid=metadata["uid"]),
        )
        self._recorder.event(vmi, "Warning", "Failed", message)
        owner = controller_of(vmi)
        if owner is not None:
            self._recorder.event({**owner, "namespace": metadata["namespace"]}, "Warning", "Failed", message)

    def mounts_images(self) -> bool:
        """Say whether Pods can have volumes of container images, wherever they run."""
        return self._has_image_volumes(self._schedulable(), self._configuration())

    def _has_image_volumes(self, nodes: Sequence[Object], cluster: ClusterConfiguration) -> bool:
        images = self._config.image_volumes
        return image_volumes(self._server.version(), nodes, cluster) if images is None else images

    def _schedulable(self) -> list[Object]:
        """Return the nodes that take machines."""
        return [node for node in self._nodes.list() if labels_of(node).get(labels.NODE_SCHEDULABLE) == "true"]

    def launcher_config(self, vmi: Object) -> LauncherConfig:
        """Return the configuration in force with what the nodes offer, and the VMI's namespace asks for, now."""
        nodes = self._schedulable()
        offered = [(node.get("status") or {}).get("allocatable") or {} for node in nodes]
        cluster = self._configuration()
        emulation = cluster.use_emulation
        kvm = _offers(offered, labels.DEVICE_KVM) if emulation is None else not emulation
        images = self._has_image_volumes(nodes, cluster)
        if images and is_pulled_always(vmi["spec"]) and pulls_again(nodes):
            images = False
        return replace(
            self._config,
            cluster=cluster,
            kvm=kvm,
            image_volumes=images,
            vhost_net=_offers(offered, labels.DEVICE_VHOST_NET),
            network_resources={
                name: sriov.resource(definition)
                for name, where in sriov.definitions(vmi).items()
                if (definition := self._definition(*where)) is not None
            },
            state_claim=self._state_claim(vmi),
            limited=limited_resources(self._quotas.by_index(BY_NAMESPACE, vmi["metadata"]["namespace"])),
        )


def _identity(vmi: Object) -> str:
    return str(vmi["metadata"]["uid"])


def _age(vmi: Object) -> tuple[str, str]:
    return str(vmi["metadata"].get("creationTimestamp") or ""), _identity(vmi)


def _attached_to(old: Object | None, new: Object | None) -> list[Key]:
    """Return the VMI that a Pod holds a claim for."""
    metadata = (new or old or {})["metadata"]
    name = (metadata.get("annotations") or {}).get(labels.DOMAIN)
    return [(metadata["namespace"], name)] if name else []


def limited_resources(quotas: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return for which resources these ResourceQuotas demand a limit of every container: cpu, memory."""
    hard = {name for quota in quotas for name in (quota.get("spec") or {}).get("hard") or {}}
    return frozenset(name for name in ("cpu", "memory") if f"limits.{name}" in hard)


def is_pulled_always(spec: Mapping[str, Any]) -> bool:
    """Return whether an image that a VMI's guest uses is to be pulled at each start."""
    return any(source.get("imagePullPolicy") == "Always" for source in paths.images(spec).values())


def _offers(allocatable: Sequence[Mapping[str, Any]], device: str) -> bool:
    return any(str(resources.get(device, "0")) not in ("0", "") for resources in allocatable)
