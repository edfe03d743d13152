# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures for every place where the engine runs; the fixture `cluster` is that engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from engine import Engine


@pytest.fixture
def namespace(cluster: Engine) -> Iterator[str]:
    """A namespace of the test's own; what is in it goes with it."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    yield name
    cluster.core.delete_namespace(name)
    for vm in cluster.custom.list_namespaced_custom_object("kubevirt.io", "v1", name, "virtualmachines")["items"]:
        cluster.wait_gone(name, vm["metadata"]["name"])


@pytest.fixture
def ansible(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs one module on localhost as `ansible -m` does and gives its result."""

    def run(module: str, arguments: dict[str, Any], *options: str, fails: bool = False) -> dict[str, Any]:
        results = tmp_path / uuid.uuid4().hex
        command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-c", "local", "-m", module]
        done = subprocess.run(
            [*command, "-a", json.dumps(arguments), "--tree", str(results), *options],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stdout + done.stderr
        result: dict[str, Any] = json.loads((results / "localhost").read_text())
        assert bool(done.returncode) is fails, result
        return result

    return run


@pytest.fixture
def kubectl(cluster: Engine, namespace: str) -> Callable[..., str]:
    """Runs kubectl in the test's namespace; its standard output."""
    program = shutil.which("kubectl")
    if not program:
        pytest.skip("kubectl is not installed")

    def run(*arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [program, "--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=cluster.seconds(120),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
