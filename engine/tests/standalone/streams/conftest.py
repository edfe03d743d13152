# SPDX-License-Identifier: GPL-3.0-or-later
"""An API server and a Pod runner, as they are installed, with a network of their own."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from apiserver.conftest import Server
from networks import subnet

IMAGE = "test/streams:1"
CORE = "/api/v1/namespaces/default"
#: What the role handler gives the Pod runner.
RIGHTS = Path(__file__).parents[4] / "roles/handler/files/networks.yaml"


class Rig(Server):
    """Both processes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.name = f"ts{uuid.uuid4().hex[:6]}"
        self.node = root / "podrunner.yml"
        (root / "net.d").mkdir()
        network = subnet("streams")
        (root / "net.d/10.conflist").write_text(
            json.dumps(
                {
                    "cniVersion": "0.4.0",
                    "name": self.name,
                    "plugins": [
                        {
                            "type": "bridge",
                            "bridge": f"{self.name}b",
                            "isGateway": True,
                            "ipMasq": False,
                            "hairpinMode": True,
                            "ipam": {
                                "type": "host-local",
                                "dataDir": str(root / "ipam"),
                                "ranges": [[{"subnet": network}]],
                                "routes": [{"dst": "0.0.0.0/0"}],
                            },
                        }
                    ],
                }
            )
        )
        self.node.write_text(
            yaml.safe_dump(
                {
                    "nodeName": "n1",
                    "kubeconfig": str(self.config / "podrunner.kubeconfig"),
                    "rootDir": str(root / "kubelet"),
                    "runDir": str(root / "run"),
                    "imagesDir": str(root / "images"),
                    "cniConfDir": str(root / "net.d"),
                    "cniBinDir": "/usr/lib/cni",
                    "cgroupParent": self.name,
                    "nodeIP": "127.0.0.1",
                    "maskedPaths": [str(root / "etc"), str(root / "data")],
                    "preload": [{"image": IMAGE, "entryPoint": "entry:main"}],
                }
            )
        )
        (root / "run").mkdir()
        self.runner: subprocess.Popen | None = None

    def start(self, *options: str) -> "Rig":
        super().start("--node-socket", str(self.root / "run/node.sock"), *options)
        for obj in yaml.safe_load(RIGHTS.read_text()):
            code, answer = self.call("POST", f"/apis/{obj['apiVersion']}/{obj['kind'].lower()}s", obj)
            assert code == 201, answer
        self.start_runner()
        return self

    def start_runner(self) -> None:
        """Start the Pod runner."""
        with open(self.root / "runner.log", "ab") as output:
            self.runner = subprocess.Popen(
                [sys.executable, "-m", "turtles.standalone.main", "podrunner", "--config", str(self.node)],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            )
        self.until(lambda: (self.root / "run/node.sock").exists() or self.runner.poll() is not None, 60)
        assert self.runner.poll() is None, (self.root / "runner.log").read_text()

    def close(self) -> None:
        """Leave nothing behind."""
        if self.runner is not None:
            self.runner.terminate()
            self.runner.wait(60)
        subprocess.run(
            [sys.executable, "-m", "turtles.standalone.main", "reset", "--config", str(self.node)],
            check=True,
            capture_output=True,
        )
        self.stop()

    def pod(self, name: str, *args: str, restart: str = "Never", **container: object) -> dict:
        """Create a Pod on the node."""
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {
            "nodeName": "n1", "restartPolicy": restart, "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 107, "runAsGroup": 107},
            "containers": [{"name": "main", "image": IMAGE, "command": ["entry"], "args": list(args),
                            "env": [{"name": "COLOR", "value": "blue"}], **container}]}}  # fmt: skip
        code, answer = self.call("POST", f"{CORE}/pods", body)
        assert code == 201, answer
        return answer

    def phase(self, name: str, *phases: str) -> dict:
        """Wait until a Pod is in a phase."""
        return self.until(
            lambda: next(
                (
                    pod
                    for code, pod in [self.call("GET", f"{CORE}/pods/{name}")]
                    if code == 200 and pod["status"].get("phase") in phases
                ),
                None,
            ),
            60,
        )

    def said(self, name: str, query: str = "") -> str:
        """Return a Pod's log."""
        code, _, raw = self.raw("GET", f"{CORE}/pods/{name}/log?{query}", timeout=60)
        assert code == 200, raw
        return raw.decode()


@pytest.fixture(scope="session")
def rig(tmp_path_factory):
    """A running pair, with a Pod that serves."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    one = Rig(tmp_path_factory.mktemp("streams")).start()
    try:
        one.pod("server")
        one.phase("server", "Running")
        yield one
    finally:
        one.close()
