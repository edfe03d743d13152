# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kubectl's streams with a virtual machine's Pod."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable

import pytest

from engine import Engine


@pytest.fixture
def pod(cluster: Engine, namespace: str) -> str:
    """The Pod of a running virtual machine."""
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.wait_running(namespace, "web")
    return cluster.launcher(namespace, "web").metadata.name


def test_a_virtual_machines_pod_with_kubectl(
    cluster: Engine, namespace: str, pod: str, kubectl: Callable[..., str]
) -> None:
    launcher = kubectl("exec", pod, "-c", "compute", "--", "cat", "/proc/1/cmdline").split("\0")
    assert launcher[launcher.index("--name") + 1] == "web"
    assert kubectl("exec", pod, "-c", "compute", "--", "id", "-u").strip() == "107"
    # virt-launcher, libvirtd, QEMU and the command itself have a system call filter, and get no user namespace.
    script = "grep -h ^Seccomp: /proc/[0-9]*/status; unshare -Urn true 2>/dev/null && echo got one || echo refused"
    *filters, verdict = kubectl("exec", pod, "-c", "compute", "--", "sh", "-c", script).splitlines()
    assert len(filters) >= 4
    assert set(filters) == {"Seccomp:\t2"}
    assert verdict == "refused"
    said = kubectl("logs", pod, "-c", "compute")
    assert '"component": "virt-launcher"' in said or '"component":"virt-launcher"' in said, said[:500]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z ", kubectl("logs", pod, "-c", "compute", "--timestamps", "--tail=1"))


def test_following_a_log_ends_with_the_virtual_machine(
    cluster: Engine, namespace: str, pod: str, kubectl: Callable[..., str]
) -> None:
    where = f"--kubeconfig {cluster.kubeconfig} --namespace {namespace}"
    command = f"kubectl {where} logs -f {pod} -c compute".split()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        cluster.delete(namespace, "web")
        cluster.wait_gone(namespace, "web")
        following.communicate(timeout=60)
        assert following.returncode == 0


def test_port_forward_reaches_the_guest(cluster: Engine, namespace: str, pod: str) -> None:
    program = shutil.which("kubectl")
    if not program:
        pytest.skip("kubectl is not installed")
    address = cluster.wait_running(namespace, "web")["status"]["interfaces"][0]["ipAddress"]
    cluster.ssh(address, "true", timeout=180)
    command = [program, "--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, "port-forward", pod, ":22"]
    for websockets in ("true", "false"):
        environment = {**os.environ, "KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as forward:
            assert forward.stdout is not None
            match = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert match
            with socket.create_connection(("127.0.0.1", int(match[1])), timeout=60) as sock:
                assert sock.recv(4) == b"SSH-"
            forward.terminate()
