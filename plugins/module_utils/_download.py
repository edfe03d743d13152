# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Downloads from the server of an export into files, and goes on where a download has broken off."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
from urllib.parse import urlsplit

from ._errors import KubeError
from ._transfer import CHUNK, TIMEOUT, Broken, tls_context

HEADER = "x-kubevirt-export-token"
# Answers after which it is tried again: the server is being replaced.
AGAIN = (502, 503, 504)
# Longest manifest.
_LONGEST = 32 << 20
MODE = 0o600


class Server:
    """The server of an export, or what passes requests on to it.

    :param authorities: those of its certificate in PEM; None: the system's.
    :param verify: whether its certificate is verified.
    :raises KubeError: the authorities can't be used.
    """

    def __init__(self, token, authorities=None, verify=True):
        self._token = token
        self._context = tls_context(authorities, verify, "the export's server")

    def head(self, url):
        """Return what there is to say of a disk: its size in bytes, and its tag.

        :raises Broken: it has to be tried again. :raises KubeError: the server refuses.
        """
        connection, answer = self._open("HEAD", url, {})
        connection.close()
        if answer.status != 200:
            raise self._refused(url, answer.status, "")
        return int(answer.headers.get("Content-Length") or 0), answer.headers.get("ETag") or ""

    def text(self, url):
        """Return the text at an address.

        :raises Broken: it has to be tried again. :raises KubeError: the server refuses.
        """
        connection, answer = self._open("GET", url, {"Accept": "application/json"})
        try:
            body = answer.read(_LONGEST).decode(errors="replace")
        except (OSError, http.client.HTTPException) as exc:
            raise Broken("the connection was interrupted: %s" % exc) from exc
        finally:
            connection.close()
        if answer.status != 200:
            raise self._refused(url, answer.status, body)
        return body

    def fetch(self, url, part, show):
        """Bring what is at an address into a Part, from where that ends on.

        :param show: called with how many bytes there are.
        :raises Broken: it has to be gone on with. :raises KubeError: the server refuses, or the file can't be written.
        """
        headers = {}
        if part.size and part.tag:
            headers = {"Range": "bytes=%d-" % part.size, "If-Range": part.tag}
        connection, answer = self._open("GET", url, headers)
        try:
            if answer.status == 416:
                # All of it is there, or it has become another one; a new download tells
                part.restart("")
                raise Broken("the server has less data than requested")
            if answer.status not in (200, 206):
                raise self._refused(url, answer.status, answer.read(4096).decode(errors="replace"))
            if answer.status == 200:
                part.restart(answer.headers.get("ETag") or "")
            length = answer.headers.get("Content-Length")
            end = part.size + int(length) if length is not None else None
            while piece := answer.read(CHUNK):
                part.write(piece)
                show(part.size)
            if end is not None and part.size < end:
                raise Broken("the connection was interrupted after %d of %d bytes" % (part.size, end))
        except (OSError, http.client.HTTPException) as exc:
            if part.error is not None:
                raise KubeError("%s can't be written: %s." % (part.path, part.error)) from exc
            raise Broken("the connection was interrupted: %s" % (str(exc) or type(exc).__name__)) from exc
        finally:
            part.flush()
            connection.close()

    def _open(self, method, url, headers):
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise KubeError("The address of the export's server, %r, isn't an https URL." % url)
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=TIMEOUT, context=self._context
        )
        try:
            connection.request(method, parts.path, headers={HEADER: self._token, **headers})
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise _unreachable(parts.netloc, exc) from exc

    def _refused(self, url, status, text):
        host, text = urlsplit(url).netloc, text.strip()
        if status in AGAIN:
            return Broken("%s answered %d: %s" % (host, status, text))
        if status == 401:
            return KubeError("%s doesn't accept the token of the export (401): its Secret may have changed." % host)
        return KubeError("%s answered %d for %s: %s" % (host, status, urlsplit(url).path, text or "nothing more"))


def _unreachable(host, exc):
    if isinstance(exc, ssl.SSLCertVerificationError):
        remedy = "Set export_ca to its authority, or export_insecure=true."
        return KubeError("The certificate of %s isn't trusted: %s. %s" % (host, exc, remedy))
    if isinstance(exc, socket.gaierror):
        remedy = "Check export_url; the names of internal links are known only inside the cluster."
        return KubeError("%s has no address: %s. %s" % (host, exc, remedy))
    return Broken("%s can't be reached: %s" % (host, str(exc) or type(exc).__name__))


class Part:
    """A file that is being downloaded, beside the one that it becomes; nobody else may read it.

    :param path: of the file that it becomes. :param sparse: whether zeros take no space.
    :raises KubeError: it can't be written.
    """

    def __init__(self, path, sparse):
        self.path, self._sparse = path, sparse
        self.size, self.tag, self.error = 0, "", None
        self._name, self._note = path + ".part", path + ".part.json"
        try:
            descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
            os.fchmod(descriptor, MODE)
            self._file = os.fdopen(descriptor, "r+b")
            self._resume()
        except OSError as exc:
            raise self._failed(exc) from exc

    def _resume(self):
        """Take what an earlier task has left, as far as it is known what it is of."""
        try:
            with open(self._note, encoding="utf-8") as file:
                self.tag = str(json.load(file)["tag"])
        except (OSError, ValueError, KeyError, TypeError):
            self.tag = ""
        self.size = self._file.seek(0, os.SEEK_END) if self.tag else 0
        self._file.seek(self.size)

    def restart(self, tag):
        """Begin again, with other content.

        :param tag: tells it from further content; empty if nothing does.
        """
        try:
            self._file.seek(0)
            self._file.truncate()
            self.size, self.tag = 0, tag
            if tag:
                with open(self._note, "w", encoding="utf-8") as file:
                    os.fchmod(file.fileno(), MODE)
                    json.dump({"tag": tag}, file)
            elif os.path.exists(self._note):
                os.unlink(self._note)
        except OSError as exc:
            self.error = exc.strerror or exc
            raise

    def write(self, piece):
        """Add bytes."""
        try:
            if self._sparse and not piece.strip(b"\0"):
                self._file.seek(len(piece), os.SEEK_CUR)
            else:
                self._file.write(piece)
        except OSError as exc:
            self.error = exc.strerror or exc
            raise
        self.size += len(piece)

    def flush(self):
        """Have on the disk what there is."""
        try:
            self._file.flush()
            self._file.truncate(self.size)
        except OSError as exc:
            raise self._failed(exc) from exc

    def finish(self):
        """Give it its name; return its sha256 checksum."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            actual = digest(self._name)
            os.replace(self._name, self.path)
            if os.path.exists(self._note):
                os.unlink(self._note)
        except OSError as exc:
            raise self._failed(exc) from exc
        return actual

    def close(self):
        """Leave it for a later task."""
        self._file.close()

    def _failed(self, exc):
        return KubeError("%s can't be written: %s." % (self.path, exc.strerror or exc))


def digest(path):
    """Return the sha256 checksum of a file in hexadecimal digits."""
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            checksum.update(piece)
    return checksum.hexdigest()
