# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile process in a container tries; it runs there, as the image's entry point or by ``exec``."""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWUSER, _NEWNET = 0x10000000, 0x40000000

#: x86_64's numbers, with arguments that do no harm where a call is let through.
CALLS = {
    "add_key": (248, b"user", b"x", b"x", 1, -2),
    "bpf": (321, 0, 0, 0),
    "clone3": (435, 0, 0),
    "finit_module": (313, -1, b"", 0),
    "io_uring_setup": (425, 0, 0),
    "keyctl": (250, 0, -3, 0),
    "mount": (165, b"tmpfs", b"/tmp", b"tmpfs", 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "open_tree": (428, -100, b"/", 1),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "pivot_root": (155, b"/nowhere", b"/nowhere"),
    "request_key": (249, b"user", b"x", 0, 0),
    "setns": (308, -1, 0),
    "umount2": (166, b"/nowhere", 0),
    "unshare": (272, _NEWUSER | _NEWNET),
    "userfaultfd": (323, 0),
}


def main(argv):
    """Do what the first argument says and print what came of it, as JSON."""
    action, *rest = argv
    print(json.dumps(globals()[f"_{action}"](*rest)), flush=True)
    if action == "forks":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        threading.Event().wait()
    return 0


def _name(number):
    return errno.errorcode.get(number, str(number)) if number else "OK"


def _calls():
    """Make system calls; return how each of them ends."""
    result = {name: _name(_in_child(lambda call=call: _raw(*call))) for name, call in CALLS.items()}
    # SIGCHLD makes it a fork, in a new user namespace or in none.
    result["clone"] = _name(_in_child(lambda: _clone(0)))
    result["clone NEWUSER"] = _name(_in_child(lambda: _clone(_NEWUSER)))
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_ALG", "AF_VSOCK"):
        kind = socket.SOCK_SEQPACKET if family == "AF_ALG" else socket.SOCK_STREAM
        kind = socket.SOCK_RAW if family == "AF_NETLINK" else kind
        try:
            socket.socket(getattr(socket, family), kind).close()
            result[family] = "OK"
        except OSError as error:
            result[family] = _name(error.errno)
    # The 32-bit calls of a 64-bit program: getpid, and socketcall with no call.
    result["32-bit getpid"] = "OK" if _in_child(lambda: 0 if _int80(20) > 0 else 99) == 0 else "no"
    result["32-bit socketcall"] = _name(_in_child(lambda: -_int80(102)))
    result["32-bit unshare"] = _name(_in_child(lambda: -_int80(310, _NEWUSER)))
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    result["Seccomp"] = status["Seccomp"]
    result["unshare -Urn"] = str(_run("unshare", "-Urn", "true"))
    return result


def _run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode


def _in_child(function):
    """Return what a function returns, called in a process of its own: namespaces that it gets end with it."""
    pid = os.fork()
    if pid == 0:
        code = 98
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _raw(number, *arguments):
    typed = [value if isinstance(value, bytes) else ctypes.c_long(value) for value in arguments]
    return ctypes.get_errno() if _LIBC.syscall(ctypes.c_long(number), *typed) < 0 else 0


def _clone(flags):
    pid = _LIBC.syscall(ctypes.c_long(56), ctypes.c_long(flags | signal.SIGCHLD), *[ctypes.c_long(0)] * 4)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        return ctypes.get_errno()
    os.waitpid(pid, 0)
    return 0


def _int80(number, argument=0):
    """Make a system call of the 32-bit interface (syscalls(2)): push rbx, eax = number, ebx, int 0x80, pop rbx."""
    rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, rights)
    page.write(
        b"\x53\xb8" + struct.pack("<I", number) + b"\xbb" + struct.pack("<I", argument) + b"\x31\xc9\xcd\x80\x5b\xc3"
    )
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def _look(*paths):
    """Return what is to be seen of the host."""

    def names(path):
        return sorted(entry.name for entry in Path(path).iterdir())

    result = {path: names(path) for path in ("/", *paths)}
    result["etc"] = sorted(
        str(path)
        for path in Path("/etc").rglob("*")
        if not str(path).startswith(("/etc/ssl/certs/", "/etc/alternatives/"))
    )
    own = Path("/").stat().st_dev
    result["own"] = [path for path in paths if Path(path).stat().st_dev == own]
    result["masked"] = [
        path
        for path in ("/proc/kcore", "/proc/keys", "/proc/interrupts", "/proc/timer_list")
        if Path(path).exists() and Path(path).read_bytes()
    ]
    result["firmware"] = names("/sys/firmware") if Path("/sys/firmware").is_dir() else []
    result["writable"] = [
        path
        for path in (
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "/sys/power/state",
            "/dev/fresh",
            "/etc/fresh",
            "/usr/fresh",
        )
        if _writable(path)
    ]
    result["cgroup"] = Path("/proc/self/cgroup").read_text()
    result["localhost"] = socket.gethostbyname("localhost")
    result["qemu-img"] = _run("qemu-img", "--help")
    result["fds"] = sorted(int(fd) for fd in names("/proc/self/fd"))
    return result


def _writable(path):
    try:
        with open(path, "ab"):
            return True
    except OSError:
        return False


def _disks(*folders):
    """Make device files of a disk and of memory wherever that is possible; return those that can be opened."""
    opened, made = [], []
    for folder in folders:
        for name, kind, number in (
            ("disk", stat.S_IFBLK, os.makedev(7, 0)),
            ("mem", stat.S_IFCHR, os.makedev(1, 1)),
            ("null", stat.S_IFCHR, os.makedev(1, 3)),
        ):
            path = f"{folder}/hostile-{name}"
            try:
                os.mknod(path, kind | 0o666, number)
                made.append(path)
                os.close(os.open(path, os.O_RDWR))
                opened.append(path)
            except OSError as error:
                if error.errno in (errno.ENXIO, errno.ENOENT, errno.ENODEV):
                    # Nothing of the sandbox: the driver said that there is no such device.
                    opened.append(path)
            finally:
                with contextlib.suppress(OSError):
                    Path(path).unlink()
    return {"opened": opened, "made": len(made)}


def _forks():
    """Fork until that is refused; return how many processes there are then, and what the kernel says."""
    count = 1
    while True:
        try:
            pid = os.fork()
        except OSError as error:
            return {"count": count, "errno": _name(error.errno)}
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            while True:
                signal.pause()
        count += 1
        if count > 2000:
            return {"count": count, "errno": "OK"}


def _remains():
    """Look for secrets of other Pods in this process's memory; what the forking process was started with, too."""
    found = set()
    pattern = re.compile(rb"TOKEN-[0-9a-f]{32}")
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        if not rights.startswith("rw") or "[v" in line:
            continue
        start, end = (int(text, 16) for text in span.split("-"))
        found.update(match.decode() for match in pattern.findall(ctypes.string_at(start, end - start)))
    return {"found": sorted(found), "environ": Path("/proc/self/environ").read_bytes().strip(b"\0").decode()}


def _trace():
    """Look into process 1, which is of the same user."""
    result = {}
    for name in ("mem", "environ", "root/etc/hosts"):
        try:
            with open(f"/proc/1/{name}", "rb"):
                result[name] = "OK"
        except OSError as error:
            result[name] = _name(error.errno)
    # ptrace(PTRACE_SEIZE), process_vm_readv(2)
    result["ptrace"] = _name(_raw(101, 0x4206, 1, 0, 0))
    room = ctypes.create_string_buffer(8)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(room), 8))
    result["process_vm_readv"] = _name(_raw(310, 1, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0))
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
