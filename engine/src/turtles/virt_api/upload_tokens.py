# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens for uploads: who has one may upload into one claim, for five minutes (CDI: UploadTokenRequest).

They are JSON Web Tokens (RFC 7519). All replicas of virt-api sign with the same key, which is in a Secret of theirs.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import jwt

from turtles.api import uploads
from turtles.api.objects import Object, annotations_of
from turtles.api.populators import uploaded_into
from turtles.kube.client import AlreadyExists, Client, NotFound
from turtles.kube.resources import PVC, SECRET
from turtles.virt_api.names import UPLOAD_KEY_SECRET
from turtles.virt_api.status import Failure

#: Seconds for which a token counts (CDI).
LIFETIME = 300
_ALGORITHM, _ISSUER, _KEY = "HS256", "virt-api", "key"
_KEY_BYTES = 32
_NEEDED = ("exp", "iat", "iss", "namespace", "name", "uid")


@dataclass(frozen=True)
class Claim:
    """The claim that a token is for."""

    namespace: str
    name: str
    uid: str


class Tokens:
    """Issues tokens, and verifies them."""

    def __init__(self, client: Client, namespace: str, clock: Callable[[], float] = time.time) -> None:
        """Read nothing so far.

        :param namespace: the engine's.
        """
        self._client, self._namespace, self._clock = client, namespace, clock
        self._key: bytes | None = None

    def request(self, namespace: str, body: Object) -> Object:
        """Return an UploadTokenRequest with its token.

        :param body: as the user sent it.
        :raises Failure: it names no claim that an upload fills.
        """
        spec = body.get("spec")
        name = spec.get("pvcName") if isinstance(spec, dict) else None
        if not isinstance(name, str) or not name:
            raise Failure(422, f"{uploads.KIND}: spec.pvcName: name the PersistentVolumeClaim to upload into")
        try:
            claim = self._client.get(PVC, namespace, name)
        except NotFound:
            raise Failure(404, f'persistentvolumeclaims "{name}" not found') from None
        is_target = uploads.TARGET in annotations_of(claim)
        if not is_target and uploaded_into(claim) is None:
            message = f"PersistentVolumeClaim {namespace}/{name} is not filled by an upload: it needs the annotation "
            message += f"{uploads.TARGET}, a VolumeUploadSource as its dataSourceRef, or a DataVolume with the source "
            raise Failure(422, f"{message}upload")
        now = int(self._clock())
        claims = {"iss": _ISSUER, "iat": now, "nbf": now, "exp": now + LIFETIME}
        claims |= {"namespace": namespace, "name": name, "uid": claim["metadata"]["uid"]}
        metadata = body.get("metadata")
        return {
            "kind": uploads.KIND,
            "apiVersion": f"{uploads.GROUP}/{uploads.VERSION}",
            "metadata": {**(metadata if isinstance(metadata, dict) else {}), "namespace": namespace},
            "spec": {"pvcName": name},
            "status": {"token": jwt.encode(claims, self._signing_key(), algorithm=_ALGORITHM)},
        }

    def verify(self, token: str) -> Claim:
        """Return the claim that a token is for.

        :raises Failure: it isn't one of this virt-api's, or not any more.
        """
        try:
            claims = jwt.decode(
                token,
                self._signing_key(),
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": list(_NEEDED), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            # By the clock that it was issued by
            expired = float(claims["exp"]) < self._clock()
            claim = Claim(*(str(claims[key]) for key in ("namespace", "name", "uid")))
        except (jwt.InvalidTokenError, TypeError, ValueError) as error:
            raise Failure(401, "the token is not valid; request one with an UploadTokenRequest") from error
        if expired:
            raise Failure(401, "the token has expired; request a new one with an UploadTokenRequest")
        return claim

    def _signing_key(self) -> bytes:
        while self._key is None:
            try:
                self._key = _read(self._client.get(SECRET, self._namespace, UPLOAD_KEY_SECRET))
            except NotFound:
                self._create()
        return self._key

    def _create(self) -> None:
        data = {_KEY: base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}
        metadata = {"name": UPLOAD_KEY_SECRET, "namespace": self._namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        try:
            self._client.create(SECRET, secret)
        except AlreadyExists:
            # Another replica was faster: its key counts
            return


def _read(secret: Object) -> bytes:
    try:
        key = base64.b64decode((secret.get("data") or {})[_KEY], validate=True)
    except (KeyError, TypeError, binascii.Error):
        key = b""
    if len(key) < _KEY_BYTES:
        message = f"Secret {UPLOAD_KEY_SECRET} has no key of {_KEY_BYTES} bytes; delete it to have a new one created"
        raise Failure(503, message)
    return key
