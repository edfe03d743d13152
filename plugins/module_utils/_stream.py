# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Streams of bytes over WebSockets, as the API offers them for consoles and ports."""

from __future__ import annotations

from ansible.module_utils.basic import missing_required_lib


class Refused(Exception):
    """The server answered with something else than a stream: `status` and `body`."""

    def __init__(self, status, body):
        super().__init__("HTTP status %d" % status)
        self.status, self.body = status, body


class Stream:
    """A connected stream.

    :param url: where it is, such as ``wss://…``. :param protocol: name of what is spoken over it.
    :param options: further ones of websocket.create_connection().
    :raises OSError: there is no connection to the server.
    :raises Refused: the server doesn't want it.
    :raises ModuleNotFoundError: a Python package is missing; the text says which, in Ansible's words.
    """

    def __init__(self, url, protocol, options):
        try:
            # It comes with the Kubernetes library, and takes too long to load for the many tasks that have no stream.
            import websocket
        except ImportError:
            raise ModuleNotFoundError(missing_required_lib("websocket-client")) from None
        self._error, self._timeout = websocket.WebSocketException, websocket.WebSocketTimeoutException
        try:
            self._socket = websocket.create_connection(url, subprotocols=[protocol], suppress_origin=True, **options)
        except websocket.WebSocketBadStatusException as exc:
            raise Refused(exc.status_code, exc.resp_body or b"") from exc
        except self._error as exc:
            raise OSError(str(exc)) from exc

    def send(self, data):
        """Send bytes.

        :raises OSError: the stream is closed.
        """
        try:
            self._socket.send_binary(data)
        except self._error as exc:
            raise OSError(str(exc)) from exc

    def receive(self, timeout=None):
        """Wait for bytes and return them; b"" when the stream is closed, None if nothing came so many seconds."""
        try:
            self._socket.settimeout(timeout)
            data = self._socket.recv()
        except self._timeout:
            return None
        except (OSError, self._error):
            return b""
        return data if isinstance(data, bytes) else data.encode()

    def close(self):
        """End it."""
        self._socket.close()
