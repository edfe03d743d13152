# SPDX-License-Identifier: GPL-3.0-or-later
"""How virt-api asks virt-handler for something about a guest. Pure.

virt-handler serves HTTPS on an address of its own. Where that is, and the certificate by which it is recognised, are in
an annotation of its node's object. It serves anyone who has a certificate for `CLIENT` of the authority that the
APIServices of the aggregated API name: virt-api.

    PUT /v1/namespaces/<namespace>/virtualmachineinstances/<name>/<operation>?uid=<uid>
    GET …/<stream>?uid=<uid>, with `Upgrade: plain.kubevirt.io`; `preserveSession=true` leaves another session alone;
        the stream `vsock` has `port=<number>` and `tls=<true|false>`

Options of an operation, and what it returns, are JSON. A failure is `{"message": …}`. After `101 Switching Protocols` a
stream's bytes are those of the guest's device, in both directions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from turtles.api.texts import from_json

#: Common name of the certificate with which virt-api identifies itself.
CLIENT = "kubevirt.io:virt-api"
#: The protocol that streams are upgraded to; also the WebSocket subprotocol that users' clients speak.
PROTOCOL = "plain.kubevirt.io"

CONSOLE, VNC, SCREEN, USB, VSOCK = "console", "vnc", "screen", "usbredir", "vsock"
#: Streams by what they connect to. SCREEN is the same device as VNC, for a look that disturbs nobody's session; USB is
#: a port that nobody uses.
STREAMS = (CONSOLE, VNC, SCREEN, USB, VSOCK)

#: Operations: what users may ask for about a guest, under the names of the subresources.
PAUSE, UNPAUSE, SOFT_REBOOT, RESET, FREEZE, UNFREEZE = (
    "pause",
    "unpause",
    "softreboot",
    "reset",
    "freeze",
    "unfreeze",
)
GUEST_INFO, USERS, FILESYSTEMS = "guestosinfo", "userlist", "filesystemlist"
#: Of encrypted guests: what vouches for the node's processor, what was launched, and what the guest is given then.
SEV_CERTIFICATES, SEV_MEASUREMENT, SEV_SECRET = "sevcertchain", "sevmeasurement", "sevsecret"


@dataclass(frozen=True)
class Endpoint:
    """Where a node's virt-handler listens. ``certificate`` is the one it shows, in PEM."""

    host: str
    port: int
    certificate: str

    def annotation(self) -> str:
        """Return the value of the node's annotation."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_annotation(cls, value: str) -> Endpoint:
        """Read the value of the node's annotation.

        :raises ValueError: it isn't one.
        """
        try:
            data = from_json(value)
            endpoint = cls(data["host"], data["port"], data["certificate"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"not an endpoint: {error!r}") from error
        if not isinstance(endpoint.port, int) or not all(
            isinstance(text, str) for text in (endpoint.host, endpoint.certificate)
        ):
            raise ValueError(f"not an endpoint: {value[:200]!r}")
        return endpoint


def path(vmi: Mapping[str, Any], name: str) -> str:
    """Return the path of an operation or stream of a VMI."""
    metadata = vmi["metadata"]
    return f"/v1/namespaces/{metadata['namespace']}/virtualmachineinstances/{metadata['name']}/{name}"


def split(path_: str) -> tuple[str, str, str] | None:
    """Return namespace, name, and operation or stream, from a path; None if it isn't such a path."""
    parts = path_.split("/")
    if len(parts) != 7 or parts[:3] != ["", "v1", "namespaces"] or parts[4] != "virtualmachineinstances":
        return None
    return parts[3], parts[5], parts[6]
