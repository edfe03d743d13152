# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's labels, its heartbeat, and whether it offers KVM."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from turtles.api import labels
from turtles.handler import kvm
from turtles.kube.client import ApiError, Client, NotFound
from turtles.kube.resources import NODE

log = logging.getLogger(__name__)

#: Seconds between two heartbeats. The controller gives a node up whose last one is five minutes old.
HEARTBEAT = 60.0
#: Seconds after which a node that isn't registered yet, or a server that didn't answer, is tried again.
_RETRY = 1.0
#: How many guests may use a device at once (KubeVirt's ``--max-devices``).
MAX_DEVICES = 1000
#: Names of CPU vendors as KubeVirt's labels have them.
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}


def static_labels(cpuinfo: str) -> dict[str, str]:
    """Return the labels of a node that can run guests.

    :param cpuinfo: text of /proc/cpuinfo.
    """
    found = {labels.NODE_SCHEDULABLE: "true", f"{labels.MACHINE_TYPE_PREFIX}q35": "true"}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "vendor_id":
            vendor = value.strip()
            found[f"{labels.CPU_VENDOR_PREFIX}{_VENDORS.get(vendor, vendor)}"] = "true"
            break
    return found


class NodeAgent:
    """Keeps the node's object up to date, on a thread of its own."""

    def __init__(self, client: Client, node: str, *, emulator: str, kvm_device: Path = Path("/dev/kvm")) -> None:
        """Make one for the node of that name; *emulator* is QEMU's path on the node, for the probe."""
        self._client = client
        self._node = node
        self._emulator = emulator
        self._kvm_device = kvm_device
        self._stop = threading.Event()

    def start(self) -> None:
        """Start labelling, beating, and (once) probing for KVM."""
        for name, run in (("heartbeat", self._beat), ("kvm-probe", self._offer_kvm)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Stop beating."""
        self._stop.set()

    def _beat(self) -> None:
        wanted = static_labels(Path("/proc/cpuinfo").read_text())
        while not self._stop.is_set():
            heartbeat = {labels.NODE_HEARTBEAT: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
            body = {"metadata": {"labels": wanted, "annotations": heartbeat}}
            self._insist(lambda body=body: self._client.patch(NODE, None, self._node, body))  # type: ignore[misc]
            self._stop.wait(HEARTBEAT)

    def _offer_kvm(self) -> None:
        result = kvm.probe(emulator=self._emulator) if self._kvm_device.exists() else None
        if result is None:
            log.info("no KVM: guests are emulated", extra={"device": str(self._kvm_device)})
        elif result.ok:
            log.info("KVM works", extra={"seconds": round(result.seconds, 2)})
        else:
            log.warning(
                "KVM does not work: guests are emulated",
                extra={"device": str(self._kvm_device), "stages": result.stages, "why": result.message},
            )
        # None takes away what an earlier start may have found.
        amount = str(MAX_DEVICES) if result is not None and result.ok else None
        body = {"status": {"capacity": {labels.DEVICE_KVM: amount}, "allocatable": {labels.DEVICE_KVM: amount}}}
        self._insist(lambda: self._client.patch(NODE, None, self._node, body, subresource="status"))

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
