# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that connects ssh to a port of a guest: its standard input and output go through the Kubernetes API."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import threading

from ..module_utils._client import Client
from ..module_utils._errors import KubeError

# Environment variable with the options of the client as JSON. Arguments would show in the list of processes.
OPTIONS = "TURTLES_KUBEVIRT_API"
# Environment variable with the path of a file for the error. With a persistent connection ssh lets no error through.
ERROR = "TURTLES_KUBEVIRT_ERROR"
PROTOCOL = "plain.kubevirt.io"
_CHUNK = 65536
# Collections are found by Ansible's own import system, which this program does without.
_START = """
import sys, types
collections = types.ModuleType("ansible_collections")
collections.__path__ = [sys.argv[1]]
sys.modules["ansible_collections"] = collections
from {module} import main
sys.exit(main(sys.argv[2:]))
"""


def command(namespace, name, port):
    """Return the program as a command for a shell.

    :param port: port of the guest of the VirtualMachineInstance `namespace`/`name`.
    """
    collections = os.path.abspath(__file__).rsplit(os.sep + "turtles" + os.sep, 1)[0]
    return shlex.join([sys.executable, "-c", _START.format(module=__name__), collections, namespace, name, str(port)])


def main(arguments):
    """Connect; return the exit status."""
    namespace, name, port = arguments
    try:
        client = Client(json.loads(os.environ.pop(OPTIONS)))
        stream = client.stream(
            "/apis/subresources.kubevirt.io/v1/namespaces/%s/virtualmachineinstances/%s/portforward/%s"
            % (namespace, name, port),
            PROTOCOL,
        )
    except KubeError as exc:
        message = "VirtualMachineInstance %s/%s, port %s: %s" % (namespace, name, port, exc)
        print(message, file=sys.stderr)
        with contextlib.suppress(KeyError, OSError), open(os.environ[ERROR], "r+", encoding="utf-8") as file:
            file.write(message)
        return 1
    threading.Thread(target=_send, args=(stream,), daemon=True).start()
    return _receive(stream)


def _send(stream):
    """Send what comes from standard input; its end is the connection's end."""
    try:
        while data := os.read(0, _CHUNK):
            stream.send(data)
        stream.close()
    except OSError:
        pass  # the other side has closed, which _receive sees


def _receive(stream):
    """Write what comes from the guest, until it or the one who reads has had enough."""
    try:
        while data := stream.receive():
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    except OSError:
        pass  # ssh has had enough
    return 0
