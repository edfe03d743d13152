# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-controller``: VirtualMachines become VirtualMachineInstances, those become launcher Pods."""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from turtles import __version__
from turtles.api import labels
from turtles.api.objects import Object, controller_of
from turtles.api.phases import PENDING, phase_of
from turtles.controller.disruption import DisruptionController
from turtles.controller.kubevirt import KubeVirtController
from turtles.controller.launcher_pod import LauncherConfig
from turtles.controller.node import BY_NODE, NodeController, is_out_of_service, is_ready, node_of
from turtles.controller.vm import VMController, claim_names
from turtles.controller.vmi import BY_NAMESPACE, BY_OWNER, VMIController
from turtles.health import HealthServer
from turtles.kube.client import ApiError, Client, ConfigError
from turtles.kube.configuration import ConfigurationWatch
from turtles.kube.controller import run_workers
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key, index_by_owner, key_of, wait_synced
from turtles.kube.kubevirt import VM, VMI
from turtles.kube.leader import LeaderElector
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import NODE, POD, PVC, RESOURCEQUOTA
from turtles.log import setup_logging

log = logging.getLogger(__name__)

COMPONENT = "virt-controller"
#: Index of the VM and VMI informers: claims that an object's volumes name, as ``namespace/name``.
BY_CLAIM = "claim"
#: Index of the VMI informer: namespaces in which a VMI has no Pod as yet.
PENDING_IN = "pending"
#: Worker threads a kind. One object's work is a few requests; more threads only compete for the interpreter.
WORKERS = {"vm": 2, "vmi": 3, "node": 1, "disruption": 1, "kubevirt": 1}
#: Seconds between two tries to ask the API server what it serves.
_RETRY = 2.0


class Controller:
    """All controllers of the component, with the caches they share."""

    def __init__(self, client: Client, config: LauncherConfig, namespace: str = "kubevirt") -> None:
        self.configuration = ConfigurationWatch(client, namespace)
        self.kubevirts = self.configuration.informer
        self.recorder = Recorder(client, COMPONENT)
        self.vms = Informer(client, VM)
        self.vmis = Informer(client, VMI)
        self.pods = Informer(client, POD, label_selector=f"{labels.APP}={labels.APP_LAUNCHER}")
        self.nodes = Informer(client, NODE)
        self.pvcs = Informer(client, PVC)
        self.quotas = Informer(client, RESOURCEQUOTA)
        self._informers = (self.kubevirts, self.vms, self.vmis, self.pods, self.nodes, self.pvcs, self.quotas)
        self._vm_queue: WorkQueue[Key] = WorkQueue("vm")
        self._vmi_queue: WorkQueue[Key] = WorkQueue("vmi")
        self._node_queue: WorkQueue[Key] = WorkQueue("node")
        self._disruption_queue: WorkQueue[Key] = WorkQueue("disruption")
        self._kubevirt_queue: WorkQueue[Key] = WorkQueue("kubevirt")
        self._queues = (self._vm_queue, self._vmi_queue, self._node_queue, self._disruption_queue,
                        self._kubevirt_queue)
        #: Set once the caches hold everything: the component works, or waits to lead.
        self.filled = threading.Event()
        self._in_touch_since: Callable[[], float] = lambda: 0.0
        self.pods.add_index(BY_OWNER, index_by_owner)
        self.vmis.add_index(BY_NODE, node_of)
        self.vmis.add_index(PENDING_IN, _pending_in)
        self.quotas.add_index(BY_NAMESPACE, lambda quota: [quota["metadata"]["namespace"]])
        self.vms.add_index(BY_CLAIM, lambda vm: _claims(vm, (vm["spec"].get("template") or {}).get("spec") or {}))
        self.vmis.add_index(BY_CLAIM, lambda vmi: _claims(vmi, vmi["spec"]))
        self._vm = VMController(client, self.vms, self.vmis, self.pvcs, self.recorder)
        self._vmi = VMIController(client, self.vmis, self.pods, self.nodes, self.pvcs, self.quotas, self.recorder,
                                  config, lambda: self.configuration.current, self._vm.has_noted_end)
        self._node = NodeController(client, self.nodes, self.vmis, self.pods, self.recorder, self._hearing_since)
        self._disruption = DisruptionController(client, self.vmis)
        self._kubevirt = KubeVirtController(client, namespace, self.kubevirts, self.nodes, self.vms, self.vmis,
                                            self.recorder, config.image)

    def start(self, gate: threading.Event, in_touch_since: Callable[[], float] | None = None) -> None:
        """Fill the caches, then work whenever ``gate`` is set; returns at once.

        :param in_touch_since: gives the moment (monotonic) since which the API server has answered, where somebody asks
            all the time. A watch alone doesn't notice a server that is there and does nothing.
        """
        if in_touch_since is not None:
            self._in_touch_since = in_touch_since
        for informer in self._informers:
            informer.start()
        threading.Thread(target=self._work, args=(gate,), name="start", daemon=True).start()

    def stop(self) -> None:
        """Stop working; requests on their way are not waited for."""
        for queue in self._queues:
            queue.close()
        for informer in self._informers:
            informer.stop(timeout=0)
        self._disruption.stop()
        self._kubevirt.stop()
        self.recorder.close()

    def figures(self, gate: threading.Event) -> dict[str, float]:
        """Give the component's figures, under KubeVirt's names where it has them."""
        phases = Counter(phase_of(vmi).lower() for vmi in self.vmis.list())
        return {
            "kubevirt_virt_controller_leading_status": float(gate.is_set()),
            "kubevirt_vmi_number_of_running": float(phases["running"]),
            "kubevirt_number_of_vms": float(len(self.vms.list())),
        }

    def _work(self, gate: threading.Event) -> None:
        while not wait_synced(self._informers, 10.0):
            waiting = [informer.resource.plural for informer in self._informers if not informer.synced]
            log.warning("waiting for the API server", extra={"resources": waiting})
        # Only now: what a reconcile finds in the caches must be the whole truth.
        self.vms.add_handler(_each(self._vm_queue.add, key_of))
        self.vmis.add_handler(_each(self._vmi_queue.add, key_of))
        self.vmis.add_handler(_each(self._vm_queue.add, key_of))  # a VM's VMI has its name
        self.pods.add_handler(self._pod_changed)
        self.pvcs.add_handler(self._claim_changed)
        self.nodes.add_handler(self._node_changed)
        self.quotas.add_handler(self._quota_changed)
        self.filled.set()
        log.info("caches filled", extra={"vms": len(self.vms.list()), "vmis": len(self.vmis.list())})
        run_workers(self._vm_queue, self._vm.reconcile, WORKERS["vm"], "vm", gate=gate)
        run_workers(self._vmi_queue, self._vmi.reconcile, WORKERS["vmi"], "vmi", gate=gate)
        run_workers(self._node_queue, self._node.reconcile, WORKERS["node"], "node", gate=gate)
        # Last, and on its own thread: nobody's machine waits for it.
        _insist(lambda: self._disruption.start(self._disruption_queue.add), "disruption budgets")
        self.vmis.add_handler(_each(self._disruption_queue.add, key_of))
        run_workers(self._disruption_queue, self._disruption.reconcile, WORKERS["disruption"], "disruption", gate=gate)
        _insist(lambda: self._kubevirt.start(self._installation_changed), "the installation")
        self.kubevirts.add_handler(_each(self._kubevirt_queue.add, key_of))
        for informer in (self.vms, self.vmis):
            informer.add_handler(self._machine_gone)
        run_workers(self._kubevirt_queue, self._kubevirt.reconcile, WORKERS["kubevirt"], "kubevirt", gate=gate)

    def _hearing_since(self) -> float:
        """Give the moment since which a heartbeat that is written is seen here."""
        return max(self.nodes.watching_since, self._in_touch_since())

    def _installation_changed(self) -> None:
        for kubevirt in self.kubevirts.list():
            self._kubevirt_queue.add(key_of(kubevirt))

    def _machine_gone(self, old: Object | None, new: Object | None) -> None:
        # A KubeVirt object on its way out waits for the last one.
        if new is None:
            self._installation_changed()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        owner = controller_of(pod) if pod else None
        if pod and owner and owner.get("kind") == VMI.kind:
            self._vmi_queue.add((pod["metadata"]["namespace"], owner["name"]))

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        pvc = new or old
        if pvc is None or _binding(old) == _binding(new):
            return
        claim = "/".join(key_of(pvc))
        for vmi in self.vmis.by_index(BY_CLAIM, claim):
            self._vmi_queue.add(key_of(vmi))
        for vm in self.vms.by_index(BY_CLAIM, claim):
            self._vm_queue.add(key_of(vm))

    def _quota_changed(self, old: Object | None, new: Object | None) -> None:
        # Whoever was refused a Pod may have one now.
        quota = new or old
        if quota is not None:
            for vmi in self.vmis.by_index(PENDING_IN, quota["metadata"]["namespace"]):
                self._vmi_queue.add(key_of(vmi))

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        # A node's status changes all the time; a first heartbeat starts the look-out, which then looks by itself.
        node = new or old
        if node is not None and (old is None or new is None or _has_heartbeat(old) != _has_heartbeat(new)
                                 or is_ready(old) != is_ready(new)
                                 or is_out_of_service(old) != is_out_of_service(new)):
            self._node_queue.add(key_of(node))
            self._installation_changed()


def _insist(start: Callable[[], None], what: str) -> None:
    """Call until the API server answers."""
    while True:
        try:
            return start()
        except ApiError as error:
            log.warning("cannot look at %s yet: %s", what, error)
            time.sleep(_RETRY)


def _each(add: Callable[[Key], None], key: Callable[[Object], Key]) -> Callable[[Object | None, Object | None], None]:
    def handler(old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            add(key(obj))

    return handler


def _claims(obj: Object, spec: Object) -> list[str]:
    return [f"{obj['metadata']['namespace']}/{name}" for name in claim_names(spec)]


def _pending_in(vmi: Object) -> list[str]:
    return [vmi["metadata"]["namespace"]] if phase_of(vmi) in ("", PENDING) else []


def _binding(pvc: Object | None) -> str | None:
    return None if pvc is None else (pvc.get("status") or {}).get("phase") or ""


def _has_heartbeat(node: Object) -> bool:
    return bool((node["metadata"].get("annotations") or {}).get(labels.NODE_HEARTBEAT))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMPONENT, description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: the Pod's service account, then ~/.kube/config")
    parser.add_argument("--launcher-image", default=f"turtles/virt-launcher:{__version__}",
                        help="image of launcher Pods (default: %(default)s)")
    parser.add_argument("--image-volumes", default="auto", choices=("auto", "yes", "no"),
                        help="whether container disks are image volumes or containers of their own; auto goes by the "
                             "versions of server and nodes and the feature gate ImageVolume (default: %(default)s)")
    parser.add_argument("--namespace", default="kubevirt",
                        help="where the KubeVirt object and the lease are (default: %(default)s)")
    parser.add_argument("--leader-elect", action=argparse.BooleanOptionalAction, default=True,
                        help="work only while holding the lease virt-controller (default: yes)")
    parser.add_argument("--identity", default=socket.gethostname(),
                        help="holder of the lease; must be unique among replicas and stable over restarts "
                             "(default: the host's name)")
    parser.add_argument("--health-bind", default="", help="address of health and metrics; all if not given")
    parser.add_argument("--health-port", type=int, help="port of health and metrics; not served if not given")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (exit code 0), or until the lease is lost or the kubeconfig unusable (1)."""
    arguments = _arguments(argv)
    setup_logging(COMPONENT, arguments.log_level)
    # Many short tasks wait for each other here; the default of 5 ms would be most of a request's time.
    sys.setswitchinterval(0.001)
    try:
        client = Client.from_kubeconfig(arguments.kubeconfig, user_agent=f"{COMPONENT}/{__version__}")
    except ConfigError as error:
        log.error("%s", error)
        return 1
    ended = threading.Event()
    outcome = [0]

    def lost() -> None:
        outcome[0] = 1
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    images = {"yes": True, "no": False}.get(arguments.image_volumes)
    controller = Controller(client, LauncherConfig(arguments.launcher_image, image_volumes=images), arguments.namespace)
    controller.configuration.follow_verbosity("virtController", arguments.log_level)
    elector: LeaderElector | None = None
    if arguments.leader_elect:
        elector = LeaderElector(client, arguments.namespace, COMPONENT, arguments.identity, on_lost=lost)
        gate = elector.leading
        elector.start()
    else:
        gate = threading.Event()
        gate.set()
    log.info("started", extra={"version": __version__, "server": client.url, "pid": os.getpid()})
    controller.start(gate, elector.in_touch_since if elector else None)
    health = None
    if arguments.health_port is not None:
        health = HealthServer(COMPONENT, arguments.health_bind, arguments.health_port, controller.filled.is_set,
                              lambda: controller.figures(gate))
    ended.wait()
    if health is not None:
        health.close()
    controller.stop()
    if elector is not None:
        with contextlib.suppress(Exception):
            elector.stop()
    log.info("stopped")
    return outcome[0]


if __name__ == "__main__":
    sys.exit(main())
