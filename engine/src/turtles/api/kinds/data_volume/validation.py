# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a DataVolume: CDI's rules, in its words (CDI, admission of DataVolumes)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from turtles.api import quantity
from turtles.api.constant import constant_spec
from turtles.api.data_sources import CLAIM, SNAPSHOT
from turtles.api.data_sources import KIND as DATA_SOURCE
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.data_volume.schema import SPEC
from turtles.api.language import INVALID, Cause
from turtles.api.rules import Causes, Spec, schema_causes

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce")
#: Length of the hexadecimal digits of a checksum, by its algorithm.
CHECKSUMS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
#: RFC 3986, with a host.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/?#@\s]*)@)?(?:\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]\s]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?#][^\s\x00-\x1f\x7f]*)?"
)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[^\r\n\0]*")
#: What the content is.
DISK, ARCHIVE = "kubevirt", "archive"
#: Who pulls the image of a registry, and the fields that are about the importer's pulling.
BY_NODE, BY_IMPORTER = "node", "pod"
_IMPORTERS = ("secretRef", "certConfigMap", "platform")
_SEVERAL_MODES = "PVC multiple accessModes"
#: Headers that the importer sets itself.
_OWN_HEADERS = ("host", "range", "if-range", "accept-encoding", "content-length", "transfer-encoding", "connection")


def validate(data_volume: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a DataVolume; the first cause, as CDI does, unless its shape is wrong."""
    if causes := schema_causes(data_volume, SPEC):
        return causes
    causes = list(_causes(data_volume["spec"]))
    if context.privileged:
        # A claim that is filled in the place of another one has its access modes
        causes = [cause for cause in causes if cause.message != _SEVERAL_MODES]
    return causes[:1]


#: Returns what is wrong with an updated DataVolume: its spec can't be changed.
validate_update = constant_spec("DataVolume", SPEC)


def _copy_causes(source: Spec) -> Causes:
    for kind, here in ((CLAIM, "spec.source.PVC"), (SNAPSHOT, "spec.source.Snapshot")):
        named = source.get(kind)
        if named is not None and (not named["namespace"] or not named["name"]):
            yield Cause(INVALID, f"{here} source {here.rpartition('.')[2]} is not valid", here)


def _reference_causes(reference: Spec) -> Causes:
    here, kind = "spec.sourceRef", reference["kind"]
    if not kind:
        yield Cause(INVALID, "Missing sourceRef kind", f"{here}.Kind")
    elif kind != DATA_SOURCE:
        message = f"Unsupported sourceRef kind {kind}, currently only {DATA_SOURCE} is supported"
        yield Cause(INVALID, message, f"{here}.Kind")
    elif not reference["name"]:
        yield Cause(INVALID, "Missing sourceRef name", f"{here}.Name")


def image_of(url: str) -> str:
    """Return the image that the URL of a registry means, as a Pod names it; empty if it means none."""
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in ("docker", "oci-archive") or not rest.strip("/"):
        return ""
    if scheme == "docker":
        return rest[2:] if rest.startswith("//") else ""
    return f"{scheme}:{rest[2:] if rest.startswith('//') else rest}"


def is_pulled_by_importer(registry: Spec, *, mounts_images: bool = True) -> bool:
    """Say whether the importer pulls an image of a registry, and not the node.

    :param mounts_images: nodes mount images.
    """
    if registry.get("pullMethod"):
        return bool(registry["pullMethod"] == BY_IMPORTER)
    # The importer has no files of its node
    has_scheme = str(registry["url"]).startswith("docker:")
    return any(registry.get(name) for name in _IMPORTERS) or (has_scheme and not mounts_images)


def _registry_causes(registry: Spec) -> Causes:
    here, url, method = "spec.source.Registry", registry["url"], registry.get("pullMethod")
    if not image_of(url):
        yield Cause(INVALID, f"Illegal registry source URL scheme {url}", f"{here}.URL")
    elif method and method not in (BY_IMPORTER, BY_NODE):
        message = f'ImportMethod {method} is neither {BY_IMPORTER}, {BY_NODE} or ""'
        yield Cause(INVALID, message, f"{here}.importMethod")
    elif method == BY_NODE and (ignored := [name for name in _IMPORTERS if registry.get(name)]):
        message = f"spec.source.registry.{ignored[0]} is the importer's, and nodes have settings of their own; "
        yield Cause(INVALID, f"{message}remove pullMethod {BY_NODE}", f"spec.source.registry.{ignored[0]}")
    elif is_pulled_by_importer(registry) and not url.startswith("docker:"):
        message = f"spec.source.registry.url {url!r} is a file of the node, which the importer doesn't see; "
        yield Cause(INVALID, f"{message}use pullMethod {BY_NODE}", "spec.source.registry.url")


def _causes(spec: Spec) -> Causes:
    claim, storage = spec.get("pvc"), spec.get("storage")
    if claim is None and storage is None:
        yield Cause(INVALID, "Missing Data volume PVC", "spec.PVC")
        return
    if claim is not None and storage is not None:
        message = "Duplicate storage definition, both target storage and target pvc defined"
        yield Cause(INVALID, message, "spec.PVC.Storage")
        return
    yield from _claim_causes(claim or storage or {}, "PVC" if storage is None else "Storage")
    source, reference = spec.get("source"), spec.get("sourceRef")
    if (source is None) == (reference is None):
        yield Cause(INVALID, "Data volume should have either Source or SourceRef", "spec.source")
        return
    if source is None:
        yield from _reference_causes(reference or {})
        return
    sources = [name for name, value in source.items() if value is not None]
    if len(sources) != 1:
        message = "Multiple Data volume sources" if sources else "Missing Data volume source"
        yield Cause(INVALID, message, "spec.source")
        return
    yield from _copy_causes(source)
    if source.get("http") is not None:
        yield from _http_causes(source["http"])
    if source.get("s3") is not None:
        yield from _url_causes(source["s3"]["url"], "spec.source.S3")
    if source.get("gcs") is not None:
        yield from _gcs_causes(source["gcs"]["url"])
    yield from _content_causes(spec, sources[0])
    if source.get("registry") is not None:
        yield from _registry_causes(source["registry"])


def gcs_address(url: str) -> str:
    """Return where a server has an object of Google Cloud Storage; empty if the URL names no object."""
    scheme, _, rest = url.partition("://")
    if scheme == "gs":
        return f"https://storage.googleapis.com/{rest}" if all(rest.partition("/")[::2]) else ""
    return url


def _gcs_causes(url: str) -> Causes:
    here = "spec.source.GCS"
    yield from _url_causes(url, here, ("gs", "http", "https"))
    if not gcs_address(url):
        yield Cause(INVALID, f"spec.source Invalid source URL: {url} names no object of a bucket", f"{here}.url")


def _content_causes(spec: Spec, source: str) -> Causes:
    content, here = spec.get("contentType") or DISK, "spec.contentType"
    if content not in (DISK, ARCHIVE):
        yield Cause(INVALID, f"ContentType not one of: {DISK}, {ARCHIVE}", here)
    elif content == ARCHIVE and source == "blank":
        yield Cause(INVALID, "SourceType cannot be blank and the contentType be archive", here)
    elif content == ARCHIVE and source == "registry":
        yield Cause(INVALID, f"ContentType must be {DISK} when Source is Registry", here)
    elif content == ARCHIVE and (spec.get("pvc") or spec.get("storage") or {}).get("volumeMode") == "Block":
        yield Cause(INVALID, "DataVolume with ContentType Archive cannot have block volumeMode", here)


def _claim_causes(claim: Spec, form: str) -> Causes:
    here = f"spec.{form}.resources.requests.size"
    size = ((claim.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        yield Cause(INVALID, f"{form} size is missing", here)
    elif quantity.parse(size) <= 0:
        yield Cause(INVALID, f"{form} size can't be equal or less than zero", here)
    here, modes = f"spec.{form}.accessModes", claim.get("accessModes") or ()
    if form == "PVC" and not modes:
        yield Cause(INVALID, "Required value: at least 1 access mode is required", here)
    if form == "PVC" and len(modes) > 1:
        yield Cause(INVALID, _SEVERAL_MODES, here)
    for mode in modes:
        if mode not in _ACCESS_MODES:
            words = ", ".join(f'"{word}"' for word in _ACCESS_MODES)
            yield Cause(INVALID, f'Unsupported value: "{mode}": supported values: {words}', here)


def _url_causes(url: str, here: str, schemes: Sequence[str] = ("http", "https")) -> Causes:
    parts = _URL.fullmatch(url)
    if not url:
        yield Cause(INVALID, "spec.source source URL is empty", f"{here}.url")
    elif parts is None or int(parts["port"] or 1) not in range(1, 2**16):
        yield Cause(INVALID, f"spec.source Invalid source URL: {url}", f"{here}.url")
    elif parts["scheme"].lower() not in schemes:
        yield Cause(INVALID, f"spec.source Invalid source URL scheme: {url}", f"{here}.url")
    elif parts["user"] is not None:
        message = "spec.source source URL has a user or a password, which anyone who may read it sees; use secretRef"
        yield Cause(INVALID, message, f"{here}.url")


def _http_causes(http: Spec) -> Causes:
    here = "spec.source.HTTP"
    yield from _url_causes(http["url"], here)
    if (checksum := http.get("checksum")) is not None:
        algorithm, _, digits = checksum.partition(":")
        if len(digits) != CHECKSUMS.get(algorithm) or not re.fullmatch("[0-9a-fA-F]+", digits):
            words = ", ".join(f"{name}:<{length} hexadecimal digits>" for name, length in CHECKSUMS.items())
            yield Cause(INVALID, f"{here}.checksum {checksum!r} must have one of the forms {words}", f"{here}.checksum")
    for index, header in enumerate(http.get("extraHeaders") or ()):
        name = header.partition(":")[0].lower()
        if not _HEADER.fullmatch(header):
            message = f"{here}.extraHeaders[{index}] must have the form 'Name: value'"
            yield Cause(INVALID, message, f"{here}.extraHeaders[{index}]")
        elif name in _OWN_HEADERS:
            message = f"{here}.extraHeaders[{index}]: the importer sets the header {name} itself"
            yield Cause(INVALID, message, f"{here}.extraHeaders[{index}]")
