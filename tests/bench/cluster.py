# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures the engine on a real Kubernetes of its own: see --help, and `make bench-cluster`.

Prints the load of the machine beside the figures: they are comparable with those of a machine as busy as that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

GROUP, PLURAL = "kubevirt.io", "virtualmachineinstances"
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "cluster"), str(TESTS / "shared")]

from deployed import BUSYBOX, COMPONENTS, NAMESPACE, Deployed  # noqa: E402
from kubernetes import client  # noqa: E402
from kubernetes.watch import Watch  # noqa: E402
from kubernetes_cluster import Cluster, Settings, wait_for  # noqa: E402


def seconds_until(
    listing: Callable[..., Any], arrived: Callable[[Any], bool], create: Callable[[str], object], names: list[str]
) -> list[float]:
    """Create objects, one straight after the other; seconds from each one's creation until it has arrived.

    :param listing: gives what there is of their kind, and follows it.
    """
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    watch = Watch()

    def follow(version: str) -> None:
        for event in watch.stream(listing, resource_version=version, timeout_seconds=900):
            name = event["raw_object"]["metadata"]["name"]
            if name not in ended and arrived(event["raw_object"]):
                ended[name] = time.monotonic()
                if len(ended) == len(names):
                    watch.stop()

    found = listing()
    version = found["metadata"]["resourceVersion"] if isinstance(found, dict) else found.metadata.resource_version
    follower = threading.Thread(target=follow, args=[version], daemon=True)
    follower.start()
    for name in names:
        began[name] = time.monotonic()
        create(name)
    follower.join()
    if missing := set(names) - ended.keys():
        raise SystemExit(f"not there within 15 minutes: {', '.join(sorted(missing))}")
    return [ended[name] - began[name] for name in names]


def seconds_to_running(cluster: Deployed, namespace: str, names: list[str]) -> list[float]:
    """Seconds from a virtual machine's creation until its VMI is Running."""
    return seconds_until(
        partial(cluster.custom.list_namespaced_custom_object, GROUP, "v1", namespace, PLURAL),
        lambda vmi: vmi.get("status", {}).get("phase") == "Running",
        lambda name: cluster.create(namespace, cluster.virtual_machine(name)),
        names,
    )


def seconds_to_ready(cluster: Deployed, namespace: str, names: list[str]) -> list[float]:
    """What Kubernetes alone takes: seconds until Pods are Ready that have a machine's containers, which do nothing."""

    def create(name: str) -> None:
        def container(called: str, *command: str) -> dict[str, Any]:
            return {"name": called, "image": BUSYBOX, "command": list(command)}

        spec = {
            "terminationGracePeriodSeconds": 0,
            "initContainers": [container("init", "true")],
            "containers": [container(called, "sleep", "86400") for called in ("compute", "volumeroot")],
        }
        cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec})

    def ready(pod: dict[str, Any]) -> bool:
        conditions = pod.get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    found = seconds_until(partial(cluster.core.list_namespaced_pod, namespace), ready, create, names)
    for name in names:
        cluster.core.delete_namespaced_pod(name, namespace)
    wait_for("end of plain Pods", lambda: not cluster.core.list_namespaced_pod(namespace).items, timeout=120)
    return found


def remove(cluster: Deployed, namespace: str, names: list[str]) -> None:
    """Delete virtual machines and wait until they are gone."""
    for name in names:
        cluster.delete(namespace, name)
    for name in names:
        cluster.wait_gone(namespace, name, timeout=300)


def percentiles(values: list[float]) -> str:
    """p50 and p95."""
    ordered = sorted(values)
    return (
        f"p50 {statistics.median(ordered):.1f} s, p95 {ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]:.1f} s"
    )


def compare(what: str, machines: list[float], plain: list[float]) -> None:
    """Print how long machines take beside plain Pods."""
    ratio = statistics.median(machines) / statistics.median(plain)
    print(f"create to Running, {what}: {percentiles(machines)}, {ratio:.2f} times that of plain Pods")
    print(f"plain Pods until Ready, {what}: {percentiles(plain)}")


def memory(cluster: Deployed, pod: client.V1Pod) -> float:
    """MiB of a Pod's processes, each shared page divided among those who share it (PSS)."""
    total = 0
    for pid in cluster.processes_of(pod):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def image_sizes(cluster: Deployed) -> dict[str, int]:
    """Bytes a node pulls for each image of the engine."""
    pods = [cluster.component_pods(name)[0] for _kind, name in COMPONENTS]
    references = {container.image for pod in pods for container in pod.spec.containers}
    listed = cluster.core.list_pod_for_all_namespaces(label_selector="kubevirt.io=virt-launcher").items
    references |= {container.image for pod in listed for container in pod.spec.containers}
    sizes = {}
    for reference in references:
        trust = f"--cert-dir={cluster.kubernetes.registry.certificates}"
        command = ["skopeo", "inspect", "--raw", trust, f"docker://{reference}"]
        raw = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        sizes[reference] = sum(layer["size"] for layer in json.loads(raw)["layers"])
    return sizes


def requests(events: list[dict], since: int) -> Counter[str]:
    """What components asked of the API after the first `since` events, beyond watching and electing leaders."""
    found: Counter[str] = Counter()
    for event in events[since:]:
        user, target = event["user"]["username"], event.get("objectRef", {})
        resource = target.get("resource", event["requestURI"].partition("?")[0])
        if user.startswith(f"system:serviceaccount:{NAMESPACE}:") and event["verb"] != "watch" and resource != "leases":
            kind = "/".join(filter(None, (resource, target.get("subresource"))))
            found[f"{user.rpartition(':')[2]}: {event['verb']} {kind}"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the engine on a real Kubernetes. Needs root.")
    parser.add_argument("--instance", default="turtles-bench", help="name of the cluster (%(default)s)")
    parser.add_argument("--network", default="10.203.0.0/16", help="a /16 of its own (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="virtual machines one after the other (%(default)s)")
    parser.add_argument("--many", type=int, default=20, help="virtual machines at once (%(default)s)")
    options = parser.parse_args()
    kubernetes = Cluster(Settings(instance=options.instance, network=options.network))
    kubernetes.down()
    kubernetes.up()
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(kubernetes, Path(folder), options)
    finally:
        kubernetes.down()


def measure(kubernetes: Cluster, folder: Path, options: argparse.Namespace) -> None:
    """Print every figure as soon as it is there."""
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    cluster = Deployed(kubernetes, folder, key=key, patience=10)
    for what in ("deploy, images made and pushed", "deploy again"):
        start = time.monotonic()
        cluster.playbook("deploy")
        cluster.wait_available()
        print(f"{what}: {time.monotonic() - start:.1f} s")
    for name in ("bench", "plain"):
        cluster.core.create_namespace({"metadata": {"name": name}})
    # pulls the images
    seconds_to_ready(cluster, "plain", ["warm1", "warm2"])
    seconds_to_running(cluster, "bench", ["warm"])
    remove(cluster, "bench", ["warm"])

    before = len(kubernetes.audit())
    alone: list[float] = []
    plain: list[float] = []
    for number in range(options.rounds):
        plain += seconds_to_ready(cluster, "plain", [f"one{number}"])
        alone += seconds_to_running(cluster, "bench", [f"one{number}"])
        remove(cluster, "bench", [f"one{number}"])
    compare(f"one of {options.rounds}", alone, plain)
    asked = requests(kubernetes.audit(), before)
    print(f"requests to the API in the life of one: {sum(asked.values()) / options.rounds:.1f}")
    for what, count in asked.most_common():
        print(f"    {count / options.rounds:.1f} {what}")

    names = [f"many{number}" for number in range(options.many)]
    plain = seconds_to_ready(cluster, "plain", names)
    compare(f"{options.many} at once", seconds_to_running(cluster, "bench", names), plain)
    for _kind, name in COMPONENTS:
        used = [memory(cluster, pod) for pod in cluster.component_pods(name)]
        print(f"memory of {name} with {options.many} machines: {', '.join(f'{m:.0f}' for m in used)} MiB")
    launchers = cluster.core.list_namespaced_pod("bench", label_selector="kubevirt.io=virt-launcher").items
    print(
        f"memory of a machine's Pod, guest included: {statistics.median(memory(cluster, p) for p in launchers):.0f} MiB"
    )
    for reference, size in sorted(image_sizes(cluster).items()):
        print(f"image {reference.rpartition('/')[2]}: {size / 2**20:.0f} MiB to pull")
    remove(cluster, "bench", names)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
