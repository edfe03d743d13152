# SPDX-License-Identifier: GPL-3.0-or-later
"""Pull secrets: which of their credentials are for an image. Pure, no I/O.

Rules: Kubernetes documentation, "Images", "Interpretation of config.json".
"""

import base64
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

log = logging.getLogger(__name__)

#: Logins of one Pod that are tried for one image.
MAX_LOGINS = 20


@dataclass(frozen=True)
class Login:
    """A login for an image's registry, and the Secret that has it: uid, namespace, name."""

    uid: str
    namespace: str
    name: str
    auth: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def secret(self) -> tuple[str, str, str]:
        """Which Secret it is from."""
        return self.uid, self.namespace, self.name

    @property
    def content(self) -> bytes:
        """What two logins have in common that are the same."""
        return json.dumps([self.auth, self.identity_token]).encode()

    def auth_file(self, registry: str) -> dict[str, Any]:
        """Return a file of credentials (containers-auth.json(5)) that has this login only."""
        entry = {"auth": self.auth} if self.auth else {}
        if self.identity_token:
            entry["identitytoken"] = self.identity_token
        return {"auths": {registry: entry}}


def registry_of(reference: str) -> str:
    """Return the host (and port) of a registry reference; docker.io if it names none."""
    first, slash, _ = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return "docker.io"
    return "docker.io" if first == "index.docker.io" else first


def repository_of(reference: str) -> str:
    """Return a registry reference without tag and digest, in full."""
    folder, slash, last = reference.partition("@")[0].rpartition("/")
    name = folder + slash + last.partition(":")[0]
    registry = registry_of(name)
    first, _, path = name.partition("/")
    if registry == "docker.io":
        path = path if first in ("docker.io", "index.docker.io") else name
        path = path if "/" in path else f"library/{path}"
    return f"{registry}/{path}"


def docker_config(secret: dict[str, Any]) -> dict[str, Any]:
    """Return the logins of a pull secret (kubernetes.io/dockerconfigjson or dockercfg) by registry, {} if it has none.

    What users write may have any form.
    """
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            config = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths")
        elif ".dockercfg" in data:
            config = json.loads(base64.b64decode(data[".dockercfg"]))
        else:
            return {}
    except (ValueError, TypeError, AttributeError, RecursionError):
        log.warning("pull secret is not valid JSON", extra={"secret": (secret.get("metadata") or {}).get("name")})
        return {}
    return config if isinstance(config, dict) else {}


def logins_for(reference: str, secrets: Iterable[dict[str, Any]]) -> list[Login]:
    """Return the logins that Secrets have for an image, those for a longer part of its name first."""
    repository = repository_of(reference)
    matches: list[tuple[int, Login]] = []
    for secret in secrets:
        metadata = secret.get("metadata") or {}
        for key, entry in docker_config(secret).items():
            match = _match(str(key), repository)
            auth, token = _auth(entry)
            if match and (auth or token):
                login = Login(metadata.get("uid", ""), metadata.get("namespace", ""), metadata["name"], auth, token)
                matches.append((match, login))
    matches.sort(key=lambda item: -item[0])
    return list(dict.fromkeys(login for _, login in matches))[:MAX_LOGINS]


def _auth(entry: Any) -> tuple[str, str]:
    """Return an entry's credentials as (base64 of user:password, identity token)."""
    if not isinstance(entry, dict):
        return "", ""
    auth, token = entry.get("auth") or "", entry.get("identitytoken") or ""
    if not auth and entry.get("username"):
        auth = base64.b64encode(f"{entry['username']}:{entry.get('password') or ''}".encode()).decode()
    return str(auth), str(token)


def _match(key: str, repository: str) -> int:
    """Return how much of a repository's name a key of a docker configuration names; 0: it is for another one."""
    key = re.sub(r"^https?://", "", key).rstrip("/")
    key = re.sub(r"/v[12]$", "", key)
    host, _, path = key.partition("/")
    host = "docker.io" if host == "index.docker.io" else host
    own_host, _, own_path = repository.partition("/")
    patterns, labels = host.split("."), own_host.split(".")
    if len(patterns) != len(labels) or not all(map(fnmatchcase, labels, patterns)):
        return 0
    if path and own_path != path and not own_path.startswith(f"{path}/"):
        return 0
    return 1 + len(path) + len(host.replace("*", ""))
