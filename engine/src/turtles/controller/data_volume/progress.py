# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks an importer how much is done, as CDI does: by its metric. An importer is not to be trusted: it reads images."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import ssl

from turtles.api.objects import Object, get
from turtles.controller.pod.config import METRICS_PORT

_SECONDS = 2.0
_LONGEST = 256 << 10
_METRIC = re.compile(rb"^kubevirt_cdi_import_progress_total\{[^}\n]{0,200}\} ([0-9]{1,3}(?:\.[0-9]{1,10})?)$", re.M)


def ask(pod: Object) -> float | None:
    """Return the per cent that an importer's Pod has done; None if it doesn't say."""
    try:
        address = ipaddress.ip_address(get(pod, "status", "podIP") or "")
    except ValueError:
        return None
    # It has a certificate of its own making, which proves nothing, and says nothing secret
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(str(address), METRICS_PORT, timeout=_SECONDS, context=context)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/metrics")
            match = _METRIC.search(connection.getresponse().read(_LONGEST))
        except (OSError, http.client.HTTPException):
            return None
    return float(match.group(1)) if match else None
