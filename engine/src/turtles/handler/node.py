# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's labels, its heartbeat, and whether it offers KVM."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from turtles.api import labels, times
from turtles.domain import node_labels
from turtles.kube.client import ApiError, Client, NotFound
from turtles.kube.resources import NODE
from turtles.probe import node as probe

log = logging.getLogger(__name__)

#: Seconds between two heartbeats. The controller gives a node up whose last one is five minutes old.
HEARTBEAT = 60.0
#: Heartbeats between two looks whether the node has what was found: three minutes, as KubeVirt's node labeller.
_LOOK_EVERY = 3
#: Seconds after which a node that isn't registered yet, or a server that didn't answer, is tried again.
_RETRY = 1.0
#: Seconds a probe may take: on a busy machine it is ten times slower than on an idle one.
_PROBE_LIMIT = 120
#: Seconds that removing folders of sockets and notes may take; a Pod has 15 to end.
_RM_LIMIT = 8
#: Runs a command that sees the node's folders as the node does, in a Pod that shares its processes.
ON_NODE = ("nsenter", "--target=1", "--mount", "--")
#: How many guests may use KVM at once (KubeVirt's ``--max-devices``).
MAX_DEVICES = 1000


def run_probe(emulator: str) -> probe.Findings:
    """Probe this machine, as the launchers' user, with the programs of this installation.

    :param emulator: QEMU's path.
    :raises OSError, ValueError, subprocess.SubprocessError: if that isn't possible.
    """
    # The probe gives the folder to its own user. A long path would be too long for libvirt's sockets.
    with TemporaryDirectory(prefix="tp-") as folder:
        command = [sys.executable, "-m", "turtles.launcher.node_probe", "--output", folder, "--qemu-binary", emulator]
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_PROBE_LIMIT, check=True)
        return probe.read(Path(folder))


def _is_ours(key: str) -> bool:
    """Say whether a label or annotation is the engine's; the one that asks it for none is the administrator's."""
    if key in labels.CPU_MANAGER:
        return True
    domain = key.partition("/")[0]
    return (domain == labels.APP or domain.endswith(f".{labels.APP}")) and key != labels.SKIP_NODE_LABELLER


def _realtime() -> dict[str, str | None]:
    runtime = Path("/proc/sys/kernel/sched_rt_runtime_us")
    return node_labels.realtime(runtime.read_text() if runtime.exists() else "")


class NodeAgent:
    """Keeps the node's object up to date, on threads of its own."""

    def __init__(
        self,
        client: Client,
        node: str,
        find: Callable[[], probe.Findings],
        *,
        servers: Mapping[str, str] | None = None,
        offer_devices: Callable[[bool], None] | None = None,
        kubelet_dir: Path | None = None,
    ) -> None:
        """Create it for the node of that name.

        :param find: returns what a probe of the node found, at once or after probing; called on another thread.
        :param servers: annotations that say where requests about guests, and migrating guests, are taken.
        :param offer_devices: called with whether KVM works, to offer the node's devices to Pods. Without it the node's
            status says how much KVM there is (where no kubelet owns that).
        :param kubelet_dir: the kubelet's folder as it is seen from here, where there is a kubelet.
        """
        self._client = client
        self._node = node
        self._find = find
        self._servers = dict(servers or {})
        self._offer_devices = offer_devices
        self._kubelet_dir = kubelet_dir
        #: Labels and, where nobody else says it, the amount of KVM that the probe found, once the node has them.
        self._found: tuple[Mapping[str, str], str | None] | None = None
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the heartbeat, and determine once what the node can do."""
        self._heart.start()
        threading.Thread(target=self._describe, name="node-probe", daemon=True).start()

    def stop(self) -> None:
        """Stop the heartbeat."""
        self._stop.set()

    def leave(self, folders: Sequence[Path]) -> None:
        """After :meth:`stop`, remove everything of the engine from the node; it is being removed from the cluster.

        What can't be undone is logged, not retried.

        :param folders: folders of the node that go with all that is in them.
        """
        self._heart.join(_RETRY)
        try:
            metadata = self._client.get(NODE, None, self._node)["metadata"]
            changes = {
                kind: dict.fromkeys(key for key in metadata.get(kind) or {} if _is_ours(key))
                for kind in ("labels", "annotations")
            }
            if any(changes.values()):
                self._client.patch(NODE, None, self._node, {"metadata": changes})
        except ApiError as error:
            log.warning("can't remove the node's labels: %s", error, extra={"node": self._node})
        if folders:
            command = [*ON_NODE, "rm", "-rf", "--one-file-system", *map(str, folders)]
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_RM_LIMIT, check=True)
            except (OSError, subprocess.SubprocessError) as error:
                log.warning("can't remove the node's folders: %s", error, extra={"folders": [str(f) for f in folders]})

    def _beat(self) -> None:
        wanted = {labels.NODE_SCHEDULABLE: "true", **node_labels.static(Path("/proc/cpuinfo").read_text())}
        beats = 0
        while not self._stop.is_set():
            annotations = {labels.NODE_HEARTBEAT: times.now(), labels.NODE_SERVER: None, **self._servers}
            current = {**wanted, **self._cpu_manager(), **_realtime()}
            body = {"metadata": {"labels": current, "annotations": annotations}}
            self._insist(lambda body=body: self._client.patch(NODE, None, self._node, body))  # type: ignore[misc]
            beats += 1
            if beats % _LOOK_EVERY == 0 and self._found is not None and not self._stop.is_set():
                self._look(*self._found)
            self._stop.wait(HEARTBEAT)

    def _cpu_manager(self) -> dict[str, str]:
        if self._kubelet_dir is None:
            return {}
        try:
            state = (self._kubelet_dir / "cpu_manager_state").read_text()
        except OSError:
            state = ""
        return node_labels.cpu_manager(state)

    def _describe(self) -> None:
        try:
            findings = self._find()
        except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
            log.error("can't determine what this node can do, guests are emulated: %s", error)
            findings = probe.Findings(None)
        works = findings.kvm is not None and findings.kvm.ok
        if findings.kvm is None:
            log.info("no KVM: guests are emulated")
        elif works:
            log.info("KVM works", extra={"seconds": round(findings.kvm.seconds, 2)})
        else:
            log.warning(
                "KVM does not work: guests are emulated",
                extra={"stages": findings.kvm.stages, "why": findings.kvm.message},
            )
        amount = str(MAX_DEVICES) if works else None
        if self._offer_devices is not None:
            self._offer_devices(works)
        else:
            self._insist(lambda: self._offer_kvm(amount))
        wanted = node_labels.probed(
            findings.domain_capabilities, findings.host_capabilities, findings.features, kvm=works
        )
        self._insist(lambda: self._label(self._client.get(NODE, None, self._node), wanted))
        self._found = wanted, amount

    def _look(self, wanted: Mapping[str, str], amount: str | None) -> None:
        """Restore the node's labels and devices if its object was recreated or lost some of them.

        Tried once: the next heartbeat is due.
        """
        try:
            node = self._client.get(NODE, None, self._node)
            self._label(node, wanted)
            there = (node.get("status") or {}).get("allocatable") or {}
            if self._offer_devices is None and there.get(labels.DEVICE_KVM) != amount:
                self._offer_kvm(amount)
        except ApiError as error:
            log.warning("can't check whether the node has its labels: %s", error, extra={"node": self._node})

    def _offer_kvm(self, amount: str | None) -> None:
        """Set in the node's status how many guests may use KVM; None removes what an earlier start found."""
        status = {"status": {"capacity": {labels.DEVICE_KVM: amount}, "allocatable": {labels.DEVICE_KVM: amount}}}
        self._client.patch(NODE, None, self._node, status, subresource="status")

    def _label(self, node: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
        """Put labels on the node, and remove those of an earlier probe that no longer apply."""
        metadata = node["metadata"]
        if (metadata.get("annotations") or {}).get(labels.SKIP_NODE_LABELLER) == "true":
            if self._found is None:
                log.info("not labelling the node, as its annotation %s asks", labels.SKIP_NODE_LABELLER)
            return
        there = metadata.get("labels") or {}
        static = node_labels.static(Path("/proc/cpuinfo").read_text())
        stale = [
            name
            for name in there
            if name.startswith(node_labels.PREFIXES) and name not in wanted and name not in static
        ]
        changes: dict[str, str | None] = {name: value for name, value in wanted.items() if there.get(name) != value}
        changes.update(dict.fromkeys(stale))
        if changes:
            self._client.patch(NODE, None, self._node, {"metadata": {"labels": changes}})

    def _insist(self, write: Callable[[], Any]) -> None:
        while not self._stop.is_set():
            try:
                write()
                return
            except NotFound:
                log.debug("the node is not registered yet", extra={"node": self._node})
            except ApiError as error:
                log.warning("the node can't be updated: %s", error, extra={"node": self._node})
            self._stop.wait(_RETRY)
