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
from pathlib import Path

GROUP, PLURAL = "kubevirt.io", "virtualmachineinstances"
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "cluster"), str(TESTS / "shared")]

from deployed import COMPONENTS, NAMESPACE, Deployed  # noqa: E402
from kubernetes import client  # noqa: E402
from kubernetes.watch import Watch  # noqa: E402
from kubernetes_cluster import Cluster, Settings  # noqa: E402


def seconds_to_running(cluster: Deployed, namespace: str, names: list[str]) -> list[float]:
    """Create virtual machines, one straight after the other; seconds from each one's creation until it is Running."""
    created: dict[str, float] = {}
    arrived: dict[str, float] = {}
    listed = cluster.custom.list_namespaced_custom_object(GROUP, "v1", namespace, PLURAL)
    watch = Watch()

    def follow() -> None:
        version = listed["metadata"]["resourceVersion"]
        stream = watch.stream(
            cluster.custom.list_namespaced_custom_object,
            *(GROUP, "v1", namespace, PLURAL),
            resource_version=version,
            timeout_seconds=900,
        )
        for event in stream:
            name = event["object"]["metadata"]["name"]
            if event["object"].get("status", {}).get("phase") == "Running" and name not in arrived:
                arrived[name] = time.monotonic()
                if len(arrived) == len(names):
                    watch.stop()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for name in names:
        created[name] = time.monotonic()
        cluster.create(namespace, cluster.virtual_machine(name))
    follower.join()
    if missing := set(names) - arrived.keys():
        raise SystemExit(f"not Running within 15 minutes: {', '.join(sorted(missing))}")
    return [arrived[name] - created[name] for name in names]


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
    cluster.core.create_namespace({"metadata": {"name": "bench"}})
    seconds_to_running(cluster, "bench", ["warm"])  # pulls the images
    remove(cluster, "bench", ["warm"])

    before = len(kubernetes.audit())
    alone = []
    for number in range(options.rounds):
        alone += seconds_to_running(cluster, "bench", [f"one{number}"])
        remove(cluster, "bench", [f"one{number}"])
    print(f"create to Running, one of {options.rounds}: {percentiles(alone)}")
    asked = requests(kubernetes.audit(), before)
    print(f"requests to the API in the life of one: {sum(asked.values()) / options.rounds:.1f}")
    for what, count in asked.most_common():
        print(f"    {count / options.rounds:.1f} {what}")

    names = [f"many{number}" for number in range(options.many)]
    print(f"create to Running, {options.many} at once: {percentiles(seconds_to_running(cluster, 'bench', names))}")
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
