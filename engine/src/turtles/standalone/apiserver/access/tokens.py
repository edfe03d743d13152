# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of service accounts: issued for a time, an audience and an object, and recognised again.

Source: the Kubernetes documentation "Managing Service Accounts", "Bound service account tokens" (KEP-1205), "Service
account issuer discovery" (KEP-1393); RFC 7519 (JWT), RFC 7517 (JWK), RFC 7638.
"""

import base64
import hashlib
import time
import uuid
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from turtles.api.times import rfc3339
from turtles.standalone.apiserver.access.auth import AUDIENCES, ISSUER, User
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Object, bad_request, conflict, invalid, invalid_value, not_found

LEGACY_ISSUER = "kubernetes/serviceaccount"
MIN_SECONDS, DEFAULT_SECONDS, MAX_SECONDS = 600, 3600, 2**32
#: A Pod's token is good for this long after the Pod's end, so that it can shut down in order.
GRACE_SECONDS = 60
_REMEMBERED = 1000
_KINDS = {"Pod": ("/pods", "v1"), "Secret": ("/secrets", "v1"), "Node": ("/nodes", "v1")}


class Identity(NamedTuple):
    """Whom a token is for, and for which audiences."""

    user: User
    audiences: tuple[str, ...]


class Tokens:
    """Issues and recognises tokens with the key of an installation."""

    def __init__(self, store: Store, key: Path) -> None:
        self._store = store
        self._key: Any = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(self._key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"{key}: tokens are signed with an ECDSA or RSA key")
        public = self._key.public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._id = _base64url(hashlib.sha256(der).digest())
        self._public = public
        self._algorithm = "ES256" if isinstance(self._key, ec.EllipticCurvePrivateKey) else "RS256"
        #: Claims of tokens whose signature was found right, by the token's hash.
        self._verified: OrderedDict[bytes, Object] = OrderedDict()

    # -- issuing

    def _sign(self, claims: Object) -> str:
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers={"kid": self._id, "typ": None})

    def request(self, namespace: str, name: str, body: Any) -> Object:
        """Return an authentication.k8s.io/v1 TokenRequest with its token.

        :raises StatusError: 400, 404, 409 or 422 for one that can't be.
        """
        account = self._account(namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        if not isinstance(body, dict) or body.get("kind", "TokenRequest") != "TokenRequest":
            raise bad_request("the request's body must be a TokenRequest")
        meta, spec = body.get("metadata") or {}, body.get("spec") or {}
        if not isinstance(spec, dict) or not isinstance(meta, dict):
            raise bad_request("TokenRequest.spec and metadata must be objects")
        audiences, seconds = spec.get("audiences") or [], spec.get("expirationSeconds")
        reference = spec.get("boundObjectRef")
        if not isinstance(audiences, list) or any(not isinstance(one, str) for one in audiences):
            raise bad_request("TokenRequest.spec.audiences must be a list of texts")
        seconds = DEFAULT_SECONDS if seconds is None else seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise bad_request("TokenRequest.spec.expirationSeconds must be an integer")
        _check_seconds(seconds)
        if reference is not None and not isinstance(reference, dict):
            raise bad_request("TokenRequest.spec.boundObjectRef must be an object")
        now = int(time.time())
        claims: Object = {
            "aud": audiences or [ISSUER],
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": name, "uid": account.metadata.uid},
                **(self._bound(namespace, name, reference) if reference else {}),
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        spec = {"audiences": audiences or [ISSUER], "expirationSeconds": seconds, "boundObjectRef": reference}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {**meta, "name": name, "namespace": namespace, "creationTimestamp": _stamp(now)},
            "spec": spec,
            "status": {"token": self._sign(claims), "expirationTimestamp": _stamp(now + seconds)},
        }

    def _bound(self, namespace: str, account: str, reference: Object) -> Object:
        name, version = str(reference.get("name") or ""), reference.get("apiVersion", "v1")
        kind = str(reference.get("kind"))
        if kind not in _KINDS or version != "v1":
            group, _, number = str(version).rpartition("/")
            raise bad_request(f"cannot bind token to object of type {group}/{number}, Kind={kind}")
        resource = _KINDS[kind][0]
        entry = self._store.get(Key(resource, "" if kind == "Node" else namespace, name))
        plural = resource[1:]
        if entry is None:
            raise not_found("", plural, name)
        wanted = reference.get("uid")
        if wanted and wanted != entry.metadata.uid:
            why = (
                f"the UID in the bound object reference ({wanted}) does not match the UID in record. The object might "
                "have been deleted and then recreated"
            )
            raise conflict("", plural, name, why)
        bound: Object = {kind.lower(): {"name": name, "uid": entry.metadata.uid}}
        if kind == "Pod":
            spec = entry.object().get("spec") or {}
            if spec.get("serviceAccountName") != account:
                text = (
                    f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount '
                    "name."
                )
                raise bad_request(text)
            node = spec.get("nodeName")
            if node:
                known = self._store.get(Key("/nodes", "", node))
                bound["node"] = {"name": node, **({"uid": known.metadata.uid} if known else {})}
        return bound

    def legacy(self, namespace: str, account: str, uid: str, secret: str) -> str:
        """Return a token without an end, for a Secret of type kubernetes.io/service-account-token.

        :param uid: the account's.
        :param secret: the Secret's name: the token is good for as long as it is there.
        """
        prefix = "kubernetes.io/serviceaccount"
        return self._sign(
            {
                "iss": LEGACY_ISSUER,
                f"{prefix}/namespace": namespace,
                f"{prefix}/secret.name": secret,
                f"{prefix}/service-account.name": account,
                f"{prefix}/service-account.uid": uid,
                "sub": f"system:serviceaccount:{namespace}:{account}",
            }
        )

    # -- recognising

    def identify(self, token: str) -> Identity | None:
        """Return whom a token is for; None when it isn't ours, has ended, or what it is bound to is gone."""
        claims = self._claims(token)
        if claims is None:
            return None
        now = time.time()
        try:
            if claims.get("iss") == LEGACY_ISSUER:
                return self._identify_legacy(claims, token)
            if not claims["nbf"] <= now + 1 or now >= claims["exp"]:
                return None
            return self._identify_bound(claims)
        except (KeyError, TypeError, AttributeError):
            return None

    def _claims(self, token: str) -> Object | None:
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        verified = self._verified.get(digest)
        if verified is not None:
            self._verified.move_to_end(digest)
            return verified
        options: Any = {
            "verify_aud": False,
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_iss": False,
        }
        try:
            if jwt.get_unverified_header(token).get("kid") not in (None, self._id):
                return None
            claims: Object = jwt.decode(token, self._public, algorithms=[self._algorithm], options=options)
        except (jwt.PyJWTError, ValueError):
            return None
        if claims.get("iss") not in (ISSUER, LEGACY_ISSUER):
            return None
        self._verified[digest] = claims
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return claims

    def _account(self, namespace: str, name: str) -> Entry | None:
        return self._store.get(Key("/serviceaccounts", namespace, name))

    def _identify_bound(self, claims: Object) -> Identity | None:
        private = claims["kubernetes.io"]
        namespace, named = private["namespace"], private["serviceaccount"]
        name = named["name"]
        account = self._account(namespace, name)
        if account is None or account.metadata.uid != named["uid"] or _ended(account, 0):
            return None
        if claims["sub"] != f"system:serviceaccount:{namespace}:{name}":
            return None
        extra: list[tuple[str, tuple[str, ...]]] = []
        if claims.get("jti"):
            extra.append(("authentication.kubernetes.io/credential-id", (f"JTI={claims['jti']}",)))
        for kind, resource in (("pod", "/pods"), ("secret", "/secrets"), ("node", "/nodes")):
            bound = private.get(kind)
            if bound is None:
                continue
            if kind != "node":
                entry = self._store.get(Key(resource, namespace, bound["name"]))
                if entry is None or entry.metadata.uid != bound["uid"] or _ended(entry, GRACE_SECONDS):
                    return None
            elif "pod" not in private and not self._is_there(resource, bound):
                # Beside a Pod the node is informative only: the Pod's own end decides.
                return None
            if kind in ("pod", "node"):
                extra.append((f"authentication.kubernetes.io/{kind}-name", (bound["name"],)))
                if bound.get("uid"):
                    extra.append((f"authentication.kubernetes.io/{kind}-uid", (bound["uid"],)))
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        return Identity(_user(namespace, name, account.metadata.uid, extra), tuple(audiences))

    def _is_there(self, resource: str, bound: Object) -> bool:
        entry = self._store.get(Key(resource, "", bound["name"]))
        return entry is not None and entry.metadata.uid == bound["uid"]

    def _identify_legacy(self, claims: Object, token: str) -> Identity | None:
        prefix = "kubernetes.io/serviceaccount"
        namespace, name = claims[f"{prefix}/namespace"], claims[f"{prefix}/service-account.name"]
        account = self._account(namespace, name)
        if account is None or account.metadata.uid != claims[f"{prefix}/service-account.uid"]:
            return None
        secret = self._store.get(Key("/secrets", namespace, claims[f"{prefix}/secret.name"]))
        if secret is None or _ended(secret, 0):
            return None
        kept = (secret.object().get("data") or {}).get("token") or ""
        if base64.b64decode(kept) != token.encode():
            return None
        return Identity(_user(namespace, name, account.metadata.uid, []), AUDIENCES)

    # -- discovery

    def configuration(self, base: str) -> Object:
        """Return /.well-known/openid-configuration.

        :param base: the server's URL.
        """
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{base}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self._algorithm],
        }

    def jwks(self) -> Object:
        """Return /openid/v1/jwks: the public key."""
        algorithm: Any = jwt.get_algorithm_by_name(self._algorithm)
        key = {**algorithm.to_jwk(self._public, as_dict=True), "use": "sig", "kid": self._id, "alg": self._algorithm}
        key.pop("key_ops", None)
        return {"keys": [key]}


def _check_seconds(seconds: int) -> None:
    text = ""
    if seconds < MIN_SECONDS:
        text = "may not specify a duration less than 10 minutes"
    elif seconds > MAX_SECONDS:
        text = "may not specify a duration larger than 2^32 seconds"
    if text:
        cause = invalid_value("spec.expirationSeconds", seconds, text)
        raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])


def _user(namespace: str, name: str, uid: str, extra: list[tuple[str, tuple[str, ...]]]) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, tuple(extra))


def _ended(entry: Entry, grace: int) -> bool:
    when = entry.metadata.deletion_timestamp
    return bool(when) and time.time() > datetime.fromisoformat(str(when)).timestamp() + grace


def _stamp(seconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
