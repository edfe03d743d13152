# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that comes from an HTTP server, resumed where a connection breaks (RFC 9110, "Range Requests").

urllib3 speaks HTTP; here is what to do when it fails. What comes in two parts is one file only if the server says so:
it names a version of the file (a strong ETag, or when it was changed), which the second request asks for.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from turtles.importer.errors import ImportFailed, ImportRefused, SourceChanged
from turtles.importer.request import Request

log = logging.getLogger(__name__)

#: Bytes of a read, as much as a socket holds: a larger buffer is made for each read and given back.
_CHUNK = 256 << 10
#: Tries in a row that bring next to nothing, and in all; the pause between two begins with a second and doubles.
_TRIES, _ALL_TRIES, _LONGEST_PAUSE = 5, 1000, 15.0
#: A connection that brings fewer bytes per second, over as many seconds, is stalled.
_SLOWEST, _PATIENCE = 1024, 30.0


@dataclass(frozen=True)
class Version:
    """What tells a file from one that has its place later.

    :param tag: its strong ETag. :param changed: its Last-Modified. :param total: its bytes, if known.
    """

    tag: str = ""
    changed: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """What a request for the rest names; empty if there is nothing."""
        return self.tag or self.changed


class Transfer:
    """The bytes of a file, from one position on.

    :param start: the first byte that is wanted.
    :param version: of what came before, if the start isn't 0.
    :param limit: bytes that the file may have; a longer one is refused, before anything is read if it says so.
    """

    def __init__(
        self,
        request: Request,
        limit: int,
        start: int = 0,
        version: Version | None = None,
        sleep: Callable[[float], None] = time.sleep,
        patience: float = _PATIENCE,
    ) -> None:
        self._request, self._limit, self._sleep, self._patience = request, limit, sleep, patience
        self._pool = request.pool()
        #: The next byte.
        self.position = start
        #: Known from the first response on.
        self.version = version

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes, in pieces.

        :raises ImportFailed: the server can't be reached, or says no.
        """
        failures = tries = 0
        while True:
            before = self.position
            try:
                yield from self._connection()
                return
            except (HTTPError, OSError) as error:
                # One that drips isn't getting on either
                failures = 1 if self.position - before > _SLOWEST * self._patience else failures + 1
                tries += 1
                why = _words(error)
                if not self.position or failures >= _TRIES or tries >= _ALL_TRIES:
                    raise self._failure(why) from error
                if self.version is None or not self.version.validator:
                    raise self._failure(
                        f"{why} after {self.position} bytes, and the server sends no version of the file (ETag or "
                        "Last-Modified) with which the rest could be requested"
                    ) from error
                log.warning("the transfer was interrupted: %s", why, extra={"position": self.position})
                self._sleep(min(_LONGEST_PAUSE, 2.0 ** (failures - 1)))

    def _failure(self, why: str) -> ImportFailed:
        return ImportFailed(f"{self._request.url}: {why}")

    def _connection(self) -> Iterator[bytes]:
        """Give what one connection brings."""
        headers = {}
        if self.position:
            headers["Range"] = f"bytes={self.position}-"
            if self.version is not None and self.version.validator:
                headers["If-Range"] = self.version.validator
        response = self._request.open(self._pool, headers)
        try:
            skip = self._judge(response)
            for piece in self._read(response):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                piece, skip = piece[skip:], 0
                self.position += len(piece)
                if self.position > self._limit:
                    raise self._too_large()
                yield piece
            if self.version is not None and self.version.total not in (None, self.position):
                raise urllib3.exceptions.ProtocolError(f"the connection was closed after {self.position} bytes")
        finally:
            response.close()

    def _judge(self, response: urllib3.BaseHTTPResponse) -> int:
        """Look at a response's head; return how many bytes of its body are there already.

        :raises ImportFailed: it isn't the file, or not the rest of it.
        """
        if response.status == 416 and self.version is not None and self.version.total == self.position:
            return 0
        if response.status not in (200, 206):
            raise self._failure(f"the server answered {response.status} {response.reason or ''}".rstrip())
        version = _version(response)
        if self.version is None:
            if response.status == 206:
                raise self._failure("the server sent a range that wasn't requested")
            self.version = version
            if version.total is not None and version.total > self._limit:
                raise self._too_large()
            return 0
        same = version.validator == self.version.validator or not version.validator
        if not same or (version.total is not None and self.version.total not in (None, version.total)):
            raise SourceChanged(f"{self._request.url} changed while it was being read; starting over")
        if response.status == 200:
            # The whole file again: it has no ranges, or it was changed and says so by this
            if not version.validator:
                raise SourceChanged(f"{self._request.url} may have changed while it was being read; starting over")
            return self.position
        if _first_byte(response) != self.position:
            raise self._failure("the server sent a different range than requested")
        return 0

    def _read(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        began, count = time.monotonic(), 0
        while piece := response.read1(_CHUNK):
            count += len(piece)
            yield piece
            if (passed := time.monotonic() - began) > self._patience:
                if count < _SLOWEST * passed:
                    raise urllib3.exceptions.ProtocolError(f"the server stalled: {count} bytes in {passed:.0f} s")
                began, count = time.monotonic(), 0

    def _too_large(self) -> ImportRefused:
        total = self.version.total if self.version else None
        size = f"has {total} bytes" if total else "goes on"
        return ImportRefused(
            f"{self._request.url} {size}, more than the {self._limit} that a disk of this size can come from; "
            "a larger claim is required"
        )


def _version(response: urllib3.BaseHTTPResponse) -> Version:
    tag = response.headers.get("ETag", "")
    # A weak one may be that of another encoding of the same
    tag = "" if tag.startswith("W/") else tag
    length = response.headers.get("Content-Length", "")
    if response.status == 206:
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    return Version(tag, response.headers.get("Last-Modified", ""), total)


def _first_byte(response: urllib3.BaseHTTPResponse) -> int | None:
    match = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _words(error: Exception) -> str:
    """Return what went wrong with a connection, without the classes that urllib3 wraps it in."""
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(reason, SSLError) or "certificate verify failed" in str(reason):
        return (
            f"the server's certificate can't be verified ({_innermost(reason)}); name its authority with certConfigMap"
        )
    return _innermost(reason)


def _innermost(error: BaseException) -> str:
    while isinstance(error.args[0] if error.args else None, Exception):
        error = error.args[0]
    text = str(error.args[0] if error.args and isinstance(error.args[0], str) else error)
    return (text.rpartition(": ")[2] if "object at 0x" in text else text) or type(error).__name__
