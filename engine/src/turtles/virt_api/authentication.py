# SPDX-License-Identifier: GPL-3.0-or-later
"""Authentication and authorization of requests.

The API server forwards requests for an aggregated API with a client certificate of its front proxy, and says in
headers for whom (Kubernetes documentation, "Configure the Aggregation Layer"). Which certificates and headers count
is in the ConfigMap kube-system/extension-apiserver-authentication.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from turtles.api.kind import SUBRESOURCES_GROUP
from turtles.kube.client import Client
from turtles.kube.resources import SUBJECTACCESSREVIEW
from turtles.pki import is_issued_by
from turtles.virt_api.names import AUTHENTICATION_CONFIGMAP as CONFIGMAP
from turtles.virt_api.names import AUTHENTICATION_NAMESPACE as NAMESPACE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class User:
    """The user that a request is made for."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class FrontProxy:
    """Which front proxies are trusted, and in which headers they name the user."""

    authorities: tuple[x509.Certificate, ...] = ()
    allowed_names: frozenset[str] = frozenset()
    user_headers: tuple[str, ...] = ("X-Remote-User",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    @classmethod
    def from_configmap(cls, configmap: Mapping[str, Any] | None) -> FrontProxy:
        """Read the ConfigMap. Without it, or without certificates in it, no front proxy is trusted."""
        data = (configmap or {}).get("data") or {}
        pem = str(data.get("requestheader-client-ca-file") or "")
        try:
            authorities = tuple(x509.load_pem_x509_certificates(pem.encode())) if pem.strip() else ()
        except ValueError:
            log.error("the front proxy's CA in ConfigMap %s/%s can't be read", NAMESPACE, CONFIGMAP)
            authorities = ()
        return cls(
            authorities=authorities,
            allowed_names=frozenset(_names(data, "requestheader-allowed-names", ())),
            user_headers=_names(data, "requestheader-username-headers", cls.user_headers),
            uid_headers=_names(data, "requestheader-uid-headers", cls.uid_headers),
            group_headers=_names(data, "requestheader-group-headers", cls.group_headers),
            extra_prefixes=_names(data, "requestheader-extra-headers-prefix", cls.extra_prefixes),
        )

    @property
    def pem(self) -> str:
        """The trusted authorities, in PEM."""
        return "".join(authority.public_bytes(Encoding.PEM).decode() for authority in self.authorities)

    def trusts(self, der: bytes | None) -> bool:
        """Say whether a client certificate is that of a front proxy. The TLS layer has checked dates and key already.

        Which authorities the TLS layer knows only grows, so the issuer is checked here.
        """
        if not der:
            return False
        certificate = x509.load_der_x509_certificate(der)
        if not any(is_issued_by(certificate, authority) for authority in self.authorities):
            return False
        names = {str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
        return not self.allowed_names or bool(names & self.allowed_names)

    def user(self, headers: Iterable[tuple[str, str]]) -> User | None:
        """Return the user that headers name, None if they name none."""
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(name.lower(), []).append(value)
        name = next((values[header.lower()][0] for header in self.user_headers if header.lower() in values), "")
        if not name:
            return None
        uid = next((values[header.lower()][0] for header in self.uid_headers if header.lower() in values), "")
        groups = [group for header in self.group_headers for group in values.get(header.lower(), ())]
        extra: dict[str, list[str]] = {}
        for header, texts in values.items():
            for prefix in self.extra_prefixes:
                if header.startswith(prefix.lower()) and len(header) > len(prefix):
                    extra.setdefault(unquote(header[len(prefix) :]), []).extend(texts)
        return User(name, tuple(groups), uid, extra)


def peer_certificate(ssl_object: ssl.SSLObject | ssl.SSLSocket | None) -> bytes | None:
    """Return the client certificate of a connection in DER, None if there is none."""
    return ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None


def may(
    client: Client,
    user: User,
    verb: str,
    version: str,
    namespace: str,
    resource: str,
    name: str,
    sub: str,
    group: str = SUBRESOURCES_GROUP,
) -> bool:
    """Say whether a user may do `verb` with a subresource: asks the API server (SubjectAccessReview)."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            "resourceAttributes": {
                "group": group,
                "version": version,
                "namespace": namespace,
                "resource": resource,
                "subresource": sub,
                "name": name,
                "verb": verb,
            },
        },
    }
    answer = client.create(SUBJECTACCESSREVIEW, review)
    return bool((answer.get("status") or {}).get("allowed"))


def _names(data: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    try:
        values = json.loads(data.get(key) or "[]")
    except ValueError:
        log.error("%s in ConfigMap %s/%s is not JSON", key, NAMESPACE, CONFIGMAP)
        return default
    return tuple(value for value in values if isinstance(value, str)) or default
