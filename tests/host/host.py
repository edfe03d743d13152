# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine in standalone mode on a whole machine, and the playbooks that put it there."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.client.exceptions import ApiException
from machine import Machine

from engine import GROUP, Engine
from playbooks import playbook, recap

#: The roles' default.
INSTANCE = "turtles"
#: Beside the images that the roles build, which have other names.
GUEST_IMAGE = "guest.tar"
#: The engine's units, each with its instance's name before it.
UNITS = ("apiserver", "controller-manager", "virt-api", "virt-controller", "podrunner", "virt-handler")


class Roles:
    """Runs the collection's playbooks on a machine, over SSH, as a user with sudo.

    :param folder: where they run.
    """

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._folder = folder
        self._inventory = folder / "inventory.json"
        variables = {
            "ansible_ssh_common_args": f"-F {shlex.quote(str(machine.ssh_config))}",
            # Ansible's own would be the same for all machines of this name: those of other runs.
            "ansible_control_path": str(machine.control_path),
            # Seconds until sudo answers, too.
            "ansible_ssh_timeout": 10 if machine.is_fast else 300,
        }
        self._inventory.write_text(json.dumps({"turtles": {"hosts": {"machine": variables}}}))
        # The guest's image is built on this machine (`Host.publish`): an emulated one takes a quarter of an hour for
        # that, and needs a Debian mirror.
        self._arguments = ["-e", "guest_image_state=absent"]
        if not machine.is_fast:
            # What is said to be enough on real hardware.
            self._arguments += ["-e", "turtles_timeout=600"]

    def run(self, name: str) -> dict[str, int]:
        """Run one of the playbooks; the counts of its recap for the machine."""
        arguments = ["-i", str(self._inventory), "-e", "turtles_hosts=turtles", *self._arguments]
        output = playbook(f"turtles.kubevirt.{name}", *arguments, folder=self._folder).stdout
        (self._folder / f"{name}.log").write_text(output)
        return recap(output, "machine")


class Host(Engine):
    """The engine on a machine.

    :param port: of this machine, which leads to the API server's on that one.
    """

    def __init__(self, machine: Machine, port: int, *, kubeconfig: Path, key: Path) -> None:
        proxy = f"ssh -F {shlex.quote(str(machine.ssh_config))} -W %h:%p machine"
        image = f"oci-archive:/var/lib/{INSTANCE}/images/{GUEST_IMAGE}"
        # A guest in an emulated machine is emulated by what is emulated itself.
        patience = 1 if machine.is_fast else 15
        super().__init__(kubeconfig=kubeconfig, image=image, key=key, proxy=proxy, patience=patience)
        self.machine = machine
        self._port = port
        self._tunnel: subprocess.Popen[bytes] | None = None

    def virtual_machine(self, name: str, **options: Any) -> dict[str, Any]:
        """As any engine's, but where the machine is emulated with a processor that this emulator can emulate in itself.

        What QEMU 7.2 makes of cmpxchg16b in a guest's guest leaves nonsense in the flags: Linux ends in a double fault.
        """
        vm = super().virtual_machine(name, **options)
        if not self.machine.is_fast:
            cpu = {"model": "qemu64", "features": [{"name": "cx16", "policy": "disable"}]}
            vm["spec"]["template"]["spec"]["domain"]["cpu"] = cpu
        return vm

    def connect(self) -> None:
        """Open the way to the API server, and wait until it is ready, and virt-api behind it."""
        self.disconnect()
        self._tunnel = self.machine.forward(self._port, 6443)
        deadline = time.monotonic() + self.seconds(60)
        while True:
            try:
                self.core.list_namespace(_request_timeout=10)
                self.custom.get_api_resources(f"subresources.{GROUP}", "v1", _request_timeout=10)
                return
            except (ApiException, urllib3.exceptions.HTTPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)  # there is nothing to watch yet

    def disconnect(self) -> None:
        """Close it; guests stay reachable."""
        if self._tunnel is not None:
            self._tunnel.kill()
            self._tunnel.wait()
            self._tunnel = None

    def pod_processes(self, namespace: str, vmi: str, word: str) -> list[int]:
        netns = f"/run/{INSTANCE}/netns/{self.launcher(namespace, vmi).metadata.uid}"
        script = (
            f"for process in /proc/[0-9]*; do [ $process/ns/net -ef {netns} ] &&"
            f" tr '\\0' ' ' <$process/cmdline | grep -q -- {shlex.quote(word)} && echo ${{process#/proc/}}; done; true"
        )
        return [int(pid) for pid in self.machine.shell(script).split()]

    def publish(self, archive: Path) -> str:
        place = f"/var/lib/{INSTANCE}/images/{archive.name}"
        # Where the role that builds images makes none, nobody made the folder.
        self.machine.run("mkdir", "-p", str(Path(place).parent))
        self.machine.upload(archive, place)
        return f"oci-archive:{place}:latest"

    def unit(self, name: str) -> dict[str, str]:
        """What systemd says about one of the engine's units."""
        properties = "--property=ActiveState,SubState,UnitFileState,MainPID,NRestarts,ControlGroup"
        output = self.machine.run("systemctl", "show", f"{INSTANCE}-{name}.service", properties)
        return dict(line.split("=", 1) for line in output.splitlines())
