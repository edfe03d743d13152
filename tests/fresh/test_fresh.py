# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the README tells a newcomer to type, on a machine that has nothing but what the README asks for."""

from __future__ import annotations

import json
import os
import re

import pytest
from fresh_machine import USER, Machine

from playbooks import recap

#: Of each suite of `make test` something; TURTLES_FRESH_TESTS="" runs all.
TESTS = os.environ.get("TURTLES_FRESH_TESTS", "-k 'guest_image or quantit or without_buses'")
#: Whether only root's first virtual machine is asked for, which takes a fourth of the time.
SMALL = os.environ.get("TURTLES_FRESH_SMALL", "") != ""


@pytest.mark.parametrize("user", ["root"] if SMALL else ["root", USER])
def test_the_readmes_commands(machine: Machine, user: str) -> None:
    # With the small one alone other tests run: an emulated guest may take longer than the default then.
    first = machine.shell(f"make quickstart {'ARGS=-equickstart_timeout=900' if SMALL else ''}", user=user)
    assert recap(first.stdout)["failed"] == 0
    # The guest's own words, by the node's kernel and by the address.
    assert re.search(r"default-hello at [0-9.]+: Linux hello ", first.stdout), first.stdout[-3000:]
    if machine.release != "bookworm":  # whose libvirt is built without passt
        check_passt(machine, user)
    if not SMALL:
        check_the_rest(machine, user)

    machine.shell("make teardown", user=user)
    left = machine.shell(
        "ls -d /etc/turtles* /var/lib/turtles* /opt/turtles* .quickstart* 2>/dev/null", user=user, check=False
    )
    assert left.stdout == ""


def check_passt(machine: Machine, user: str) -> None:
    """Check that a guest behind passt has its Pod's address, and is reached there."""
    key = machine.shell("cat .quickstart/id_ed25519.pub", user=user).stdout.strip()
    image = machine.shell("ls /var/lib/turtles/images/*.tar", user="root").stdout.split()[0]
    options = {
        "kubeconfig": ".quickstart/kubeconfig",
        "name": "passt",
        "state": "running",
        "image": f"oci-archive:{image}",
        "memory": "128Mi",
        "interfaces": [{"name": "default", "binding": "passt", "ports": [22]}],
        "ssh_keys": [key],
        "wait_for": "ssh",
        "wait_timeout": 600,
    }
    machine.shell(f".venv/bin/ansible localhost -m turtles.kubevirt.vm -a '{json.dumps(options)}'", user=user)
    ask = ".venv/bin/ansible -i .quickstart/inventory.kubevirt.yml default-passt -m ansible.builtin.raw"
    asked = machine.shell(f"{ask} -a 'echo at {{{{ ansible_host }}}}; ip -4 -o addr show eth0'", user=user).stdout
    address = re.search(r"at ([0-9.]+)", asked)
    assert address, asked
    assert f" {address[1]}/" in asked, asked


def check_the_rest(machine: Machine, user: str) -> None:
    """Check what comes after the first virtual machine: a second run, tests and benchmarks, a question to the guest."""
    again = machine.shell("make quickstart", user=user)
    assert recap(again.stdout)["changed"] == 0, again.stdout

    # Tests and benchmarks come with an engine of their own, beside this one, and leave this one's files alone.
    if user == USER:
        machine.shell(f'make test ARGS="{TESTS}"', user=user)
    else:
        measured = machine.shell('make bench-vm ARGS="--rounds 1 --ssh-rounds 1 --many 2"', user=user)
        assert re.search(r"2 VMs +create → SSH +[0-9.]+", measured.stdout), measured.stdout[-3000:]
    asked = ".venv/bin/ansible -i .quickstart/inventory.kubevirt.yml all -m ansible.builtin.raw -a uptime"
    assert "load average" in machine.shell(asked, user=user).stdout
