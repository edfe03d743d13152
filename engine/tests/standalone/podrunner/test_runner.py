# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods for real: namespaces, CNI plugins, processes."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from turtles.kube.resources import CONFIGMAP, POD, SECRET
from turtles.standalone.podrunner import reset
from turtles.standalone.podrunner.mount_points import is_mount
from turtles.standalone.podrunner.prepare import prepare
from turtles.standalone.podrunner.spec import Spec
from turtles.standalone.podrunner.start import _rest_of
from turtles.standalone.podrunner.zygote_client import ZygoteError

from .entry_points import names

pytestmark = pytest.mark.root


def state_of(pod):
    """Return the state of a Pod's only container."""
    return pod["status"]["containerStatuses"][0]["state"]


def condition(pod, kind):
    """Return a condition's status."""
    return {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}[kind]


def test_what_a_container_sees(node):
    node.client.add(SECRET, {"metadata": {"name": "s", "namespace": "default"}, "data": {"key": "dmFsdWU="}})
    node.client.add(CONFIGMAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"word": "text"}})
    pod = node.pod(
        "report",
        container={
            "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
            "resources": {"limits": {"devices.example.org/tun": "1"}},
            "env": [
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "BOTH", "value": "$(SECRET)-$$"},
            ],
            "volumeMounts": [
                {"name": "e", "mountPath": "/var/run/things"},
                {"name": "n", "mountPath": "/var/run/things/nested"},
                {"name": "s", "mountPath": "/not/on/host"},
            ],
        },
        volumes=[
            {"name": "e", "emptyDir": {}},
            {"name": "n", "emptyDir": {"medium": "Memory"}},
            {"name": "s", "secret": {"secretName": "s"}},
        ],
    )
    pod = node.phase("Succeeded")
    seen = json.loads(node.log(pod))
    assert (seen["pid"], seen["uid"], seen["gid"], seen["groups"]) == (1, 107, 107, [107])
    assert seen["processes"] == [1]
    assert seen["caps"] == dict.fromkeys(("CapEff", "CapBnd", "CapAmb", "CapPrm"), 1 << 10)
    assert seen["no_new_privs"] == "1"
    assert seen["interfaces"] == ["eth0", "lo"]
    assert seen["hostname"] == "pod1"
    # A Python that is installed below /root stays visible, nothing else does.
    assert set(seen["root"]) <= {part for path in (sys.prefix, sys.base_prefix) for part in Path(path).parts}
    assert seen["home"] == []
    assert "net" in seen["dev"]
    assert "kvm" not in seen["dev"]
    assert seen["env"]["SECRET"] == "value"
    assert seen["env"]["BOTH"] == "value-$"
    assert seen["env"]["POD_IP"] == pod["status"]["podIP"]
    assert f"{pod['status']['podIP']}\tpod1" in seen["hosts"]
    assert seen["comm"] == "entry"
    assert seen["writable"] == ["/tmp"]
    points = [line.split()[4] for line in seen["mounts"]]
    assert [line.split()[5][:3] for line in seen["mounts"] if line.split()[4] == "/not/on/host"] == ["ro,"]
    assert not [point for point in points if "netns" in point or f"{node.config.root_dir}/" in point]
    assert state_of(pod)["terminated"]["exitCode"] == 0
    assert condition(pod, "Ready") == "False"


def test_running_pod_is_written_once_and_stops_on_sigterm(node):
    started = time.monotonic()
    pod = node.pod("serve", terminationGracePeriodSeconds=60, readinessGates=[{"conditionType": "example.org/gate"}])
    pod = node.phase("Running")
    took = time.monotonic() - started
    print(f"bound → running {took * 1000:.0f} ms")
    assert len([entry for entry in node.client.patches if entry[0] == "pods"]) == 1
    assert condition(pod, "ContainersReady") == "True"
    assert condition(pod, "Ready") == "False"
    with pytest.raises(ConnectionRefusedError):
        # Nobody listens there, but the Pod's kernel answers.
        socket.create_connection((pod["status"]["podIP"], 9), timeout=3)
    gate = {"type": "example.org/gate", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    node.client.patch(POD, "default", "pod1", {"status": {"conditions": [*pod["status"]["conditions"], gate]}})
    pod = node.wait(lambda pod: condition(pod, "Ready") == "True")
    assert condition(pod, "example.org/gate") == "True"
    node.serves()
    node.client.delete(POD, "default", "pod1", grace_period=60)
    node.wait(lambda pod: pod is None, seconds=30)
    final = [body for _, _, body in node.client.patches if "status" in body][-1]
    assert final["status"]["phase"] == "Succeeded"
    assert names(node.config.pods_dir) == []
    assert names(node.config.run_dir / "netns") == []


@pytest.mark.parametrize("stamp", ["2999-01-01T00:00:00Z", "2020-01-01T00:00:00Z"])
def test_grace_period_ends_with_sigkill(node, stamp):
    """And not before, nor later, however the clock was set since the API server wrote the deletion."""
    node.client.deleted_at = stamp
    node.pod("stubborn")
    node.serves()
    started = time.monotonic()
    node.client.delete(POD, "default", "pod1", grace_period=1)
    node.wait(lambda pod: pod is None)
    assert time.monotonic() - started > 0.9


def test_grace_period_goes_on_in_another_podrunner(node):
    node.pod("stubborn")
    pod = node.serves()
    node.client.delete(POD, "default", "pod1", grace_period=60)
    note = node.config.pods_dir / pod["metadata"]["uid"] / "containers/main/signalled.json"
    deadline = time.monotonic() + 5
    while not note.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    node.runner.stop()
    noted = json.loads(note.read_text())
    note.write_text(json.dumps(noted | {"monotonic": noted["monotonic"] - 60}))
    node.new_runner()
    node.wait(lambda pod: pod is None)


@pytest.mark.parametrize(("ago", "left"), [(4, 6), (20, 0), (-7200, 10)])
def test_a_restart_waits_no_longer_than_its_pause(ago, left):
    """A stamp that is in the future, since the clock was set back, is no reason to wait until then."""
    stamp = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert _rest_of(10, stamp) == pytest.approx(left, abs=1.1)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [(["message", "disk full"], 3, "disk full"), (["exit", "4"], 4, "last words"), (["unknown"], 2, "unknown action")],
)
def test_failed_container_says_why(node, args, code, message):
    node.pod(*args)
    pod = node.phase("Failed")
    terminated = state_of(pod)["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (code, "Error")
    assert message in terminated["message"]
    deadline = time.monotonic() + 60
    while names(node.config.run_dir / "netns"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_preloaded_image_is_probed(node):
    node.pod(
        "serve",
        container={
            "volumeMounts": [{"name": "e", "mountPath": "/data"}],
            "readinessProbe": {"exec": {"command": ["test", "-e", "/data/ready"]}, "periodSeconds": 1},
            "livenessProbe": {
                "exec": {"command": ["test", "!", "-e", "/data/dead"]},
                "periodSeconds": 1,
                "failureThreshold": 1,
            },
        },
        volumes=[{"name": "e", "emptyDir": {}}],
    )
    pod = node.phase("Running")
    assert not pod["status"]["containerStatuses"][0]["ready"]
    folder = node.config.pods_dir / pod["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/e"
    (folder / "ready").touch()
    node.wait(lambda pod: pod["status"]["containerStatuses"][0]["ready"])
    (folder / "dead").touch()
    pod = node.phase("Succeeded")
    assert "Container main failed liveness probe, will be restarted" in [event[2] for event in node.recorder.events]


def test_restarted_podrunner_adopts_pods(node):
    node.pod("serve")
    pod = node.phase("Running")
    node.runner.stop()
    node.new_runner()
    directory = node.config.pods_dir / pod["metadata"]["uid"] / "containers/main"
    pid = json.loads((directory / "state.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    pod = node.phase("Failed")
    assert state_of(pod)["terminated"]["signal"] == 9


def test_killed_zygote_hurts_no_pod(node):
    node.pod("serve")
    pod = node.phase("Running")
    os.kill(node.zygote.status()["pid"], signal.SIGKILL)
    node.pod("exit", "0", name="pod2")
    node.phase("Succeeded", "pod2")
    assert node.client.get(POD, "default", "pod1")["status"]["phase"] == "Running"
    # Its exit code is known although its parent is gone.
    node.client.delete(POD, "default", "pod1", grace_period=20)
    node.wait(lambda pod: pod is None)
    final = [body for _, name, body in node.client.patches if name == "pod1"][-1]
    assert final["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert pod["status"]["podIP"]


def test_a_start_that_cannot_be_noted_leaves_nothing(node):
    zygote = node.zygote.status()["pid"]
    spec = Spec("entry_points:main", [], {}, str(node.config.run_dir / "root"), "host")
    # A file in the directory's place stands for a full disk: the state can't be written.
    own = node.config.root_dir / "own"
    own.touch()
    fds = f"/proc/{zygote}/fd"
    time.sleep(0.05)  # until the answered request's connection is closed
    before = len(names(fds))
    with os.fdopen(os.memfd_create("spec"), "wb") as file:
        file.write(json.dumps(dataclasses.asdict(spec)).encode())
        file.flush()
        with pytest.raises(ZygoteError, match="Not a directory"):
            node.zygote._ask({"op": "start", "id": "own/x/0", "dir": str(own), "name": "x"}, [file.fileno()])
    assert Path(f"/proc/{zygote}/task/{zygote}/children").read_text() == ""
    deadline = time.monotonic() + 60
    while len(names(fds)) > before:
        assert time.monotonic() < deadline, names(fds)
        time.sleep(0.005)


def test_ten_pods_at_once(node):
    started = time.monotonic()
    for number in range(10):
        node.pod("serve", name=f"many{number}")
    pods = [node.phase("Running", f"many{number}", 30) for number in range(10)]
    print(f"ten Pods running after {time.monotonic() - started:.2f} s")
    assert len({pod["status"]["podIP"] for pod in pods}) == 10


def test_images_that_are_not_there_are_named(node):
    reference = f"oci:{node.config.allowed_image_dirs[0]}/none"
    node.pod("serve", container={"image": reference})
    pod = node.wait(lambda pod: "ImagePullBackOff" in str(pod["status"]))
    assert f"{reference}: " in state_of(pod)["waiting"]["message"]
    assert pod["status"]["phase"] == "Pending"


def test_host_ports_and_missing_image(node):
    node.pod("serve", container={"ports": [{"containerPort": 80, "hostPort": 18099}]})
    pod = node.phase("Running")
    rules = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True).stdout
    assert f"{pod['status']['podIP']}:80" in rules
    node.client.delete(POD, "default", "pod1", grace_period=0)
    deadline = time.monotonic() + 60
    while names(node.config.pods_dir):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    rules = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True).stdout
    assert f"{pod['status']['podIP']}:80" not in rules
    node.pod("serve", name="pod2", volumes=[{"name": "v", "image": {"reference": "oci:/etc/passwd"}}])
    pod = node.wait(lambda pod: pod["status"].get("containerStatuses"), "pod2")
    assert state_of(pod)["waiting"]["reason"] == "ErrImagePull"


def test_prepare_warms_the_cache(node):
    prepare(node.config, node.zygote, "one")
    cache = node.config.root_dir / "cache" / node.config.preload[0].key
    assert (cache / "warm").read_text() == "107"
    assert not is_mount(node.config.run_dir / "netns")


def test_reset_is_idempotent(node):
    node.pod("serve")
    node.phase("Running")
    node.runner.stop()
    assert reset.reset(node.config) is True
    assert reset.reset(node.config) is False


def test_a_pod_that_makes_very_deep_folders_can_be_deleted(node):
    node.pod("serve", volumes=[{"name": "e", "emptyDir": {}}])
    pod = node.phase("Running")
    folder = node.config.pods_dir / pod["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/e"
    current = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=current)
        above, current = current, os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(above)
    os.close(current)
    node.client.delete(POD, "default", "pod1", grace_period=20)
    node.wait(lambda pod: pod is None)
    assert names(node.config.pods_dir) == []
