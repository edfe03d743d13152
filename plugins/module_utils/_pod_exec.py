# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A command in a container of a Pod, with its standard input and output (KEP-4006: channels in one WebSocket)."""

from __future__ import annotations

from urllib.parse import urlencode

from ._errors import KubeError
from ._values import from_json

_PROTOCOL = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)


class PodExec:
    """A running command.

    :param client: the connection to the API server. :param path: that of the Pod.
    :param command: program and arguments.
    :raises KubeError: it can't be started; ApiError if the server refuses.
    """

    def __init__(self, client, path, container, command):
        query = [("command", word) for word in command]
        query += [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        self._stream = client.stream("%s/exec?%s" % (path, urlencode(query)), _PROTOCOL)
        self._read = b""
        self.errors = b""
        # What the server says about the command in the end.
        self.status = {}

    def send(self, data):
        """Write to its standard input.

        :raises KubeError: it is no longer running.
        """
        try:
            self._stream.send(bytes([_STDIN]) + data)
        except OSError as exc:
            raise self._ended() from exc

    def read_until(self, mark, timeout):
        """Return what comes on its standard output before mark, which is left out; None if that takes longer.

        :param timeout: seconds without any output.
        :raises KubeError: the command ends before.
        """
        while mark not in self._read:
            message = self._stream.receive(timeout)
            if message is None:
                return None
            if message == b"":
                raise self._ended()
            channel, data = message[0], message[1:]
            if channel == _STDOUT:
                self._read += data
            elif channel == _STDERR:
                self.errors += data
            elif channel == _STATUS and data:
                self.status = from_json(data)
        output, _mark, self._read = self._read.partition(mark)
        return output

    def close(self):
        """End it."""
        self._stream.close()

    def _ended(self):
        """Return the error that says how it ended: its last words, or the server's."""
        texts = [text.decode(errors="replace").strip().removeprefix("error: ") for text in (self.errors, self._read)]
        return KubeError(next(filter(None, texts), self.status.get("message") or "the connection was closed"))
