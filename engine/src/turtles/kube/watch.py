# SPDX-License-Identifier: GPL-3.0-or-later
"""A watch of the Kubernetes API: a stream of events, one JSON object a line."""

import contextlib
from collections.abc import Iterator

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from turtles.api.objects import Object
from turtles.kube import errors
from turtles.kube.errors import Unavailable

_decode = msgspec.json.Decoder().decode


class WatchStream:
    """An open watch: iterate over ``(type, object)``; it ends when the server or :meth:`close` ends it."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Yield events: ADDED, MODIFIED, DELETED, BOOKMARK with their object.

        :raises Gone: the resourceVersion is no longer kept.
        :raises ApiError: any other ERROR event.
        :raises Unavailable: the connection broke.
        """
        pending = b""
        try:
            while True:
                data = self._response.read1(1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    if not line.strip():
                        continue
                    event = _decode(line)
                    kind, obj = event["type"], event["object"]
                    if kind == "ERROR":
                        raise errors.from_status(int(obj.get("code") or 500), obj, "the watch failed")
                    yield kind, obj
        except (HTTPError, OSError) as error:
            raise Unavailable(0, "", f"the watch was interrupted: {error}") from error
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            # Besides garbage this is what a read on a connection looks like that was shut down in the meantime.
            raise Unavailable(0, "", f"the watch sent something other than an event: {error}") from error
        finally:
            self._response.close()

    def close(self) -> None:
        """End the watch; may be called from any thread."""
        with contextlib.suppress(HTTPError, OSError, ValueError, RuntimeError):
            self._response.shutdown()
