# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of service accounts in projected volumes, renewed before they expire.

Source: the Kubernetes documentation "Configure Service Accounts for Pods", ServiceAccount token volume projection: the
kubelet requests another after 80 % of the lifetime, or 24 hours.
"""

import logging
import os
import time
from pathlib import Path

import jwt

from turtles.api.objects import Object
from turtles.kube.client import Client
from turtles.kube.errors import ApiError
from turtles.kube.resources import SERVICEACCOUNT

log = logging.getLogger(__name__)

KIND = "serviceAccountToken"
_SHARE, _DAY, _RETRY = 0.8, 86400.0, 30.0


def request(client: Client, pod: Object, source: Object) -> bytes:
    """Return a token that is bound to a Pod.

    :param source: the volume's ``serviceAccountToken``.
    :raises NotFound: the Pod's service account isn't there.
    """
    metadata, name = pod["metadata"], pod["spec"].get("serviceAccountName") or "default"
    spec: Object = {
        "audiences": [source["audience"]] if source.get("audience") else [],
        "expirationSeconds": source.get("expirationSeconds") or 3600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
    }
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = client.create(SERVICEACCOUNT, body, namespace=metadata["namespace"], name=name, subresource="token")
    return str(answer["status"]["token"]).encode()


def seconds_left(token: bytes, now: float) -> float:
    """Return after how many seconds to replace a token; 0 if it can't be read."""
    try:
        # It is the node's own file: what is asked is when, not whether.
        claims = jwt.decode(token, options={"verify_signature": False})
        issued, ends = float(claims["iat"]), float(claims["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return 0.0
    return issued + min(_DAY, _SHARE * (ends - issued)) - now


def renew(client: Client, pod: Object, folder: Path) -> float | None:
    """Replace the tokens of a Pod's volumes that are due.

    :param folder: where the Pod's volumes are, by name; those that don't exist yet are skipped.
    :returns: seconds after which to look again, None for a Pod without tokens.
    """
    again: list[float] = []
    for volume in pod["spec"].get("volumes") or []:
        for part in (volume.get("projected") or {}).get("sources") or []:
            path = folder / volume["name"] / part[KIND]["path"] if part.get(KIND) else None
            if path is not None and path.is_file():
                again.append(_renewed(client, pod, part[KIND], path))
    return min(again, default=None)


def _renewed(client: Client, pod: Object, source: Object, path: Path) -> float:
    token = path.read_bytes()
    if seconds_left(token, time.time()) <= 0:
        try:
            token = request(client, pod, source)
        except ApiError as error:
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            log.warning("a token can't be renewed", extra={"pod": name, "error": str(error)})
            return _RETRY
        _replace(path, token)
    return max(1.0, seconds_left(token, time.time()))


def _replace(path: Path, data: bytes) -> None:
    """Replace a file's content atomically, keeping owner and mode."""
    status, temporary = path.stat(), path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
        stream.write(data)
        os.fchown(stream.fileno(), status.st_uid, status.st_gid)
        os.fchmod(stream.fileno(), status.st_mode & 0o777)
    temporary.rename(path)
