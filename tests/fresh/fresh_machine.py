# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Debian that has nothing: a root by mmdebstrap in namespaces of its own, with a network that leads outside."""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self

from kubernetes_cluster import cgroup

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turtles-kubevirt/fresh"
#: What the README says a machine has to have; and what such a machine is reached by.
INCLUDED = ("git", "make", "sudo")
USER = "tester"
#: Seconds after which a root is made again: packages get updates.
KEPT = 7 * 86400
#: pip's settings that belong to the place of a machine, not to the one who uses it.
PIP_SETTINGS = ("index-url", "cert", "proxy", "timeout", "trusted-host")
FORWARDED = "/proc/sys/net/ipv4/ip_forward"


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine.

    :raises AssertionError: if it fails, with what it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, (
        f"{' '.join(words)} failed ({done.returncode}): {done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    return done


def cached_root(release: str) -> Path:
    """Return a tar file with the root of a release, made at most a week ago."""
    key = hashlib.sha256(",".join(INCLUDED).encode()).hexdigest()[:8]
    archive = CACHE / f"{release}-{key}.tar"
    if not archive.exists() or time.time() - archive.stat().st_mtime > KEPT:
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(f".{os.getpid()}.tar")
        try:
            run("mmdebstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", release, partial)
            partial.replace(archive)
        finally:
            partial.unlink(missing_ok=True)
    return archive


class Machine:
    """A fresh machine; a context manager that leaves nothing behind.

    :param release: codename of a Debian release.
    :param network: the third byte of its network, 10.213.N.0/30.
    """

    def __init__(self, release: str, network: int) -> None:
        self.release = release
        self._name = f"fresh-{uuid.uuid4().hex[:6]}"
        self._cgroup = f"turtles-{self._name}"
        self._host, self._address = f"10.213.{network}.1", f"10.213.{network}.2"
        self._folder = Path(tempfile.mkdtemp(prefix="turtles-fresh-", dir="/var/tmp"))
        self.root = self._folder / "root"
        self._process: subprocess.Popen[bytes] | None = None
        self._forwarded = Path(FORWARDED).read_text()

    def __enter__(self) -> Self:
        """Make and start it."""
        try:
            self._make()
            self._boot()
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it with all its processes."""
        cgroup.remove(self._cgroup)
        if self._process:
            self._process.wait()
        subprocess.run(["ip", "link", "delete", self._name], capture_output=True, check=False)
        subprocess.run(["nft", "delete", "table", "ip", self._cgroup], capture_output=True, check=False)
        Path(FORWARDED).write_text(self._forwarded)
        shutil.rmtree(self._folder)

    def _make(self) -> None:
        self.root.mkdir()
        self._folder.chmod(0o755)
        run("tar", "-xf", cached_root(self.release), "-C", self.root, "--numeric-owner")
        etc = self.root / "etc"
        (etc / "hostname").write_text("fresh\n")
        (etc / "hosts").write_text("127.0.0.1 localhost fresh\n")
        resolver = Path("/run/systemd/resolve/resolv.conf")
        (etc / "resolv.conf").unlink(missing_ok=True)
        shutil.copy(resolver if resolver.exists() else "/etc/resolv.conf", etc / "resolv.conf")
        run("chroot", self.root, "useradd", "--create-home", "--shell=/bin/bash", USER)
        (etc / "sudoers.d/tester").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
        self._settle()
        for home, owner in (("root", "root"), (f"home/{USER}", USER)):
            self._clone(home, owner)

    def _settle(self) -> None:
        """Give it what all machines in this place have: proxies, certificate authorities, an index for pip."""
        etc = self.root / "etc"
        for proxy in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
            shutil.copy(proxy, etc / "apt/apt.conf.d" / proxy.name)
        settings = {}
        for name in PIP_SETTINGS:
            given = configparser.ConfigParser()
            given.read(["/etc/xdg/pip/pip.conf", "/etc/pip.conf"])
            value = os.environ.get(f"PIP_{name.upper().replace('-', '_')}") or given.get("global", name, fallback="")
            if value and not value.startswith("file:"):
                settings[name] = value
        if authorities := settings.get("cert"):
            shutil.copy(authorities, etc / "this-place.crt")
            settings["cert"] = "/etc/this-place.crt"
        if settings:
            lines = [f"{name} = {value}" for name, value in settings.items()]
            (etc / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))

    def _clone(self, home: str, owner: str) -> None:
        """Clone the repository as its users do, with the changes of this checkout."""
        target = self.root / home / "turtles"
        run("git", "clone", "--quiet", "--depth=1", f"file://{CHECKOUT}", target)
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=CHECKOUT).stdout
        for name in filter(None, listed.split("\0")):
            if (CHECKOUT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, target / name)
            else:
                (target / name).unlink(missing_ok=True)
        run("chroot", self.root, "chown", "-R", f"{owner}:", f"/{home}/turtles")

    def _boot(self) -> None:
        cgroup.create(self._cgroup)
        namespaces = ("--mount", "--net", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child")
        log = (self._folder / "boot.log").open("wb")
        command = [*self._join(), "unshare", *namespaces, str(HERE / "boot.sh"), str(self.root)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not (self._pid and Path(f"/proc/{self._pid}/root/run/booted").exists()):
            said = (self._folder / "boot.log").read_text()
            assert self._process.poll() is None, f"the machine doesn't boot: {said}"
            assert time.monotonic() < deadline, f"the machine isn't up after 30 s: {said}"
            time.sleep(0.05)  # mounts of another namespace can't be watched

    def _join(self) -> list[str]:
        return [str(CHECKOUT / "tests/cluster/kubernetes_cluster/join.sh"), self._cgroup]

    @property
    def _pid(self) -> int | None:
        """Process 1, as the host counts: the child of unshare."""
        assert self._process
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _connect(self) -> None:
        run("ip", "link", "add", self._name, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        run("ip", "address", "add", f"{self._host}/30", "dev", self._name)
        run("ip", "link", "set", self._name, "up")
        inside = ("nsenter", "--target", str(self._pid), "--net", "ip")
        run(*inside, "address", "add", f"{self._address}/30", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", "default", "via", self._host)
        Path(FORWARDED).write_text("1")
        rule = f"ip saddr {self._address} oifname != {self._name} masquerade"
        chain = f"chain leave {{\ntype nat hook postrouting priority srcnat;\n{rule}\n}}"
        run("nft", f"table ip {self._cgroup} {{\n{chain}\n}}\n")

    def shell(self, line: str, *, user: str = "root", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell's line in a user's clone, as after logging in; its output is shown as it comes, and returned."""
        login = ["su", "--login", user, "--command", f"cd turtles && {line}"]
        enter = ["nsenter", "--target", str(self._pid), "--all", "--root", "--wd"]
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        command = [*([*self._join()[:1], f"{self._cgroup}/init"] if unified else self._join()), *enter, *login]
        print(f"=== {self.release}, {user}: {line}", flush=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        assert process.stdout
        said = []
        for text in process.stdout:
            print(text, end="", flush=True)
            said.append(text)
        code, output = process.wait(), "".join(said)
        assert not check or code == 0, f"{line} failed ({code}) on {self.release} as {user}:\n{output[-6000:]}"
        return subprocess.CompletedProcess(command, code, output, "")
