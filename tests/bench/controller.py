# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""virt-controller with thousands of VMIs: its memory for each, its requests for each, how many it takes on a second.

The API server is the standalone one, behind TLS. What nodes do is simulated: Pods are bound and become ready as soon as
they are there, guests run as soon as virt-controller hands them over. So the time is the controller's and the API
server's; the requests are counted by the API server, in its audit log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apiserver import NAMESPACE, Client, Engine, Target, free_port, scratch, virtual_machine_instance
from turtles.api import crd, times
from turtles.api.kind import Context
from turtles.api.kinds import KINDS
from turtles.api.kinds.vmi.defaults import default

NODE = "bench-node"
#: Seconds without any progress after which the benchmark gives up.
PATIENCE = 120
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
VMIS = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachineinstances"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class Audited(Engine):
    """The standalone API server with an audit log."""

    def commands(self) -> list[list[str]]:
        """Return the commands that are the server."""
        log = ["--audit-log-path", str(self.root / "audit.log"), "--audit-log-maxsize", "4000"]
        return [[*command, *log] for command in super().commands()]


class Connections(threading.local):
    """A connection for each thread."""

    def __init__(self, target: Target) -> None:
        self.client = Client(target)


class Nodes:
    """What kubelets, the scheduler and node agents do, in a few threads."""

    def __init__(self, target: Target, expected: int) -> None:
        self._target, self._expected = target, expected
        self._connections = Connections(target)
        self._pool = ThreadPoolExecutor(8)
        self.running: set[str] = set()
        self.done = threading.Event()

    def start(self) -> None:
        """Watch Pods and VMIs, and do what they wait for."""
        for path, act in ((PODS, self._pod), (VMIS, self._vmi)):
            threading.Thread(target=self._watch, args=(path, act), daemon=True).start()

    def _watch(self, path: str, act: Any) -> None:
        connection = self._target.connect()
        connection.sendall(self._target.request("GET", f"{path}?watch=true&allowWatchBookmarks=false"))
        stream = connection.makefile("rb")
        while stream.readline().strip():
            pass
        while size := int(stream.readline() or b"0", 16):
            event = json.loads(stream.read(size))
            stream.readline()
            self._pool.submit(self._try, act, event["type"], event["object"])

    def _try(self, act: Any, type_: str, obj: dict[str, Any]) -> None:
        try:
            act(type_, obj)
        except Exception as error:
            print(f"{obj['metadata']['name']}: {error}", file=sys.stderr)

    def _pod(self, type_: str, pod: dict[str, Any]) -> None:
        if type_ != "ADDED":
            return
        name, now = pod["metadata"]["name"], times.now()
        call = self._connections.client.call
        call("POST", f"{PODS}/{name}/binding", {"target": {"kind": "Node", "name": NODE}, "metadata": {"name": name}})
        conditions = [
            {"type": type_, "status": "True", "lastTransitionTime": now}
            for type_ in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        containers = [
            {
                "name": container["name"],
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": container["image"],
                "imageID": f"{container['image']}@sha256:{'0' * 64}",
                "containerID": f"bench://{name}",
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ]
        status = {
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": containers,
            "hostIP": "192.0.2.1",
            "podIP": "192.0.2.2",
            "podIPs": [{"ip": "192.0.2.2"}],
            "startTime": now,
        }
        call("PATCH", f"{PODS}/{name}/status", {"status": status}, MERGE_PATCH)

    def _vmi(self, type_: str, vmi: dict[str, Any]) -> None:
        status, name = vmi.get("status") or {}, vmi["metadata"]["name"]
        if status.get("phase") == "Running":
            self.running.add(name)
            if len(self.running) == self._expected:
                self.done.set()
        if status.get("phase") != "Scheduled":
            return
        now = times.now()
        transitions = status.get("phaseTransitionTimestamps") or []
        changed = {
            "phase": "Running",
            "phaseTransitionTimestamps": [*transitions, {"phase": "Running", "phaseTransitionTimestamp": now}],
            "interfaces": [
                {
                    "name": "default",
                    "ipAddress": "192.0.2.2",
                    "ipAddresses": ["192.0.2.2"],
                    "mac": "02:00:00:00:00:02",
                    "podInterfaceName": "eth0",
                    "infoSource": "domain",
                    "queueCount": 1,
                    "linkState": "up",
                }
            ],
            "machine": {"type": "pc-q35-7.2"},
            "conditions": [
                *(one for one in status.get("conditions") or () if one["type"] != "Ready"),
                {"type": "Ready", "status": "True", "lastTransitionTime": now},
                {"type": "LiveMigratable", "status": "False", "reason": "InterfaceNotLiveMigratable"},
            ],
        }
        self._connections.client.call("PATCH", f"{VMIS}/{name}", {"status": changed}, MERGE_PATCH)


def prepare(target: Target) -> None:
    """Install the engine's kinds and a node that may run machines."""
    client = Client(target)
    for kind in KINDS:
        client.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd.crd(kind))
    deadline = time.monotonic() + 60
    while client.send(target.request("GET", VMIS))[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the CustomResourceDefinitions don't get served")
        time.sleep(0.1)
    capacity = {"cpu": "100000", "memory": "100Ti", "pods": "100000", "ephemeral-storage": "100Ti"}
    node = {
        "metadata": {
            "name": NODE,
            "labels": {"kubevirt.io/schedulable": "true", "kubernetes.io/arch": "amd64"},
            "annotations": {"kubevirt.io/heartbeat": times.now()},
        }
    }
    client.call("POST", "/api/v1/nodes", node)
    ready = [{"type": "Ready", "status": "True", "lastHeartbeatTime": times.now(), "lastTransitionTime": times.now()}]
    status = {"capacity": capacity, "allocatable": capacity, "conditions": ready}
    client.call("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status}, MERGE_PATCH)
    client.close()


def beat(target: Target, stop: threading.Event) -> None:
    """Be the node's heartbeat."""
    client = Client(target)
    while not stop.wait(30):
        annotations = {"kubevirt.io/heartbeat": times.now()}
        client.call("PATCH", f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": annotations}}, MERGE_PATCH)


def private_memory(pid: int) -> float:
    """Return the memory of a process that is its own, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(log: Path) -> Counter[str]:
    """Return virt-controller's requests by verb and resource, as the API server counted them."""
    found: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["stage"] == "ResponseComplete" and event.get("userAgent", "").startswith("virt-controller"):
            what = event.get("objectRef") or {}
            subresource = "/" + what["subresource"] if what.get("subresource") else ""
            found[f"{event['verb']} {what.get('resource', '')}{subresource}"] += 1
    return found


def create(target: Target, first: int, count: int) -> None:
    """Create VMIs as admission leaves them, over four connections."""

    def some(part: int) -> None:
        client = Client(target)
        for number in range(first + part, first + count, 4):
            vmi = virtual_machine_instance(f"bench-{number:05d}")
            vmi["spec"]["volumes"] = vmi["spec"]["volumes"][3:]
            vmi["spec"]["domain"]["devices"]["disks"] = vmi["spec"]["domain"]["devices"]["disks"][3:]
            del vmi["metadata"]["annotations"]["bench/pad"]
            client.call("POST", VMIS, default(vmi, Context(now=times.now())))
        client.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, range(4)))


def run(count: int, root: Path) -> None:
    """Measure, and print what was found."""
    server = Audited(root / "engine")
    server.root.mkdir()
    target = server.prepare()
    stop = threading.Event()
    controller: subprocess.Popen[bytes] | None = None
    try:
        server.start(target)
        prepare(target)
        threading.Thread(target=beat, args=(target, stop), daemon=True).start()
        kubeconfig = server.root / "etc/admin.kubeconfig"
        command = [sys.executable, "-m", "turtles.controller.main", "--kubeconfig", str(kubeconfig)]
        options = ["--no-leader-elect", "--image-volumes", "yes", "--health-port", str(free_port())]
        with open(server.root / "controller.log", "wb") as log:
            controller = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        time.sleep(5)
        empty, cpu = private_memory(controller.pid), processor_seconds(controller.pid)
        nodes = Nodes(target, count)
        nodes.start()
        began = time.monotonic()
        create(target, 0, count)
        created = time.monotonic() - began
        seen = -1
        while not nodes.done.wait(PATIENCE):
            if len(nodes.running) == seen:
                raise RuntimeError(f"{seen} of {count} run, and no more of them: {server.last_words()}")
            seen = len(nodes.running)
        took = time.monotonic() - began
        # What is on its way when the last of them runs.
        time.sleep(5)
        full, used = private_memory(controller.pid), processor_seconds(controller.pid) - cpu
        counted = requests(server.root / "audit.log")
        print(f"{count} VMIs created in {created:.0f} s, all running after {took:.0f} s: {count / took:.1f} a second")
        print(f"virt-controller: {empty / 1024:.0f} MiB without any, {full / 1024:.0f} MiB with all of them")
        print(f"memory for each VMI: {(full - empty) / count:.1f} KiB (aim: 40 or less)")
        print(f"processor time for each VMI: {used / count * 1000:.1f} ms")
        print("requests for each VMI, as the API server counts them:")
        for what, number in counted.most_common():
            if number > count / 100:
                print(f"  {number / count:6.2f}  {what}")
    finally:
        stop.set()
        if controller is not None:
            controller.terminate()
            controller.wait()
        server.stop()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmis", type=int, default=10000, help="how many (default: %(default)s)")
    options = parser.parse_args()
    with scratch() as root:
        run(options.vmis, root)


if __name__ == "__main__":
    main()
