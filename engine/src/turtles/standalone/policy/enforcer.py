# SPDX-License-Identifier: GPL-3.0-or-later
"""Enforces NetworkPolicies on this machine: watches them, Pods and namespaces, and maintains one table of rules.

Packets from Pod to Pod don't leave their bridge. The kernel shows them to the rules all the same if its module
br_netfilter is there and told to.
"""

import contextlib
import logging
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from turtles.api.objects import Object
from turtles.kube.client import Client
from turtles.kube.controller import run_workers
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import NAMESPACE, NETWORKPOLICY
from turtles.standalone import nft
from turtles.standalone.nft import NftError
from turtles.standalone.policy import rules

log = logging.getLogger(__name__)

#: Seconds that the start of a Pod waits for the policies to be known.
_PATIENCE = 10.0
_BRIDGES = tuple(Path("/proc/sys/net/bridge", f"bridge-nf-call-{name}") for name in ("iptables", "ip6tables"))
_KEY = "policies"


class PolicyError(Exception):
    """Policies can't be enforced (yet); the message says why."""


class Policies:
    """Maintains the rules of one instance.

    :param pods: informer of the Pods of all nodes, which somebody else starts and stops.
    :param table: name of the table, which nothing else uses.
    """

    def __init__(self, client: Client, pods: Informer, recorder: Recorder, table: str) -> None:
        self._pods, self._recorder, self._table = pods, recorder, table
        self._policies, self._namespaces = (Informer(client, resource) for resource in (NETWORKPOLICY, NAMESPACE))
        self._queue: WorkQueue[str] = WorkQueue(_KEY, first_delay=0.1)
        self._known, self._stopped, self._lock = threading.Event(), threading.Event(), threading.Lock()
        #: Pods that start, with their addresses, which their status doesn't have yet; by uid.
        self._starting: dict[str, tuple[Object, Sequence[str]]] = {}
        self._applied: str | None = None
        self._told = ""

    def start(self) -> None:
        """Start, in threads of its own."""
        for informer in (self._policies, self._namespaces):
            informer.start()
        threading.Thread(target=self._begin, name="policies-start", daemon=True).start()

    def stop(self) -> None:
        """Stop; the rules stay."""
        self._stopped.set()
        self._queue.close()
        for informer in (self._policies, self._namespaces):
            informer.stop()

    def isolate(self, pod: Object, addresses: Sequence[str]) -> None:
        """Have the policies for a Pod hold before its containers start.

        :param addresses: the Pod's.

        :raises PolicyError: that isn't possible (yet).
        """
        if not self._known.wait(_PATIENCE):
            raise PolicyError("the network policies aren't known yet: the API server hasn't listed them")
        with self._lock:
            self._starting[pod["metadata"]["uid"]] = (pod, addresses)
        self.sync(_KEY)

    def release(self, uid: str) -> None:
        """Forget a Pod that was isolated."""
        with self._lock:
            self._starting.pop(uid, None)

    def sync(self, _: str) -> None:
        """Update the rules to what the API says.

        :raises PolicyError: the kernel refuses.
        """
        with self._lock:
            policies = self._policies.list()
            wanted = "".join(rules.script(self._table, each) for each in self._compute(policies)) if policies else ""
            if wanted == self._applied:
                return
            try:
                self._apply(wanted)
            except PolicyError as error:
                self._tell(policies, str(error))
                raise
            self._applied, self._told = wanted, ""

    def _informers(self) -> tuple[Informer, ...]:
        return self._policies, self._pods, self._namespaces

    def _begin(self) -> None:
        # Before that, half of the policies would be taken for all of them.
        while not wait_synced(list(self._informers()), 0.5):
            if self._stopped.is_set():
                return
        for informer in self._informers():
            informer.add_handler(lambda old, new: self._queue.add(_KEY))
        self._known.set()
        self._queue.add(_KEY)
        run_workers(self._queue, self.sync, 1, _KEY)

    def _compute(self, policies: list[Object]) -> Iterator[rules.Rules]:
        pods = self._pods.list()
        with_address = {pod["metadata"]["uid"] for pod in pods if (pod.get("status") or {}).get("podIP")}
        for uid in with_address & self._starting.keys():
            del self._starting[uid]
        namespaces = {
            each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in self._namespaces.list()
        }
        for version in rules.FAMILIES:
            members = [rules.member(pod, version) for pod in pods]
            members += [rules.member(pod, version, known) for pod, known in self._starting.values()]
            yield rules.compute(policies, [each for each in members if each is not None], namespaces, version)

    def _apply(self, wanted: str) -> None:
        try:
            if wanted:
                _filter_bridges()
                nft.run(wanted)
            elif self._applied or self._applied is None:
                nft.run(
                    "".join(
                        f"add table {family} {self._table}\ndelete table {family} {self._table}\n"
                        for family in rules.FAMILIES.values()
                    )
                )
        except NftError as error:
            raise PolicyError(f"nft refused the rules of network policies: {error}") from error

    def _tell(self, policies: list[Object], message: str) -> None:
        if message != self._told:
            self._told = message
            for policy in policies:
                self._recorder.event(policy, "Warning", "NotEnforced", message)


def _filter_bridges() -> None:
    """Have the kernel show rules what passes a bridge.

    :raises PolicyError: it can't.
    """
    if not _BRIDGES[0].exists():
        with contextlib.suppress(OSError):  # what is wrong shows in the next lines
            subprocess.run(["/sbin/modprobe", "br_netfilter"], capture_output=True, check=False)
    try:
        for switch in _BRIDGES:
            if switch.read_text().strip() != "1":
                switch.write_text("1")
    except OSError as error:
        raise PolicyError(
            f"traffic between Pods can't be filtered without the kernel module br_netfilter: {error}"
        ) from error
