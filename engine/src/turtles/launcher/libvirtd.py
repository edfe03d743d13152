# SPDX-License-Identifier: GPL-3.0-or-later
"""The VM's own libvirtd: a session daemon of an ordinary user that has the QEMU driver only.

The launcher listens on the socket and passes it on (systemd's socket activation, sd_listen_fds(3), which libvirtd
understands). So the socket can be shown when the disks are ready, clients may connect before libvirtd has finished
starting, and a client learns the launcher's process id from the socket (SO_PEERCRED gives the one that listens).
"""

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import libvirt

from turtles.domain import paths
from turtles.launcher.boot import TPM_STATE
from turtles.launcher.errors import LaunchError
from turtles.launcher.process import reap_automatically

log = logging.getLogger(__name__)

_LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 0
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
min_workers = 1
max_workers = 5
prio_workers = 1
admin_min_workers = 1
admin_max_workers = 1
log_outputs = "3:file:{log}"
"""
# Cgroups, namespaces and security labels of the VM are the Pod's; stdio_handler "file" makes virtlogd superfluous.
_QEMU_CONF = """\
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
vnc_auto_unix_socket = 0
max_core = 0
"""
_DRIVER = "libvirt_driver_qemu.so"
_DRIVER_DIRS = ("/usr/lib/*-linux-gnu/libvirt/connection-driver", "/usr/lib64/libvirt/connection-driver")
_CAPABILITIES = paths.CAPABILITY_CACHE
# The protocol wants the sockets from descriptor 3 on and the process's own id in LISTEN_PID, which isn't known before
# the process is there: a shell puts both right before it becomes libvirtd.
_ACTIVATE = ("/bin/sh", "-c", 'exec 3<&0 </dev/null; export LISTEN_PID=$$; exec "$0" "$@"')

# A call of libvirt's RPC (docs/internals/rpc.html): length, program REMOTE_PROGRAM, version 1, procedure AUTH_LIST,
# type CALL, serial, status OK. Any client's first one, and answered without authentication.
_AUTH_LIST_CALL = struct.pack(">IIiiiIi", 28, 0x20008086, 1, 66, 0, 0, 0)


class LibvirtdError(Exception):
    """libvirtd doesn't answer (any more). Starting it again may help."""


def _huge_pages(mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return where huge pages are, which a libvirtd of an ordinary user doesn't find out.

    Not those of a whole machine, which systemd mounts there for root: libvirtd wouldn't start, as it makes a folder.
    """
    folder = str(paths.HUGE_PAGES_DIR)
    for line in mounts.read_text().splitlines():
        fields = line.split()
        if fields[1] == folder and fields[2] == "hugetlbfs" and os.access(folder, os.W_OK | os.X_OK):
            return f'hugetlbfs_mount = "{folder}"\n'
    return ""


@dataclass
class Libvirtd:
    """A session libvirtd below *directory*, answering on *socket_path*.

    ``capability_cache`` is a folder that :func:`warm_capability_cache` has filled; it may be missing or stale, which
    costs the first domain more than a second. ``pidfd`` is None while no process runs.
    """

    directory: Path
    socket_path: Path
    capability_cache: Path | None = None
    binary: str = "/usr/sbin/libvirtd"
    pidfd: int | None = field(default=None, init=False)

    def configure(self) -> None:
        """Write the configuration and bring in the capability cache.

        :raises LaunchError: if this machine has no libvirt with a QEMU driver.
        """
        for name in ("config/libvirt", "cache/libvirt/qemu/cache", "run/libvirt", "drivers", "tmp"):
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "config/libvirt/libvirtd.conf").write_text(
            _LIBVIRTD_CONF.format(host_uuid=uuid.uuid4(), log=self.log_path)
        )
        (self.directory / "config/libvirt/qemu.conf").write_text(_QEMU_CONF + _huge_pages())
        driver = self.directory / "drivers" / _DRIVER
        if not driver.is_symlink():
            driver.symlink_to(_find_driver())
        self._keep_tpm_state()
        target = self.directory / "cache" / _CAPABILITIES
        source = self.capability_cache / variant() / _CAPABILITIES if self.capability_cache else None
        if source is not None and source.is_dir() and not target.exists():
            try:
                shutil.copytree(source, target, copy_function=shutil.copyfile)
            except OSError as error:
                log.warning("the capability cache can't be used", extra={"error": str(error)})
                shutil.rmtree(target, ignore_errors=True)

    def _keep_tpm_state(self) -> None:
        """Have libvirt keep the state of TPMs on the claim that outlives the machine, if it has one."""
        state = Path(paths.STATE_DIR)
        link = self.directory / "config/libvirt/qemu/swtpm"
        if not state.is_dir() or link.is_symlink():
            return
        (state / TPM_STATE).mkdir(mode=0o700, exist_ok=True)
        link.parent.mkdir(mode=0o700, exist_ok=True)
        link.symlink_to(state / TPM_STATE)

    @property
    def log_path(self) -> Path:
        """libvirtd's own log: warnings and errors."""
        return self.directory / "libvirtd.log"

    def last_words(self, lines: int = 5) -> str:
        """Return the end of libvirtd's log, for a message about its end."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "; ".join(text.splitlines()[-lines:])

    @property
    def uri(self) -> str:
        """The connection URI for a client in the same Pod."""
        return f"qemu+unix:///session?socket={self.socket_path}"

    def listen(self) -> socket.socket:
        """Return a new listening socket at ``socket_path``; clients can connect at once."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket_path.unlink(missing_ok=True)
        server.bind(str(self.socket_path))
        # For the launcher and the node agent, which is root and may connect anyway.
        self.socket_path.chmod(0o600)
        server.listen(64)
        return server

    def publish(self, path: Path) -> None:
        """Show the socket at *path* as well, in the same folder: a second name of the same socket.

        :raises OSError: if that isn't possible.
        """
        path.unlink(missing_ok=True)
        path.hardlink_to(self.socket_path)

    def start(self, server: socket.socket) -> int:
        """Start libvirtd with the listening socket *server*, which is closed here.

        Only libvirtd has it then: when libvirtd dies, waiting clients get an error instead of waiting forever.

        :return: ``pidfd``, which becomes readable when libvirtd ends; call :meth:`forget` then.
        :raises LaunchError: if libvirtd isn't installed.
        """
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            # On Kubernetes the root file system is read-only; swtpm_setup writes there otherwise.
            "TMPDIR": str(self.directory / "tmp"),
            "LIBVIRT_DRIVER_DIR": str(self.directory / "drivers"),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "libvirtd.socket",
            # Without one, GDBus would look for a session bus.
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
        }
        # A program that is started with SIGCHLD ignored couldn't wait for its own children.
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with server:
            try:
                daemon = subprocess.Popen(
                    [*_ACTIVATE, self.binary], stdin=server.fileno(), env=environment, start_new_session=True
                )
                self.pidfd = os.pidfd_open(daemon.pid)
            except OSError as error:
                raise LaunchError(f"libvirtd doesn't start in the Pod: {error}") from error
            finally:
                signal.signal(signal.SIGCHLD, before)
        # Ended processes are reaped elsewhere; Popen is not to expect this one.
        daemon.returncode = 0
        return self.pidfd

    def forget(self) -> None:
        """Note that libvirtd has ended (its ``pidfd`` has become readable)."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def kill(self) -> None:
        """End libvirtd, if it runs, and wait for its end.

        It is made for that: its VM keeps running, and the next libvirtd finds it.
        """
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            select.select([self.pidfd], [], [])

    def wait_ready(self, timeout: float) -> None:
        """Wait until libvirtd answers its first client.

        Done by hand rather than by libvirt.open, which would wait forever if libvirtd died before it accepts.

        :param timeout: seconds.
        :raises LibvirtdError: if libvirtd ends before, or the time is over. It may be running then.
        """
        deadline = monotonic() + timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(str(self.socket_path))
                client.sendall(_AUTH_LIST_CALL)
                client.settimeout(max(deadline - monotonic(), 0.001))
                # The listener is libvirtd's alone: when it dies, this connection ends as well.
                # All of the answer is taken, or the rest would reach libvirtd as a reset.
                if client.recv(4096):
                    return
            except TimeoutError as error:
                raise LibvirtdError(f"libvirtd didn't answer within {timeout:.0f} s") from error
            except OSError as error:
                raise LibvirtdError(f"libvirtd exited before it answered ({error.strerror})") from error
        raise LibvirtdError("libvirtd exited before it answered")

    def connect(self, timeout: float) -> libvirt.virConnect:
        """Wait until libvirtd answers, then return a connection.

        :raises LibvirtdError: if it doesn't.
        """
        self.wait_ready(timeout)
        try:
            return libvirt.open(self.uri)
        except libvirt.libvirtError as error:
            raise LibvirtdError(f"libvirtd refuses the connection: {error}") from error


def variant() -> str:
    """Return which capability cache fits: "kvm" where /dev/kvm can be used, else "emulation".

    libvirt throws a cache away that was made with the other one.
    """
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "emulation"


def _find_driver() -> Path:
    """Return libvirt's QEMU driver module.

    :raises LaunchError: if it isn't installed.
    """
    for pattern in _DRIVER_DIRS:
        for folder in Path("/").glob(pattern.lstrip("/")):
            if (folder / _DRIVER).exists():
                return folder / _DRIVER
    raise LaunchError("libvirt's QEMU driver isn't installed (Debian: libvirt-daemon-driver-qemu, libvirt-daemon)")


def warm_capability_cache(cache_dir: Path, ask: Callable[[libvirt.virConnect], None] | None = None) -> None:
    """Let libvirt examine the QEMU binaries once and keep the result below *cache_dir* for all launchers of the node.

    Runs where a launcher would: same user, same devices. It costs more than a second.

    :param ask: called with the connection while there is one, for what else libvirt knows.
    :raises LaunchError, LibvirtdError: if libvirtd doesn't start here.
    """
    with TemporaryDirectory(prefix="turtles-", dir=cache_dir) as scratch:
        daemon = Libvirtd(Path(scratch) / "libvirt", Path(scratch) / "sock")
        daemon.configure()
        daemon.start(daemon.listen())
        # The QEMUs that libvirt tries out become children of this process where it is process 1.
        reap_automatically()
        try:
            connection = daemon.connect(60)
            # Makes sure of it: a domain of this machine's default kind needs exactly these capabilities.
            connection.getDomainCapabilities()
            if ask is not None:
                ask(connection)
            connection.close()
        finally:
            daemon.kill()
            daemon.forget()
        target = cache_dir / variant() / _CAPABILITIES
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (daemon.directory / "cache" / _CAPABILITIES).rename(target)
