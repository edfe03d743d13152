# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The quickstart as the README has it, again and again, and its teardown, with an instance of its own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import commands

from playbooks import playbook, recap

INSTANCE = "turtles-e2e-qs"
VARIABLES = json.dumps(
    {
        "turtles_instance": INSTANCE,
        "turtles_api_port": 26443,
        "turtles_virt_api_port": 28443,
        "turtles_bridge": "turtles-qs0",
        "turtles_pod_cidr": "10.222.0.0/16",
        "turtles_service_cidr": "10.94.0.0/16",
    }
)


def leftovers() -> dict[str, list[str]]:
    """What the instance has on the machine: processes, mounts, network namespaces, links, rules, folders."""
    rules = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    rules += subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return {
        "processes": [words for pid, words in commands() if f"/{INSTANCE}/" in words and pid != os.getpid()],
        "mounts": [m for m in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{INSTANCE}/" in m],
        "links": [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith("turtles-qs")],
        "rules": [rule for rule in rules.splitlines() if "10.222." in rule or INSTANCE in rule],
        "folders": [
            str(folder)
            for parent in ("/etc", "/var/lib", "/run", "/var/log", "/opt")
            if (folder := Path(parent) / INSTANCE).exists()
        ],
    }


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("the quickstart needs root")
    yield tmp_path
    playbook("turtles.kubevirt.teardown", "-e", VARIABLES, folder=tmp_path, check=False)


def stop_api_server() -> None:
    """Stop it as an administrator would."""
    configuration = Path(f"/etc/{INSTANCE}/supervisord.conf")
    command = ["systemctl", "stop", f"{INSTANCE}-apiserver"]
    if configuration.exists():
        command = ["supervisorctl", "-c", str(configuration), "stop", "apiserver"]
    subprocess.run(command, check=True, capture_output=True)


def test_quickstart_again_and_again_and_teardown_twice(home: Path) -> None:
    first = playbook("turtles.kubevirt.quickstart", "-e", VARIABLES, folder=home)
    assert recap(first.stdout)["failed"] == 0

    folder = home / f".quickstart-{INSTANCE}"
    for secret in ("kubeconfig", "id_ed25519", "inventory.kubevirt.yml"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600, secret
    raw = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible"), "-i", folder / "inventory.kubevirt.yml", "all"),
            *("-m", "ansible.builtin.raw", "-a", "uptime"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
    )
    assert raw.returncode == 0, raw.stdout + raw.stderr
    assert "load average" in raw.stdout

    second = playbook("turtles.kubevirt.quickstart", "-e", VARIABLES, folder=home)
    assert recap(second.stdout)["changed"] == 0, second.stdout

    # Its files are lost while its guest runs with the old key, and nothing answers: repaired, not merely reported.
    shutil.rmtree(folder)
    stop_api_server()
    third = playbook("turtles.kubevirt.quickstart", "-e", VARIABLES, folder=home)
    assert "Linux hello" in third.stdout, third.stdout

    # Its guest is stopped, and only the public key is lost.
    config = str(folder / "kubeconfig")
    stopped = json.dumps({"name": "hello", "namespace": "default", "state": "stopped", "kubeconfig": config})
    module = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "turtles.kubevirt.vm", "-a", stopped]
    subprocess.run(module, check=True, capture_output=True, cwd=home)
    (folder / "id_ed25519.pub").unlink()
    fourth = playbook("turtles.kubevirt.quickstart", "-e", VARIABLES, folder=home)
    assert "Linux hello" in fourth.stdout, fourth.stdout

    # A key that can't be used is the user's to delete.
    key = (folder / "id_ed25519").read_bytes()
    (folder / "id_ed25519").write_bytes(b"no key\n")
    fifth = playbook("turtles.kubevirt.quickstart", "-e", VARIABLES, folder=home, check=False)
    assert fifth.returncode
    assert f"{folder}/id_ed25519 isn't a private SSH key" in fifth.stdout
    (folder / "id_ed25519").write_bytes(key)

    others = home / ".quickstart"
    others.mkdir()
    playbook("turtles.kubevirt.teardown", "-e", VARIABLES, folder=home)
    assert others.exists()
    assert leftovers() == {key: [] for key in leftovers()}
    assert not folder.exists()
    again = playbook("turtles.kubevirt.teardown", "-e", VARIABLES, folder=home)
    assert recap(again.stdout)["changed"] == 0, again.stdout
