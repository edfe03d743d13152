# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends disk images to an upload proxy, as virtctl does. What there is to say of a file is here as well."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
from urllib.parse import urlsplit

from ._errors import KubeError
from ._transfer import CHUNK, TIMEOUT, Broken, tls_context

PATHS = ("/v1beta1/upload-async", "/v1beta1/upload")
ARCHIVE_PATH = "/v1beta1/upload-archive"
# Answers after which the image is sent again.
AGAIN = (401, 503)


class Source:
    """A file, or a device, with a disk image.

    :raises KubeError: it can't be read.
    """

    def __init__(self, path):
        self.path = os.path.expanduser(path)
        try:
            with open(self.path, "rb") as file:
                self.size = file.seek(0, os.SEEK_END)
        except OSError as exc:
            raise KubeError("src: %s can't be read: %s." % (path, exc.strerror or exc)) from exc
        if not self.size:
            raise KubeError("src: %s is empty." % path)

    def pieces(self, show=None):
        """Give its bytes; show is called with how many there were."""
        sent = 0
        with open(self.path, "rb") as file:
            while piece := file.read(CHUNK):
                yield piece
                sent += len(piece)
                if show:
                    show(sent)

    def digest(self, algorithm):
        """Return its hash in hexadecimal digits."""
        checksum = hashlib.new(algorithm)
        for piece in self.pieces():
            checksum.update(piece)
        return checksum.hexdigest()


class Proxy:
    """An upload proxy.

    :param url: its address; without a scheme https is meant.
    :param authorities: those of its certificate in PEM; None: the system's.
    :param verify: whether its certificate is verified.
    :raises KubeError: the address or the authorities can't be used.
    """

    def __init__(self, url, authorities=None, verify=True):
        parts = urlsplit(url if "://" in url else "https://%s" % url)
        if parts.scheme != "https" or not parts.hostname:
            raise KubeError("The upload proxy's address, %r, isn't an https URL." % url)
        self.url, self._host, self._port = url, parts.hostname, parts.port or 443
        self._root = parts.path.rstrip("/")
        self._context = tls_context(authorities, verify, "the upload proxy")

    def send(self, token, source, show, patience, archive=False):
        """Send an image.

        :param show: called with how many bytes there were.
        :param patience: seconds that a server without upload-async may convert the image for.
        :param archive: it is an archive.
        :raises Broken: it has to be sent again.
        :raises KubeError: it isn't accepted.
        """
        headers = {
            "Authorization": "Bearer %s" % token,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(source.size),
        }
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._context)
        try:
            path = ARCHIVE_PATH if archive else self._path(token)
            connection.request("POST", self._root + path, headers=headers)
            broken = self._body(connection, source, show)
            if path != PATHS[0]:
                # The answer comes when the image has been converted
                connection.sock.settimeout(max(TIMEOUT, patience))
            try:
                answer = connection.getresponse()
                text = answer.read(65536).decode(errors="replace").strip()
            except (OSError, http.client.HTTPException) as exc:
                if isinstance(exc, TimeoutError) and path != PATHS[0]:
                    raise KubeError(
                        "The upload proxy %s received the image but didn't answer within %d seconds (wait_timeout)."
                        % (self.url, max(TIMEOUT, patience))
                    ) from exc
                raise Broken("the connection was interrupted: %s" % (broken or exc)) from exc
        except OSError as exc:
            raise self._unreachable(exc) from exc
        finally:
            connection.close()
        if answer.status in AGAIN:
            raise Broken("the upload proxy answered %d: %s" % (answer.status, text))
        if answer.status != 200:
            raise KubeError("The upload proxy rejected the image (%d): %s" % (answer.status, text))

    def _path(self, token):
        """Return the path that answers before an image is converted, if this proxy has it."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._context)
        try:
            connection.request("HEAD", self._root + PATHS[0], headers={"Authorization": "Bearer %s" % token})
            return PATHS[0] if connection.getresponse().status == 200 else PATHS[1]
        except http.client.HTTPException as exc:
            raise Broken("the connection was interrupted: %s" % exc) from exc
        finally:
            connection.close()

    def _body(self, connection, source, show):
        """Send the image; return why not all of it. A server that refuses it may have answered already."""
        try:
            for piece in source.pieces(show):
                connection.send(piece)
        except OSError as exc:
            return exc
        return None

    def _unreachable(self, exc):
        if isinstance(exc, ssl.SSLCertVerificationError):
            remedy = "Set upload_proxy_ca to its authority, or upload_proxy_insecure=true."
            return KubeError("The certificate of the upload proxy %s isn't trusted: %s. %s" % (self.url, exc, remedy))
        if isinstance(exc, socket.gaierror):
            return KubeError("The upload proxy %s has no address: %s. Check upload_proxy_url." % (self.url, exc))
        return Broken("the upload proxy %s can't be reached: %s" % (self.url, exc))
