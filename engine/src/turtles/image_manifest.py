# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests of container images, as far as needed to know an image's size. Pure, no I/O.

Formats: OCI image specification ("Image Manifest", "Image Index"), Docker "Image Manifest Version 2, Schema 2". A
manifest is untrusted input: what doesn't conform to these is refused.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

#: What the OCI distribution specification asks of registries at least, and what skopeo takes at most.
MAX_MANIFEST = 4 << 20
#: Container engines stop at 127.
MAX_LAYERS = 200

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SIZE_LIMIT = 1 << 62


class ManifestError(ValueError):
    """The manifest is not acceptable; the message says why."""


@dataclass(frozen=True)
class Blob:
    """A layer or a configuration: its digest, and its size in bytes as the manifest says."""

    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """An image for one platform."""

    config: Blob
    layers: tuple[Blob, ...]

    @property
    def blobs(self) -> frozenset[Blob]:
        """What has to be downloaded, each once."""
        return frozenset((self.config, *self.layers))

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True)
class Index:
    """The same image for several platforms: (operating system, architecture, variant, digest of the manifest)."""

    entries: tuple[tuple[str, str, str, str], ...]

    def choose(self, architecture: str) -> str:
        """Return the digest of the manifest for Linux on an architecture (in Go's words).

        :raises ManifestError: there is none.
        """
        fitting = [entry for entry in self.entries if entry[:2] == ("linux", architecture)]
        # As container engines do: v8 is what arm64 means; an entry that names no platform is for all.
        fitting.sort(key=lambda entry: entry[2] not in ("", "v8"))
        chosen = next(iter([*fitting, *(entry for entry in self.entries if entry[:2] == ("", ""))]), None)
        if chosen is None:
            offered = ", ".join(sorted({f"{entry[0]}/{entry[1]}" for entry in self.entries})) or "none"
            raise ManifestError(f"the image is not made for linux/{architecture}; its platforms are: {offered}")
        return chosen[3]


def digest_of(raw: bytes) -> str:
    """Return the digest by which a manifest is known."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def decoded(raw: bytes, what: str) -> Any:
    """Return what the JSON of an image's manifest or configuration says.

    :param what: it is, for the message.
    :raises ManifestError: it is too long, or isn't JSON.
    """
    if len(raw) > MAX_MANIFEST:
        raise ManifestError(f"the image's {what} has {len(raw)} bytes; at most {MAX_MANIFEST} are accepted")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the image's {what} is not JSON: {error}") from error


def parse(raw: bytes) -> Manifest | Index:
    """Return what a manifest describes.

    :raises ManifestError: it isn't acceptable.
    """
    data = decoded(raw, "manifest")
    if not isinstance(data, dict):
        raise ManifestError("the image's manifest is not a JSON object")
    if isinstance(data.get("manifests"), list):
        return Index(tuple(_entry(item) for item in data["manifests"]))
    if not isinstance(data.get("layers"), list):
        kind = data.get("mediaType") or f"schemaVersion {data.get('schemaVersion')!r}"
        raise ManifestError(
            f"the image's manifest ({str(kind)[:100]}) has no layers; OCI images and Docker's of schema 2 are accepted"
        )
    if len(data["layers"]) > MAX_LAYERS:
        raise ManifestError(f"the image has {len(data['layers'])} layers; at most {MAX_LAYERS} are accepted")
    layers = tuple(_blob(f"layer {number}", item) for number, item in enumerate(data["layers"]))
    return Manifest(_blob("configuration", data.get("config")), layers)


def _object(what: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ManifestError(f"the image's manifest is not usable: its {what} is not an object")
    digest = item.get("digest")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ManifestError(f"the image's manifest is not usable: its {what} has no valid digest")
    return item


def _blob(what: str, item: Any) -> Blob:
    data = _object(what, item)
    size = data.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
        raise ManifestError(f"the image's manifest is not usable: its {what} has no valid size")
    if data.get("urls"):
        # Fetched by the node, from wherever the image says.
        raise ManifestError(f"the image's {what} is to be fetched from elsewhere (urls), which is not accepted")
    return Blob(data["digest"], size)


def _entry(item: Any) -> tuple[str, str, str, str]:
    data = _object("entry of the index", item)
    platform = data.get("platform")
    platform = platform if isinstance(platform, dict) else {}
    words = tuple(str(platform.get(key) or "") for key in ("os", "architecture", "variant"))
    return words[0], words[1], words[2], data["digest"]
