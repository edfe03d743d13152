# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption at rest: which resources are stored encrypted, and with which keys.

The file is Kubernetes' own, an ``apiserver.config.k8s.io/v1 EncryptionConfiguration`` ("Encrypting Confidential Data
at Rest" of its documentation) with the providers ``aesgcm`` and ``identity``: the first key of the first provider
encrypts, every key decrypts. A value is stored as Kubernetes stores it, ``k8s:enc:aesgcm:v1:<key>:`` before nonce and
ciphertext, and bound to the object it belongs to, so that it can't be passed off as another's.
"""

import base64
import binascii
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = b"k8s:enc:aesgcm:v1:"
_NONCE = 12
FILE = "encryption.yaml"


class EncryptionError(Exception):
    """The configuration can't be used, or a stored value can't be decrypted with it."""


@dataclass(frozen=True)
class _Key:
    name: str
    cipher: AESGCM


@dataclass
class _Rule:
    """How the objects of some resources are stored. Without ``first`` they are stored as they are."""

    first: _Key | None = None
    keys: dict[str, _Key] = field(default_factory=dict)


class Encryption:
    """Encrypts and decrypts stored values. An empty one encrypts nothing."""

    def __init__(self, rules: dict[str, _Rule] | None = None, source: Path | None = None) -> None:
        self._rules = rules or {}
        self._source = source

    @classmethod
    def load(cls, path: Path) -> "Encryption":
        """Return what a file says.

        :raises EncryptionError: when it is missing, open to others, or says something else.
        """
        try:
            if path.stat().st_mode & 0o077:
                raise EncryptionError(f"{path} contains keys and other users may read it: chmod 600 {path}")
            document = yaml.safe_load(path.read_bytes())
        except FileNotFoundError:
            text = f"{path} with the keys of stored Secrets is missing: restore it, or run virt-standalone init"
            raise EncryptionError(f"{text} for a new one (existing Secrets are then lost)") from None
        except (OSError, yaml.YAMLError) as error:
            raise EncryptionError(f"{path} can't be read: {error}") from None
        try:
            return cls(_parse(document), path)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EncryptionError(f"{path} is not a usable EncryptionConfiguration: {error}") from None

    def encrypt(self, resource: str, namespace: str, name: str, raw: bytes) -> bytes:
        """Return what is stored for an object's JSON: AES-GCM with the first key of its resource, or the JSON itself.

        :param resource: ``group/plural``. Together with namespace and name it is authenticated: what is stored for one
            object can't be passed off as another's.
        """
        rule = self._rules.get(resource)
        if rule is None or rule.first is None:
            return raw
        nonce = secrets.token_bytes(_NONCE)
        sealed = rule.first.cipher.encrypt(nonce, raw, _bound(resource, namespace, name))
        return PREFIX + rule.first.name.encode() + b":" + nonce + sealed

    def decrypt(self, resource: str, namespace: str, name: str, stored: bytes) -> bytes:
        """Return an object's JSON; parameters are those of :meth:`encrypt`.

        :raises EncryptionError: no key fits, or the value was changed.
        """
        if not stored.startswith(PREFIX):
            return stored
        used, _, rest = stored[len(PREFIX) :].partition(b":")
        what = f"{resource.lstrip('/')} {namespace}/{name} in the database"
        rule = self._rules.get(resource)
        key = rule.keys.get(used.decode(errors="replace")) if rule is not None else None
        if key is None:
            text = f"{what} is encrypted with the key {used.decode(errors='replace')!r}"
            raise EncryptionError(f"{text}, which {self._source or 'the configuration'} doesn't have: add it again")
        try:
            return key.cipher.decrypt(rest[:_NONCE], rest[_NONCE:], _bound(resource, namespace, name))
        except (InvalidTag, ValueError):
            text = f"{what} can't be decrypted with the key {key.name!r} of {self._source}: it is another key of"
            raise EncryptionError(f"{text} that name, or the value was changed") from None

    def is_current(self, resource: str, stored: bytes) -> bool:
        """Say whether a value is stored as it would be stored now."""
        rule = self._rules.get(resource)
        if rule is None or rule.first is None:
            return not stored.startswith(PREFIX)
        return stored.startswith(PREFIX + rule.first.name.encode() + b":")


def _bound(resource: str, namespace: str, name: str) -> bytes:
    return f"{resource}/{namespace}/{name}".encode()


def _parse(document: Any) -> dict[str, _Rule]:
    if not isinstance(document, dict) or document.get("kind") != "EncryptionConfiguration":
        raise ValueError("kind must be EncryptionConfiguration")
    rules: dict[str, _Rule] = {}
    for entry in document["resources"]:
        rule = _Rule()
        for number, provider in enumerate(entry["providers"]):
            ((name, settings),) = provider.items()
            if name == "identity":
                continue
            if name != "aesgcm":
                raise ValueError(f"provider {name} is not supported, use aesgcm or identity")
            for one in settings["keys"]:
                key = _Key(one["name"], AESGCM(_secret(one)))
                if not key.name or ":" in key.name or key.name in rule.keys:
                    raise ValueError(f"key name {key.name!r} must be set, without a colon, and there once only")
                rule.keys[key.name] = key
                if number == 0 and rule.first is None:
                    rule.first = key
        for resource in entry["resources"]:
            plural, _, group = resource.partition(".")
            if "*" in resource:
                raise ValueError(f"resource {resource!r}: name resources one by one")
            rules.setdefault(f"{group}/{plural}", rule)
    return rules


def _secret(key: dict[str, Any]) -> bytes:
    try:
        secret = base64.b64decode(key["secret"], validate=True)
    except binascii.Error:
        raise ValueError(f"the secret of key {key['name']!r} is not base64") from None
    if len(secret) not in (16, 24, 32):
        raise ValueError(f"the secret of key {key['name']!r} has {len(secret)} bytes, it must have 32")
    return secret


def configuration(keys: list[dict[str, str]]) -> bytes:
    """Return the file for Secrets encrypted with the first of some keys (``name``, ``secret``)."""
    providers = [{"aesgcm": {"keys": keys}}, {"identity": {}}]
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def new_key(taken: tuple[str, ...] = ()) -> dict[str, str]:
    """Return a new key of 256 bits, under a name that isn't ``taken``."""
    number = 1
    while f"key{number}" in taken:
        number += 1
    return {"name": f"key{number}", "secret": base64.b64encode(os.urandom(32)).decode()}


def rotated(path: Path) -> tuple[bytes, str]:
    """Return the file with a new first key before those it has, and that key's name.

    :raises EncryptionError: when the file can't be used, or has no ``aesgcm`` provider.
    """
    Encryption.load(path)
    document = yaml.safe_load(path.read_bytes())
    rings = [
        provider["aesgcm"]["keys"]
        for entry in document["resources"]
        for provider in entry["providers"]
        if "aesgcm" in provider
    ]
    if not rings:
        raise EncryptionError(f"{path} has no aesgcm provider, so there is no key to rotate")
    key = new_key(tuple(one["name"] for ring in rings for one in ring))
    for ring in rings:
        ring.insert(0, key)
    return yaml.dump(document, Dumper=_Plain, sort_keys=False).encode(), key["name"]


class _Plain(yaml.SafeDumper):
    """Writes out what occurs twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Have no aliases."""
        return True
