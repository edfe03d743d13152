# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Debian machine of the tests' own, in which the collection's playbook installs the engine over SSH."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import RELEASES, disk
from fixtures import namespace
from host import GUEST_IMAGE, Host, Roles
from machine import Machine

__all__ = ["namespace"]

#: Debian's release in the machine.
RELEASE = os.environ.get("DEBIAN", "bookworm")
#: A folder in which the machine's disk is kept, and found again by the next run.
KEEP = os.environ.get("TURTLES_HOST_KEEP")
BUILDER = Path(__file__).parents[2] / "roles/guest_image/files/guest_image.py"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine, booted as Debian boots; it ends with the tests."""
    if os.geteuid() != 0:
        pytest.skip("making the root of a machine needs root")
    assert RELEASE in RELEASES, f"DEBIAN is {RELEASE}, not one of {', '.join(RELEASES)}"
    folder = Path(KEEP) if KEEP else tmp_path_factory.mktemp("machine")
    folder.mkdir(exist_ok=True)
    machine = Machine(folder, disk(RELEASE))
    try:
        machine.start()
        yield machine
        if KEEP:
            machine.power_off()
    finally:
        machine.stop()
        if not KEEP:
            machine.image.unlink()  # pytest keeps folders of earlier runs


@pytest.fixture(scope="session")
def roles(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """The collection's playbooks, with the machine in their inventory."""
    return Roles(machine, tmp_path_factory.mktemp("roles"))


@pytest.fixture(scope="session")
def cluster(machine: Machine, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The engine, installed; its API server is reached through SSH."""
    folder = tmp_path_factory.mktemp("engine")
    image = folder / GUEST_IMAGE
    subprocess.run([sys.executable, BUILDER, "tiny", "--output", image], check=True, stdout=subprocess.DEVNULL)
    roles.run("deploy")
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(machine.read("/etc/turtles/admin.kubeconfig").replace(":6443", f":{port}"))
    host = Host(machine, port, kubeconfig=kubeconfig, key=key)
    try:
        host.connect()
        host.publish(image)
        yield host
    finally:
        host.disconnect()
