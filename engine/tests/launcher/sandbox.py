# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for a Pod's container, started as ``python sandbox.py BASE`` by root.

Makes own network, mount, pid, UTS and IPC namespaces, mounts what BASE/pod.json lists, becomes uid 107 without
capabilities, as a kubelet has it, and calls the function it names with its arguments. Like the Pod runner it has
imported the function before the fork. BASE/pid gets the process id as seen from outside, BASE/exit the exit status.
"""

import ctypes
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

UID = 107
LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
NET_BIND_SERVICE = 10


def check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def bind(source: Path, target: str, read_only: bool = False) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    mount("--bind", str(source), target)
    if read_only:
        mount("-o", "remount,bind,ro", target)


def file_systems(base: Path, pod: dict) -> None:
    mount("--make-rprivate", "/")
    for target in ("/run", "/mnt"):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", target)
    # Volumes are mounted before /tmp, where BASE lies, is hidden.
    for item in pod["mounts"]:
        bind(base / item["source"], item["target"], item.get("readOnly", False))
    if "cache" in pod:
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/cache")
        bind(Path(pod["cache"]), "/var/cache/turtles-launcher", pod.get("cacheReadOnly", True))
    for name, line in (("passwd", f"qemu:x:{UID}:{UID}::/:/usr/sbin/nologin\n"), ("group", f"qemu:x:{UID}:\n")):
        (base / name).write_text(f"root:x:0:0:root:/root:/bin/sh\n{line}" if name == "passwd" else f"root:x:0:\n{line}")
        mount("--bind", str(base / name), f"/etc/{name}")
    (base / "hosts").write_text(f"127.0.0.1 localhost {pod['hostname']}\n")
    mount("--bind", str(base / "hosts"), "/etc/hosts")
    (base / "resolv.conf").write_text(
        pod.get("resolvConf", "nameserver 10.96.0.10\nsearch default.svc.cluster.local\n")
    )
    mount("--bind", str(base / "resolv.conf"), "/etc/resolv.conf")
    mount("-t", "proc", "proc", "/proc")
    devices(base, pod)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")


def devices(base: Path, pod: dict) -> None:
    dev = Path("/mnt/dev")
    dev.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(dev))
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("net/tun", 10, 200),
    ):
        (dev / name).parent.mkdir(exist_ok=True)
        os.mknod(dev / name, 0o20666, os.makedev(major, minor))
        (dev / name).chmod(0o666)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", str(dev / "pts"))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(dev / "shm"))
    if "hugePages" in pod:
        bind(base / pod["hugePages"], str(dev / "hugepages"))
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    log = dev / "termination-log"
    log.touch()
    mount("--bind", str(base / "termination-log"), str(log))
    mount("--move", str(dev), "/dev")


def drop_privileges() -> None:
    for capability in range(64):
        if capability != NET_BIND_SERVICE and LIBC.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            break
    os.setgroups([UID])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    check(LIBC.prctl(38, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def container(base: Path, pod: dict, function: object, apart: int) -> int:
    check(LIBC.unshare(NEWNS | NEWUTS | NEWIPC | NEWNET), "unshare")
    for command in pod["network"]:
        subprocess.run(["ip", *command.split()], check=True)
    os.close(apart)
    file_systems(base, pod)
    socket.sethostname(pod["hostname"])
    os.chdir("/")
    drop_privileges()
    os.environ.clear()
    os.environ.update(pod["env"])
    started = time.time()
    print(f"started {started}", file=sys.stderr, flush=True)
    return function(*pod["arguments"]) or 0


def main() -> None:
    base = Path(sys.argv[1])
    pod = json.loads((base / "pod.json").read_text())
    module, name = pod["function"].split(":")
    function = getattr(importlib.import_module(module), name)
    (base / "termination-log").touch()
    (base / "termination-log").chmod(0o666)
    gc.collect()
    gc.freeze()
    check(LIBC.unshare(NEWPID), "unshare")
    waiting, apart = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        os.close(waiting)
        try:
            status = container(base, pod, function, apart)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    # Whoever knows the process enters its namespaces: they are its own by then, or it has ended.
    os.close(apart)
    os.read(waiting, 1)
    os.close(waiting)
    (base / "pid.new").write_text(str(child))
    (base / "pid.new").rename(base / "pid")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (base / "exit.new").write_text(str(status))
    (base / "exit.new").rename(base / "exit")


main()
