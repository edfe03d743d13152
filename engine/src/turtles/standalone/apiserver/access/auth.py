# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a request comes from: client certificates and bearer tokens."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from turtles.standalone.apiserver.wire.errors import unauthorized
from turtles.standalone.stamp import stamp


class Tokens(Protocol):
    """Recognises tokens of service accounts."""

    def identify(self, token: str) -> "tuple[User, tuple[str, ...]] | None":
        """Return whom a token is for, and for which audiences."""


@dataclass(frozen=True)
class User:
    """An authenticated (or anonymous) user."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())


#: What a websocket's subprotocol begins with that is a bearer token.
BEARER = "base64url.bearer.authorization.k8s.io."
ISSUER = "https://kubernetes.default.svc"
#: Audiences that the server itself answers to.
AUDIENCES = (ISSUER, "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
#: The sender of an unknown token, who may do nothing.
UNKNOWN = User("", ())
#: The server's own writes (bootstrap, garbage collection).
INTERNAL = User("system:apiserver", ("system:masters",))


class Authenticator:
    """Reads the token file again whenever it changes."""

    def __init__(self, tokens: Path, accounts: Tokens | None = None) -> None:
        self._path, self._accounts = tokens, accounts
        self._stamp: tuple[int, ...] | None = None
        self._users: dict[str, User] = {}

    def authenticate(self, request: web.BaseRequest) -> User:
        """Return a request's user: of its bearer token, its client certificate, or the anonymous one.

        :raises StatusError: 401 for a token that isn't known.
        """
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, token = header.partition(" ")
            # Another scheme, or no token, is no attempt to authenticate: the next way of authentication counts.
            if scheme.lower() == "bearer" and token.strip():
                return self._token_or_refuse(token.strip())
        # Browsers can't set headers on a websocket; they send the token as a subprotocol.
        for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if is_websocket(request) else ():
            if protocol.strip().startswith(BEARER):
                return self._token_or_refuse(_from_base64url(protocol.strip().rpartition(".")[2]))
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        return _certificate_user(certificate) if certificate else ANONYMOUS

    def _token_or_refuse(self, token: str) -> User:
        user = self.token_user(token)
        if user is None:
            raise unauthorized()
        return user

    def token_user(self, token: str) -> User | None:
        """Return the user of a bearer token for this server, None for an unknown token."""
        identity = self.identify(token, AUDIENCES)
        return identity[0] if identity else None

    def identify(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        """Return a bearer token's user and for which of the audiences it is good, None for an unknown token."""
        self._load()
        user = self._users.get(hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest())
        # Tokens of the file say nothing of audiences: they are for the server.
        known: Sequence[str] = AUDIENCES
        if user is None and self._accounts is not None and token.count(".") == 2:
            identity = self._accounts.identify(token)
            if identity is not None:
                user, known = identity
        good = [one for one in audiences if one in known]
        return (user, good) if user is not None and good else None

    def _load(self) -> None:
        try:
            now = stamp(self._path)
        except OSError:
            self._users, self._stamp = {}, None
            return
        if now is not None and now == self._stamp:
            return
        users = {}
        for row in csv.reader(self._path.read_text().splitlines()):
            if len(row) == 3 and not row[0].startswith("#"):
                users[row[0]] = User(row[1], (*row[2].split(), "system:authenticated"))
        self._users, self._stamp = users, now


def is_websocket(request: web.BaseRequest) -> bool:
    """Say whether the client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _from_base64url(text: str) -> str:
    import base64
    import binascii

    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise unauthorized() from None


def _certificate_user(certificate: dict[str, Any]) -> User:
    name, groups = "", []
    for part in certificate.get("subject", ()):
        for attribute, value in part:
            if attribute == "commonName":
                name = value
            elif attribute == "organizationName":
                groups.append(value)
    if not name:
        raise unauthorized()
    return User(name, (*groups, "system:authenticated"))


def user_info(user: User) -> dict[str, Any]:
    """Return a user as authentication.k8s.io/v1 UserInfo."""
    info: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {name: list(values) for name, values in user.extra}
    return info
