# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pods of ordinary images beside virtual machines, with kubectl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

from playbooks import playbook, recap

Kubectl = Callable[..., str]

_APPLETS = ("sh", "cat", "echo", "head", "httpd", "id", "ls", "nc", "ps", "sleep", "test", "true", "wget")


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A reference to an image with busybox and a web page."""
    for program in ("umoci", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    root = tmp_path_factory.mktemp("image") / "root"
    (root / "bin").mkdir(parents=True)
    (root / "www").mkdir()
    (root / "tmp").mkdir()
    (root / "www/index.html").write_text("from a container\n")
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in _APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    for path in (root, root / "bin", root / "www"):
        path.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    layout = Path(f"/var/lib/{cluster.instance}/images/busybox")
    shutil.rmtree(layout, ignore_errors=True)
    for words in (
        ("init", "--layout", layout),
        ("new", "--image", f"{layout}:web"),
        ("insert", "--image", f"{layout}:web", root, "/"),
        ("config", "--image", f"{layout}:web", "--config.cmd=httpd", "--config.cmd=-f", "--config.cmd=-h/www"),
        ("config", "--image", f"{layout}:web", "--config.env=PATH=/bin"),
    ):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    yield f"oci:{layout}:web"
    shutil.rmtree(layout)


@pytest.fixture
def run(kubectl: Kubectl, image: str) -> Callable[..., None]:
    """Runs a Pod as `kubectl run` does, whose own check of references knows those of registries only."""

    def create(name: str, *command: str, restart: str = "Always", **container: Any) -> None:
        container = {"name": name, "image": image, **({"command": command} if command else {}), **container}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 2}
        overrides = json.dumps({"spec": spec})
        kubectl("run", name, "--image=busybox", f"--restart={restart}", "--overrides", overrides)

    return create


def pod(kubectl: Kubectl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", "pod", name, "-o", "json"))
    return found


def until(kubectl: Kubectl, name: str, path: str, value: str) -> None:
    kubectl("wait", "pod", name, f"--for=jsonpath={{.status.{path}}}={value}", "--timeout=60s")


def test_a_monolith_beside_a_container(
    cluster: Cluster, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    example = str(Path(__file__).parents[2] / "docs/examples/monolith.yml")
    where = ("-e", f"image={cluster.image}", "-e", f"container_image={image}")
    try:
        for changed in (3, 0):
            assert recap(playbook(example, *where, folder=tmp_path).stdout)["changed"] == changed
        kubectl = ("kubectl", "--kubeconfig", str(cluster.kubeconfig), "-n", "monolith")
        subprocess.run([*kubectl, "wait", "pod", "portal", "--for=condition=Ready", "--timeout=60s"], check=True)
    finally:
        cluster.core.delete_namespace("monolith")
        cluster.wait_gone("monolith", "monolith")


def test_a_container_and_a_virtual_machine_reach_each_other(
    cluster: Cluster, namespace: str, kubectl: Kubectl, run: Callable[..., None]
) -> None:
    cluster.create(namespace, cluster.virtual_machine("guest", labels={"app": "guest"}))
    run(
        "web",
        ports=[{"containerPort": 80}],
        readinessProbe={"httpGet": {"port": 80}, "periodSeconds": 1},
        resources={"limits": {"memory": "64Mi", "cpu": "500m"}},
    )
    kubectl("wait", "pod", "web", "--for=condition=Ready", "--timeout=60s")
    address = pod(kubectl, "web")["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}/", timeout=60) as answer:
        assert answer.read() == b"from a container\n"
    guest = cluster.wait_running(namespace, "guest")["status"]["interfaces"][0]["ipAddress"]
    cluster.ssh(guest, "true", timeout=180)
    kubectl("expose", "pod", "web", "--port=8080", "--target-port=80")
    (launcher,) = kubectl("get", "pod", "-l", "vmi.kubevirt.io/id=guest", "-o", "name").split()
    kubectl("expose", launcher, "--name=guest", "--port=2222", "--target-port=22", "--selector=app=guest")
    services = {
        name: json.loads(kubectl("get", "service", name, "-o", "json"))["spec"]["clusterIP"]
        for name in ("web", "guest")
    }
    # From the guest to the container, and back.
    for target in (f"{address} 80", f"{services['web']} 8080"):
        told = cluster.ssh(guest, f"(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 2) | nc {target}")
        assert "from a container" in told, target
    for target in (f"{guest} 22", f"{services['guest']} 2222"):
        told = kubectl("exec", "web", "--", "sh", "-c", f"(sleep 2 | nc {target}) 2>/dev/null | head -c 4")
        assert told == "SSH-", target


def test_streams_and_exit_codes(cluster: Cluster, kubectl: Kubectl, run: Callable[..., None]) -> None:
    run("web")
    until(kubectl, "web", "phase", "Running")
    assert kubectl("exec", "web", "--", "id", "-u").strip() == "0"
    assert kubectl("exec", "-i", "web", "--", "cat", stdin="told") == "told"
    command = f"kubectl --kubeconfig {cluster.kubeconfig}".split()
    namespace = pod(kubectl, "web")["metadata"]["namespace"]
    done = subprocess.run(
        [*command, "-n", namespace, "exec", "web", "--", "sh", "-c", "exit 42"], capture_output=True, check=False
    )
    assert done.returncode == 42
    with subprocess.Popen(
        [*command, "-n", namespace, "port-forward", "web", ":80"], stdout=subprocess.PIPE, text=True
    ) as forward:
        assert forward.stdout is not None
        match = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        assert match
        with urllib.request.urlopen(f"http://127.0.0.1:{match[1]}/", timeout=60) as answer:
            assert answer.read() == b"from a container\n"
        forward.terminate()
    run("done", "sh", "-c", "echo said; exit 3", restart="Never")
    until(kubectl, "done", "phase", "Failed")
    (status,) = pod(kubectl, "done")["status"]["containerStatuses"]
    assert (status["state"]["terminated"]["exitCode"], status["state"]["terminated"]["reason"]) == (3, "Error")
    assert kubectl("logs", "done") == "said\n"


def test_standard_input(kubectl: Kubectl, run: Callable[..., None]) -> None:
    """What `kubectl run -i` does: create, attach, and end the input."""
    run("reader", "sh", "-c", "cat; echo end", restart="Never", stdin=True, stdinOnce=True)
    until(kubectl, "reader", "phase", "Running")
    told = kubectl("attach", "-i", "reader", stdin="told\n")
    assert "told\nend\n" in told
    until(kubectl, "reader", "phase", "Succeeded")


def test_crash_loop(kubectl: Kubectl, run: Callable[..., None]) -> None:
    run("crash", "sh", "-c", "echo again; exit 1")
    until(kubectl, "crash", "containerStatuses[0].state.waiting.reason", "CrashLoopBackOff")
    (status,) = pod(kubectl, "crash")["status"]["containerStatuses"]
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert kubectl("logs", "crash", "--previous") == "again\n"
    assert "Back-off restarting failed container crash" in kubectl("events", "--for=pod/crash")
    assert "CrashLoopBackOff" in kubectl("get", "pod", "crash")


def test_an_image_that_is_not_there(cluster: Cluster, kubectl: Kubectl, run: Callable[..., None]) -> None:
    run("web", image=f"oci:/var/lib/{cluster.instance}/images/none")
    until(kubectl, "web", "containerStatuses[0].state.waiting.reason", "ImagePullBackOff")


def test_the_podrunner_dies_and_the_container_does_not(
    cluster: Cluster, kubectl: Kubectl, run: Callable[..., None]
) -> None:
    run("web", readinessProbe={"httpGet": {"port": 80}, "periodSeconds": 1})
    kubectl("wait", "pod", "web", "--for=condition=Ready", "--timeout=60s")
    (before,) = pod(kubectl, "web")["status"]["containerStatuses"]
    uid = pod(kubectl, "web")["metadata"]["uid"]
    cluster.kill("virt-standalone", "podrunner")
    deadline = time.monotonic() + 60
    while not list(cluster.processes("virt-standalone", "podrunner")):
        assert time.monotonic() < deadline
        time.sleep(0.1)  # a process that begins can't be watched
    run("next")
    until(kubectl, "next", "phase", "Running")
    (after,) = pod(kubectl, "web")["status"]["containerStatuses"]
    assert (after["containerID"], after["restartCount"], after["ready"]) == (before["containerID"], 0, True)
    assert kubectl("exec", "web", "--", "echo", "there") == "there\n"
    kubectl("delete", "pod", "web", "next", "--wait")
    for place in ("/run/{}/bundles/{}", "/run/{}/crun/{}-web-0", "/run/{}/netns/{}", "/var/lib/{}/kubelet/pods/{}"):
        path = Path(place.format(cluster.instance, uid))
        assert not path.exists(), path
    assert uid not in Path("/proc/self/mountinfo").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{cluster.instance}/{uid}"))
