# SPDX-License-Identifier: GPL-3.0-or-later
"""The container of these tests."""

import os
import signal
import socket
import sys
import threading
import time


def main(argv):
    """Do what the first argument says."""
    action, *rest = argv or ["serve"]
    if action == "echo":
        print(*rest)
        print("complaint", file=sys.stderr)
        return 3
    if action == "flood":
        for number in range(int(rest[0])):
            print(f"{number:08} {'x' * 91}")
        return 0
    if action == "count":
        for number in range(int(rest[0])):
            print(f"line {number}", flush=True)
            time.sleep(0.05)
        return 0
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if action == "count until told":
        number = 0
        while not stop.wait(0.05):
            print(f"line {number}", flush=True)
            number += 1
        print(f"{number} lines", flush=True)
        return 0
    print("serving", os.getuid(), flush=True)
    os.write(1, b"no newline")
    listener = socket.create_server(("127.0.0.1", 8080))
    listener.settimeout(0.2)
    while not stop.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        threading.Thread(target=echo, args=(client,), daemon=True).start()
    return 0


def echo(client):
    """Send back what comes."""
    with client:
        client.sendall(b"hello ")
        while data := client.recv(65536):
            client.sendall(data)
