# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher's Pod can do to the node agent. Runs in a Pod, as its user; speaks libvirt's RPC.

Stands between the agent and a real libvirtd in the same Pod, and changes what it passes on as the file ``mode`` in the
Pod's folder of work says.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time

WORK = os.environ["HOME"]
SOCKET = "/run/kubevirt/sockets/libvirt-sock"
REAL = "/run/libvirt/libvirt-sock"
HEADER = struct.Struct(">IIIiIII")
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
DESTROY, XML_DESC, LIFECYCLE = 12, 14, 318
LAUGHS = (
    '<!DOCTYPE d [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {y} "{f"&{x};" * 10}">' for x, y in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><domain>&i;</domain>"
)
DOCUMENTS = {
    "long": "<domain>" + "<a/>" * 975_000 + "</domain>",
    "wide": "<domain>" + "<a/>" * 60_000 + "</domain>",
    "laughs": LAUGHS,
}


def mode() -> str:
    with open(f"{WORK}/mode") as file:
        return file.read()


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def message(program: int, procedure: int, kind: int, serial: int, body: bytes = b"") -> bytes:
    return HEADER.pack(HEADER.size + len(body), program, 1, procedure, kind, serial, 0) + body


def event(callback: int) -> bytes:
    body = struct.pack(">I", callback) + string("default_testvm") + bytes(16) + struct.pack(">iII", 1, 4, 0)
    return message(REMOTE, LIFECYCLE, 2, 0, body)


def exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = end.recv(size - len(data))
        if not part:
            raise OSError("end")
        data += part
    return data


def receive(end: socket.socket) -> tuple[tuple[int, ...], bytes]:
    header = exactly(end, HEADER.size)
    fields = HEADER.unpack(header)
    return fields, header + exactly(end, fields[0] - HEADER.size)


def calls(agent: socket.socket, daemon: socket.socket) -> None:
    while True:
        fields, data = receive(agent)
        _, program, _, procedure, kind, serial, _ = fields
        now = mode()
        if now in ("silent", "keepalive"):
            if now == "keepalive" and program == KEEPALIVE:
                agent.sendall(message(KEEPALIVE, 2, 2, 0))
            continue
        if program == REMOTE and kind == 0:
            if now == "close":
                agent.shutdown(socket.SHUT_RDWR)
                return
            if now == "huge":
                agent.sendall(HEADER.pack(1 << 24, REMOTE, 1, procedure, 1, serial, 0))
                while True:
                    agent.sendall(bytes(1 << 16))
            if now == "undying" and procedure == DESTROY:
                agent.sendall(message(REMOTE, procedure, 1, serial))
                continue
            if procedure == XML_DESC and now in DOCUMENTS:
                agent.sendall(message(REMOTE, procedure, 1, serial, string(DOCUMENTS[now])))
                continue
            if now == "garbage":
                agent.sendall(message(0x20008088, 1, 3, serial, bytes(64)))
                continue
        daemon.sendall(data)


def answers(agent: socket.socket, daemon: socket.socket) -> None:
    while True:
        _, data = receive(daemon)
        now = mode()
        if now in ("silent", "keepalive"):
            continue
        if now == "dribble":
            for position in range(len(data)):
                agent.sendall(data[position : position + 1])
                time.sleep(1)
        agent.sendall(data)


def flood(agent: socket.socket) -> None:
    while True:
        if mode() == "events":
            for callback in range(4):
                agent.sendall(event(callback) * 100)
        else:
            time.sleep(0.05)


def serve(agent: socket.socket) -> None:
    daemon = socket.socket(socket.AF_UNIX)
    daemon.connect(REAL)

    def run(function, *ends) -> None:
        try:
            function(*ends)
        except OSError:
            pass
        finally:
            for end in (agent, daemon):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    for function, ends in ((calls, (agent, daemon)), (answers, (agent, daemon)), (flood, (agent,))):
        threading.Thread(target=run, args=(function, *ends), daemon=True).start()


def main() -> None:
    conf = f"{WORK}/real.conf"
    with open(conf, "w") as file:
        file.write('unix_sock_dir = "/run/libvirt"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    subprocess.Popen(["/usr/sbin/libvirtd", "-f", conf])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # libvirt waits for the end of QEMUs, which are this process's then
    # There is a moment between the name and the queue
    while socket.socket(socket.AF_UNIX).connect_ex(REAL):
        time.sleep(0.01)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen(64)
    while True:
        agent, _ = listener.accept()
        with open(f"{WORK}/accepted", "a") as file:
            file.write("x")
        if mode() == "early":
            agent.sendall(event(0))
        serve(agent)


main()
