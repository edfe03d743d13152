# SPDX-License-Identifier: GPL-3.0-or-later
"""A podrunner's parts with directories, a network and names of their own, cleaned up afterwards."""

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from networks import subnet

from turtles.kube.resources import POD
from turtles.standalone.podrunner import reset
from turtles.standalone.podrunner.config import parse
from turtles.standalone.podrunner.images import ImageStore
from turtles.standalone.podrunner.logs import Options, Reader
from turtles.standalone.podrunner.runner import Runner
from turtles.standalone.podrunner.zygote_client import ZygoteClient

from .entry_points import IMAGE, names
from .fakes import FakeClient, FakeRecorder
from .registries import Misbehaving


def pytest_collection_modifyitems(items):
    """Skip what needs root where we are not."""
    if os.getuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def config(tmp_path):
    """A configuration with a bridge network of its own."""
    conf = tmp_path / "net.d"
    conf.mkdir()
    name, network = f"pr{os.getpid()}", subnet("podrunner")
    (conf / "10-test.conflist").write_text(
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": f"{name}net",
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": f"{name}br",
                        "isGateway": True,
                        "ipMasq": True,
                        "hairpinMode": True,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": str(tmp_path / "ipam"),
                            "ranges": [[{"subnet": network}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    },
                    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
                ],
            }
        )
    )
    (tmp_path / "etc").mkdir()
    return parse(
        {
            "nodeName": "node1",
            "kubeconfig": str(tmp_path / "etc/kubeconfig"),
            "rootDir": str(tmp_path / "root"),
            "runDir": str(tmp_path / "run"),
            "imagesDir": str(tmp_path / "images"),
            "cniConfDir": str(conf),
            "cniBinDir": "/usr/lib/cni",
            "allowedImageDirs": [str(tmp_path / "local")],
            "cgroupParent": name,
            "preload": [{"image": IMAGE, "entryPoint": "entry_points:main", "prepare": "entry_points:prepare"}],
            "devices": {"devices.example.org/tun": "/dev/net/tun"},
            "nodeIP": "127.0.0.1",
        }
    )


class Node:
    """One podrunner without its main loop."""

    def __init__(self, config, monkeypatch):
        self.config = config
        for path in (config.pods_dir, config.run_dir / "root", config.run_dir / "netns"):
            path.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        self.client, self.recorder = FakeClient(), FakeRecorder()
        self.new_runner()

    def new_runner(self):
        """Make a runner, as a restarted process would."""
        self.zygote = ZygoteClient(
            self.config.zygote_socket,
            self.config.root_dir / "zygote.log",
            "test",
            ["entry_points:main", "entry_points:prepare", "hostile:main"],
        )
        self.zygote.ensure()
        self.images = ImageStore(
            self.config.images_dir, self.config.allowed_image_dirs, self.config.insecure_registries
        )
        self.client.informers.clear()
        self.pods = self.client.informer(POD)
        for key, obj in self.client.objects.items():
            if key[0] == "pods":
                self.pods._take("ADDED", obj)
        self.runner = Runner(self.client, self.config, self.pods, self.zygote, self.images, self.recorder, "127.0.0.1")
        self.runner.start()

    def pod(self, *args, name="pod1", namespace="default", annotations=None, **spec):
        """Create a Pod that runs the test entry point."""
        container = {"name": "main", "image": IMAGE, "command": ["/usr/bin/entry", *args], **spec.pop("container", {})}
        return self.client.add(
            POD,
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": str(uuid.uuid4()),
                    "annotations": annotations or {},
                },
                "spec": {
                    "nodeName": "node1",
                    "restartPolicy": "Never",
                    "containers": [container],
                    "securityContext": {"runAsUser": 107, "runAsGroup": 107, "fsGroup": 107, "runAsNonRoot": True},
                    **spec,
                },
                "status": {},
            },
        )

    def wait(self, predicate, name="pod1", seconds=30, namespace="default"):
        """Wait until a Pod is as wanted and return it."""
        deadline = time.monotonic() + seconds
        while True:
            pod = self.client.objects.get(("pods", namespace, name))
            if predicate(pod):
                return pod
            assert time.monotonic() < deadline, json.dumps((pod or {}).get("status"))
            time.sleep(0.005)

    def phase(self, phase, name="pod1", seconds=30):
        """Wait for a phase."""
        return self.wait(lambda pod: pod and pod["status"].get("phase") == phase, name, seconds)

    def serves(self):
        """Wait for a Pod whose container says that it listens to signals: before, one ends it at once."""
        pod = self.phase("Running")
        return self.wait(lambda found: found and "serving" in self.log(pod))

    def log(self, pod):
        """Return the log of a Pod's container."""
        directory = self.config.pods_dir / pod["metadata"]["uid"] / "containers/main"
        return b"".join(Reader(directory, Options())).decode()


@pytest.fixture
def node(config, monkeypatch):
    """A running node; afterwards nothing of it is left."""
    node = Node(config, monkeypatch)
    yield node
    node.runner.stop()
    reset.reset(config)
    assert str(config.root_dir) not in Path("/proc/self/mountinfo").read_text()
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
    assert config.cgroup_parent not in rules
    assert config.cgroup_parent not in " ".join(names("/sys/class/net"))


@pytest.fixture
def hostile():
    """A registry that does what a test wants."""
    registry = Misbehaving()
    yield registry
    registry.stop()
