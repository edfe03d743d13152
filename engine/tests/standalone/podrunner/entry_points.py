# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry points that tests preload into the forking process."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

#: The image that stands for these entry points.
IMAGE = "test/entry:1"


def main(argv):
    """Do what the first argument says."""
    action, *rest = argv or ["report"]
    if action == "report":
        print(json.dumps(report()))
        return 0
    if action == "exit":
        print("last words")
        return int(rest[0])
    if action == "message":
        Path("/dev/termination-log").write_text(rest[0])
        return 3
    if action == "serve":
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        print("serving", flush=True)
        stop.wait()
        print("stopped")
        return 0
    if action == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("serving", flush=True)
        while True:
            signal.pause()
    if action == "write":
        Path(rest[0]).write_text("written")
        return 0
    print("unknown action", action, file=sys.stderr)
    return 2


def prepare(directory):
    """Warm a cache."""
    Path(directory, "warm").write_text(str(os.getuid()))


def report():
    """Return what a container sees of itself."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "hostname": os.uname().nodename,
        "caps": {key: int(status[key], 16) for key in ("CapEff", "CapBnd", "CapAmb", "CapPrm")},
        "no_new_privs": status["NoNewPrivs"],
        "interfaces": names("/sys/class/net"),
        "dev": names("/dev"),
        "root": names("/root"),
        "home": names("/home"),
        "env": dict(os.environ),
        "fds": sorted(int(fd) for fd in names("/proc/self/fd")),
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "hosts": Path("/etc/hosts").read_text(),
        "comm": Path("/proc/self/comm").read_text().strip(),
        "writable": [path for path in ("/etc", "/usr", "/", "/run", "/tmp", "/var") if _writable(path)],
        "processes": sorted(int(name) for name in names("/proc") if name.isdigit()),
    }


def names(path):
    """Return the names in a directory."""
    return sorted(entry.name for entry in Path(path).iterdir())


def _writable(path):
    try:
        Path(path, "probe").touch()
    except OSError:
        return False
    return True
