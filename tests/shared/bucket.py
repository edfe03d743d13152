# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bucket whose objects only their owner gets."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from file_server import FileServer

USER, PASSWORD = "AKIAEXAMPLE", "wJalr/K7MDENG+bPxRfiCYEXAMPLEKEY"


def signature(path: str, headers: dict[str, str]) -> str:
    """The signature of a request (AWS, "Signature Version 4 for API requests")."""
    fields = dict(each.strip().split("=", 1) for each in headers["authorization"].split(" ", 1)[1].split(","))
    names = fields["SignedHeaders"].split(";")
    target, query = path.partition("?")[::2]
    canonical = [
        "GET",
        target,
        query,
        *(f"{name}:{headers[name]}" for name in names),
        "",
        ";".join(names),
        headers["x-amz-content-sha256"],
    ]
    scope = fields["Credential"].split("/", 1)[1]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest])
    key = f"AWS4{PASSWORD}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


class Bucket(FileServer):
    """A server whose files only their owner gets."""

    def _answer(self, request: Any) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        given = headers.get("authorization", "")
        if not given or not given.endswith(f"Signature={signature(request.path, headers)}"):
            request.send_error(403)
            return
        super()._answer(request)
