# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of Ansible's collection kubernetes.core, as playbooks use them against any cluster."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from .conftest import WIDGET_PATH, Server, widget

#: The bundle on PyPI that has the collection; its modules work with the client that the engine uses.
BUNDLE = "ansible>=12,<13"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "turtles-kubevirt/kubernetes-core"


def fetch(target: Path) -> None:
    """Unpack the collection from the bundle, of which the rest (60 MB) is not kept; a failure skips the test."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--dest", scratch, BUNDLE]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the collection kubernetes.core can't be fetched: {error.stderr.strip()[-500:]}")
        except subprocess.TimeoutExpired:
            pytest.skip("the collection kubernetes.core can't be fetched in 3 minutes")
        (wheel,) = Path(scratch).glob("ansible-*.whl")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith("ansible_collections/kubernetes/core/")]
            archive.extractall(unpacked, wanted)
        unpacked.rename(target)


@pytest.fixture(scope="module")
def collections() -> Path:
    """The folder for ANSIBLE_COLLECTIONS_PATH; fetched once for this machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / "12"
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            fetch(target)
    return target


@pytest.fixture
def ready(server: Server) -> Iterator[str]:
    """The name of a Widget that a controller has made ready."""
    name = "play-ready"
    code, body = server.call("POST", WIDGET_PATH, widget(name))
    assert code == 201, body
    body["status"] = {"replicas": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Made"}]}
    assert server.call("PUT", f"{WIDGET_PATH}/{name}/status", body)[0] == 200
    yield name
    assert server.call("DELETE", f"{WIDGET_PATH}/{name}")[0] == 200


@dataclass(frozen=True)
class Task:
    """A task of the play: the name of its result, the module and its options, and how Ansible is to run it."""

    name: str
    module: str
    options: dict
    check: bool = False
    refused: bool = False


def play(server: Server, collections: Path, folder: Path, tasks: list[Task]) -> dict[str, dict]:
    """Run the tasks one after the other; return their results by name. Only those marked refused may fail."""
    result = folder / "results.json"
    connection = {"kubeconfig": str(server.config / "admin.kubeconfig")}
    steps = [{"name": task.name, f"kubernetes.core.{task.module}": {**connection, **task.options},
              "register": task.name, "check_mode": task.check, "ignore_errors": task.refused}
             for task in tasks]  # fmt: skip
    names = ", ".join(f"'{task.name}': {task.name}" for task in tasks)
    steps.append({"name": "Results", "ansible.builtin.copy": {
        "dest": str(result), "mode": "0600", "content": "{{ {" + names + "} | to_json }}"}})  # fmt: skip
    book = folder / "play.yml"
    book.write_text(yaml.safe_dump([{
        "name": "Play", "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": steps,
        "vars": {"ansible_python_interpreter": sys.executable}}]))  # fmt: skip
    # Neither the configuration of who runs the test counts, nor do the modules' caches of discovery stay behind.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("ANSIBLE_", "K8S_AUTH_", "KUBE"))}  # fmt: skip
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_NOCOLOR": "1", "HOME": str(folder)}
    # The test's own folder has too long a name for the sockets that ansible-core has among its temporary files.
    with tempfile.TemporaryDirectory(prefix="turtles-") as temporary:
        environment["TMPDIR"] = temporary
        done = subprocess.run([sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(book)], cwd=folder,
                              env=environment, capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found: dict[str, dict] = json.loads(result.read_text())
    return found


def test_objects_come_change_and_go(server: Server, collections: Path, tmp_path: Path, ready: str) -> None:
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "play-plain", "namespace": "default"},
             "data": {"a": "1"}}  # fmt: skip
    applied, owned = widget("play-applied"), widget("play-owned")
    kind = {"api_version": "example.io/v1", "kind": "Widget", "namespace": "default"}
    scale = {**kind, "name": "play-applied", "wait": True, "wait_timeout": 120, "wait_sleep": 1}
    becomes_ready = {"wait": True, "wait_timeout": 120, "wait_sleep": 1,
                     "wait_condition": {"type": "Ready", "status": "True", "reason": "Made"}}  # fmt: skip

    def by(manager: str, definition: dict) -> dict:
        return {"definition": definition, "apply": True, "server_side_apply": {"field_manager": manager}}

    results = play(server, collections, tmp_path, [
        Task("tried", "k8s", {"definition": plain}, check=True),
        Task("made", "k8s", {"definition": plain}),
        Task("made_again", "k8s", {"definition": plain}),
        Task("applied", "k8s", {"definition": applied, "apply": True}),
        Task("owned", "k8s", by("play", owned)),
        Task("owned_again", "k8s", by("play", owned)),
        Task("conflict", "k8s", by("other", {**owned, "spec": {"size": "large"}}), refused=True),
        Task("patched", "k8s", {**kind, "name": "play-applied", "state": "patched",
                                "definition": {"spec": {"replicas": 3, "parts": [{"name": "p"}]}}}),
        Task("scaled", "k8s_scale", {**scale, "replicas": 3}),
        Task("scaled_further", "k8s_scale", {**scale, "replicas": 4}, refused=True),
        Task("waited", "k8s", {"definition": widget(ready), **becomes_ready}),
        Task("found", "k8s_info", {**kind, "label_selectors": ["app in (play-applied, play-owned)"]}),
        Task("gone", "k8s", {"definition": [plain, applied, owned], "state": "absent", "wait": True,
                             "wait_timeout": 120, "wait_sleep": 1}),
        Task("gone_already", "k8s", {"definition": plain, "state": "absent"}),
    ])  # fmt: skip
    # A second run and a look change nothing; a check says what a run would change, and so leaves it to the next task.
    changed = {name for name, result in results.items() if result["changed"]}
    assert changed == {"tried", "made", "applied", "owned", "patched", "gone"}
    assert {name for name, result in results.items() if result.get("failed")} == {"conflict", "scaled_further"}
    # The module sends a strategic merge patch, which Kubernetes too refuses for custom resources.
    assert "application/merge-patch+json" in results["scaled_further"]["msg"]
    assert '"code":415' in results["scaled_further"]["msg"]
    assert [results[name]["method"] for name in ("tried", "made", "made_again")] == ["create", "create", "update"]
    assert 'conflict with \\"play\\": .spec.size' in results["conflict"]["msg"]
    managers = results["owned"]["result"]["metadata"]["managedFields"]
    assert [(one["manager"], one["operation"]) for one in managers] == [("play", "Apply")]
    assert results["patched"]["result"]["spec"] == {"size": "small", "replicas": 3, "parts": [{"name": "p"}]}
    assert results["scaled"]["result"]["spec"] == results["patched"]["result"]["spec"]
    assert results["waited"]["result"]["status"]["conditions"][0]["reason"] == "Made"
    found = {one["metadata"]["name"]: one["spec"]["replicas"] for one in results["found"]["resources"]}
    assert found == {"play-applied": 3, "play-owned": 1}
    assert [one["changed"] for one in results["gone"]["result"]["results"]] == [True, True, True]
    assert server.call("GET", f"{WIDGET_PATH}/play-owned")[0] == 404
