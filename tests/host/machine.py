# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A whole machine in QEMU: booted from a disk of its own, reached over SSH at a port of the loopback interface."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import time
from pathlib import Path

from disk import USER, Disk
from turtles.probe import kvm

#: The machine's own network, with QEMU as its router. Not QEMU's default: that is what guests have behind masquerading.
_NETWORK = "192.168.76.0/24"
_RESOLVER = "192.168.76.3"
#: What the kernel is told besides where its root is.
_ARGUMENTS = "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=true net.ifnames=0"
#: And where it is emulated: units need longer than the minute and a half that systemd gives them.
_PATIENCE = "systemd.default_timeout_start_sec=600 systemd.default_device_timeout_sec=600"


class Machine:
    """A machine; all that changes on its disk is in the folder.

    :param folder: for its files, and maybe with those of an earlier run; what its console says is in `console.log`.
    :ivar ssh_config: ssh's configuration, in which it is called `machine`.
    :ivar control_path: the socket by which commands share a connection.
    :ivar is_fast: whether it runs on real virtualisation; if not, everything takes about twenty times as long.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._disk, self._folder = disk, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.console = folder / "console.log"
        self.image = folder / "disk.qcow2"
        self.ssh_config, self.control_path = folder / "ssh_config", folder / "ssh"
        self.is_fast = kvm.probe().ok
        # A kept one may be of another release's disk, or of one that has been made again since.
        if not self.image.exists() or _backing_file(self.image) != str(disk.image):
            subprocess.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.image, "-F", "raw", self.image], check=True
            )

    def start(self, *arguments: str) -> None:
        """Boot it, and wait until it has booted.

        :param arguments: further ones for the kernel's command line.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ssh_config.write_text(
            f"Host machine\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n  IdentityFile {self._disk.key}\n"
            "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  BatchMode yes\n"
            "  ConnectTimeout 60\n"
            # Emulated, a login takes between 2 and 30 seconds.
            f"  ControlMaster auto\n  ControlPersist yes\n  ControlPath {self.control_path}\n"
        )
        accelerator = ["-accel", "kvm", "-cpu", "host"]
        if not self.is_fast:
            accelerator = ["-accel", "tcg,thread=multi", "-cpu", "max"]
            arguments = (_PATIENCE, *arguments)
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"),
                    *(*accelerator, "-smp", "2", "-m", "3072"),
                    *("-kernel", self._disk.kernel, "-initrd", self._disk.initrd),
                    *("-append", " ".join((_ARGUMENTS, *arguments))),
                    *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
                    *("-drive", f"file={self.image},format=qcow2,if=virtio,cache=unsafe,discard=unmap"),
                    *("-netdev", f"user,id=lan,net={_NETWORK},dns={_RESOLVER},hostfwd=tcp:127.0.0.1:{port}-:22"),
                    *("-device", "virtio-net-pci,netdev=lan,romfile=", "-device", "virtio-rng-pci"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_booted()

    def wait_booted(self, *, other_than: str = "", timeout: float = 1200) -> None:
        """Until systemd has started what it starts.

        :param other_than: a boot's id, where another one is awaited.
        """
        deadline = time.monotonic() + timeout
        while True:
            assert self._process is not None
            assert self._process.poll() is None, f"QEMU ended: {(self._folder / 'qemu.log').read_text()}"
            # Waits in the machine, where it can be watched. It says whether all units are well, too: not asked here.
            done = self._ssh("cat /proc/sys/kernel/random/boot_id; systemctl is-system-running --wait", timeout=timeout)
            boot = done.stdout.split()
            if done.returncode != 255 and boot and boot[0] != other_than and boot[-1] in ("running", "degraded"):
                return
            assert time.monotonic() < deadline, (
                f"not booted within {timeout} s: {done.stdout}{done.stderr}\n"
                f"{self.console.read_text(errors='replace')[-3000:]}"
            )
            time.sleep(0.5)  # a server that isn't there yet can't be watched

    def _ssh(self, command: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["ssh", "-F", self.ssh_config, "machine", command],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as expired:
            return subprocess.CompletedProcess(expired.cmd, 255, "", str(expired))

    def run(self, *command: str, check: bool = True, timeout: float = 300) -> str:
        """Run a command as root; its output."""
        return self.shell(shlex.join(command), check=check, timeout=timeout)

    def shell(self, script: str, *, check: bool = True, timeout: float = 300) -> str:
        """Run a script of the shell as root; its output."""
        done = self._ssh(f"sudo sh -c {shlex.quote(script)}", timeout=timeout)
        assert not check or done.returncode == 0, f"{script} ({done.returncode}):\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def read(self, path: str | Path) -> str:
        """What is in a file."""
        return self.run("cat", str(path))

    @property
    def boot_id(self) -> str:
        """Differs from boot to boot."""
        return self.read("/proc/sys/kernel/random/boot_id")

    def reboot(self) -> None:
        """Restart the operating system as its administrator does."""
        before = self.boot_id
        self._ssh("sudo systemctl reboot", timeout=30)  # may lose its connection before it answers
        self._log_out()
        self.wait_booted(other_than=before)

    def power_off(self) -> None:
        """Shut the operating system down; QEMU ends with it."""
        assert self._process is not None
        self._ssh("sudo systemctl poweroff", timeout=30)
        self._log_out()
        self._process.wait(timeout=300)

    def _log_out(self) -> None:
        """End the connection that commands share: what it leads to will be gone, which it may not notice."""
        subprocess.run(["ssh", "-F", self.ssh_config, "-O", "exit", "machine"], capture_output=True, check=False)

    def upload(self, source: Path, target: str) -> None:
        """Copy a file to the machine."""
        command = f"sudo sh -c {shlex.quote(f'cat >{shlex.quote(target)}')}"
        with source.open("rb") as content:
            subprocess.run(["ssh", "-F", self.ssh_config, "machine", command], stdin=content, check=True, timeout=300)

    def forward(self, port: int, target: int) -> subprocess.Popen[bytes]:
        """Let a port of this machine lead to one of that machine's loopback interface, while the process runs."""
        # Not by the shared connection: it would keep the port when the process ends.
        ways = ("-S", "none", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{target}")
        return subprocess.Popen(
            ["ssh", "-F", self.ssh_config, "-N", *ways, "machine"], stdin=subprocess.DEVNULL, start_new_session=True
        )

    def stop(self) -> None:
        """End it at once, as if its cable were pulled."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _backing_file(image: Path) -> str:
    command = ["qemu-img", "info", "--output=json", image]
    return str(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["backing-filename"])
