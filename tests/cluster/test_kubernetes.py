# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tests' own cluster is one: what the other tests take for granted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.stream import stream
from kubernetes_cluster import Cluster, ClusterError, Settings, wait_for
from traces import traces

Pod = Callable[..., client.V1Pod]
BUSYBOX = "docker.io/library/busybox:1.35"
SERVER = "mkdir /www && hostname >/www/index.html && exec httpd -f -p 80 -h /www"


@pytest.fixture
def pod(core: client.CoreV1Api, namespace: str, machines: Cluster) -> Pod:
    """Makes a Pod and waits for it to be ready."""

    def make(name: str, node: str = "", image: str = BUSYBOX, **spec: object) -> client.V1Pod:
        container = {"name": "main", "image": image, "command": ["sh", "-c", SERVER], **spec.pop("container", {})}
        body = {
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                **({"nodeName": node} if node else {}),
                "containers": [container],
                **spec,
            },
        }
        core.create_namespaced_pod(namespace, body)

        def ready() -> client.V1Pod | None:
            seen = core.read_namespaced_pod(name, namespace)
            states = seen.status.container_statuses or []
            return seen if states and all(s.ready for s in states) else None

        logs = [n.machine.log("kubelet") for n in machines.nodes if node in ("", n.name)]
        return wait_for(f"ready Pod {name}", ready, timeout=120, logs=logs)

    return make


def execute(core: client.CoreV1Api, pod: client.V1Pod, *command: str) -> str:
    where = (pod.metadata.name, pod.metadata.namespace)
    return stream(core.connect_get_namespaced_pod_exec, *where, command=list(command), stdout=True, stderr=True).strip()


def fetch(address: str, port: int = 80) -> list[str]:
    """What gets the server's answer in a Pod (Debian's static busybox has no working wget)."""
    return ["sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 10 {address} {port} | tail -n 1"]


def get(address: str, port: int = 80) -> list[str]:
    """The same on a machine."""
    return ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3"]


def test_what_does_not_come_is_named_with_the_reason_and_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "node1-kubelet.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))

    def never() -> bool:
        raise ConnectionError("refused")

    with pytest.raises(ClusterError) as failure:
        wait_for("ready node node1", never, timeout=0.2, logs=[log])
    text = str(failure.value)
    assert "no ready node node1 within 0 s: ConnectionError: refused" in text
    assert str(log) in text
    assert "line 99" in text
    assert "line 50" not in text


def test_what_can_not_come_any_more_is_not_awaited(tmp_path: Path) -> None:
    process = subprocess.Popen(["sh", "-c", "exit 3"])
    with pytest.raises(ClusterError) as failure:
        wait_for("API server", lambda: False, timeout=60, logs=[tmp_path / "log"], processes=[process])
    assert "no API server within 60 s: a process it needs ended with code 3" in str(failure.value)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"instance": "Too_Odd"}, "lower case letters"),
        ({"instance": "sixteen-letters-"}, "15"),
        ({"network": "10.0.0.0/24"}, "/16"),
        ({"network": "10.0.0.1/16"}, "10.0.0.1/16"),
        ({"nodes": 10}, "0 to 9"),
    ],
)
def test_settings_that_can_not_be_are_refused(choice: dict[str, object], words: str) -> None:
    with pytest.raises(ClusterError) as refused:
        Settings(**choice)
    assert words in str(refused.value)


def test_pods_of_all_nodes_and_services_reach_each_other(
    core: client.CoreV1Api, namespace: str, machines: Cluster, pod: Pod
) -> None:
    servers = {node.name: pod(f"on-{node.name}", node.name) for node in machines.nodes}
    service = core.create_namespaced_service(
        namespace,
        {
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]},
        },
    )
    names = {p.metadata.name for p in servers.values()}

    def both_endpoints() -> bool:
        subsets = core.read_namespaced_endpoints("web", namespace).subsets or []
        return sum(len(s.addresses or []) for s in subsets) == 2

    wait_for("endpoints of both nodes", both_endpoints, timeout=60)
    for client_pod in servers.values():
        for server in servers.values():
            assert execute(core, client_pod, *fetch(server.status.pod_ip)) == server.metadata.name
        wait_for(
            f"ClusterIP from {client_pod.spec.node_name}",
            lambda p=client_pod: execute(core, p, *fetch(service.spec.cluster_ip)) in names,
            timeout=60,
            logs=[n.machine.log("kube-proxy") for n in machines.nodes],
        )
    for node in machines.nodes:
        for address, port in ((service.spec.cluster_ip, 80), (node.address, service.spec.ports[0].node_port)):
            assert node.machine.run(*get(address, port)).strip() in names
            here = subprocess.run(get(address, port), capture_output=True, text=True, check=True, timeout=60)
            assert here.stdout.strip() in names


def test_images_come_from_the_registry_and_private_ones_with_a_pull_secret_only(
    core: client.CoreV1Api, namespace: str, machines: Cluster, pod: Pod
) -> None:
    open_reference = machines.push_busybox()
    private = open_reference.replace(machines.registry.address, machines.registry.private)
    assert pod("open", image=open_reference, container={"imagePullPolicy": "Always"}).status.phase == "Running"

    core.create_namespaced_pod(
        namespace,
        {"metadata": {"name": "refused"}, "spec": {"containers": [{"name": "main", "image": private}]}},
    )

    def refusal() -> bool:
        events = core.list_namespaced_event(namespace, field_selector="involvedObject.name=refused").items
        return any("no basic auth credentials" in e.message or "401" in e.message for e in events)

    wait_for("refusal without credentials", refusal, timeout=60, logs=[machines.control.log("registry-private")])
    secret = {
        "metadata": {"name": "puller"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": machines.registry.pull_secret},
    }
    core.create_namespaced_secret(namespace, secret)
    allowed = pod("allowed", image=private, imagePullSecrets=[{"name": "puller"}])
    assert allowed.status.phase == "Running"


def test_mounts_propagate_between_a_privileged_pod_and_its_node(
    core: client.CoreV1Api, machines: Cluster, pod: Pod
) -> None:
    node = machines.nodes[0]
    agent = pod(
        "agent",
        node.name,
        hostPID=True,
        volumes=[{"name": "shared", "hostPath": {"path": "/var/lib/shared", "type": "DirectoryOrCreate"}}],
        container={
            "securityContext": {"privileged": True},
            "volumeMounts": [{"name": "shared", "mountPath": "/shared", "mountPropagation": "Bidirectional"}],
        },
    )
    execute(
        core, agent, "sh", "-c", "mkdir -p /shared/a /shared/b && mount -t tmpfs a /shared/a && echo up >/shared/a/f"
    )
    assert node.machine.run("cat", "/var/lib/shared/a/f").strip() == "up"
    node.machine.run("sh", "-c", "mount -t tmpfs b /var/lib/shared/b && echo down >/var/lib/shared/b/f")
    assert execute(core, agent, "cat", "/shared/b/f") == "down"
    assert not Path("/var/lib/shared").exists()
    assert "kubelet" in execute(core, agent, "ps")
    assert execute(core, agent, "cat", "/proc/1/comm") == "pause"
    node.machine.run("umount", "/var/lib/shared/a", "/var/lib/shared/b")


def settings_of_the_kernel() -> str:
    """What kubelets set, as they find it."""
    names = ("kernel.panic", "kernel.panic_on_oops", "vm.overcommit_memory", "vm.panic_on_oom")
    return subprocess.run(["sysctl", *names], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("seconds", [0.3, 1, 3, 9])
def test_a_cluster_whose_tool_is_killed_is_removed_without_a_trace(seconds: float) -> None:
    settings = Settings(instance="turtles-killed", nodes=1, network="10.202.0.0/16")
    folder = Path(__file__).parent
    before = settings_of_the_kernel()
    tool = [sys.executable, "-m", "kubernetes_cluster"]
    wanted = ["--instance", settings.instance, "--network", settings.network, "--nodes", "1"]
    process = subprocess.Popen([*tool, "up", *wanted], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    subprocess.run([*tool, "down", "--instance", settings.instance], cwd=folder, check=True, timeout=120)
    assert traces(settings) == []
    assert settings_of_the_kernel() == before
