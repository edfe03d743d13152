# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What uploads and downloads of disks share: TLS, progress lines, interruptions."""

from __future__ import annotations

import ssl
import time

from ._errors import KubeError

CHUNK = 1 << 20
# Seconds to connect, and for an answer.
TIMEOUT = 60


class Broken(Exception):
    """A transfer was interrupted and can be tried again. The message says why."""


def tls_context(authorities, verify, server):
    """Return the TLS settings of a connection.

    :param authorities: certificates in PEM that the server's is verified with; None: the system's.
    :param verify: whether it is verified at all. :param server: what it is called in messages.
    :raises KubeError: the authorities can't be used.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif authorities:
        try:
            context.load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError) as exc:
            raise KubeError("The CA certificates of %s can't be used: %s." % (server, exc)) from exc
    return context


def read_authorities(option, path):
    """Return the certificates in the file that an option names; None if it isn't set.

    :raises KubeError: the file can't be read.
    """
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as exc:
        raise KubeError("%s: %s can't be read: %s." % (option, path, exc)) from exc


def show(module, line):
    """Show the user a line while the task runs, which only works in the controller's process."""
    progress = getattr(module, "progress", None)
    if progress:
        progress(line)


class Meter:
    """Shows how much has been transferred, at most once in a while.

    :param total: bytes; 0 if nobody knows. :param say: shows a line. :param every: seconds between two lines; 0 for
        none. :param done: what has become of the bytes.
    """

    def __init__(self, total, say, every, done="sent"):
        self._total, self._say, self._every, self._done = total, say, every, done
        self._last = self._began = time.monotonic()
        self._first = None

    def __call__(self, count):
        """Note that there are so many bytes."""
        now = time.monotonic()
        if self._first is None:
            # What was there before this began says nothing about how fast it is
            self._first = 0 if count <= CHUNK else count
        if not self._every or now - self._last < self._every:
            return
        self._last = now
        rate = (count - self._first) / (now - self._began) / (1 << 20)
        if self._total:
            part = "%.1f%% of %d MiB" % (100.0 * count / self._total, self._total >> 20)
        else:
            part = "%d MiB" % (count >> 20)
        self._say("%s %s, %.1f MiB/s" % (part, self._done, rate))
