# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true of every object: names, labels, times, owners."""

import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

from turtles.standalone.apiserver.errors import (
    Cause,
    Object,
    bad_request,
    field_forbidden,
    invalid_value,
    required,
    too_long,
)
from turtles.standalone.apiserver.kinds import Kind

_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_KEY = re.compile(r"^[-._a-zA-Z0-9]+\Z")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
QUALIFIED_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
KEY_MESSAGE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
MAX_ANNOTATIONS = 256 * 1024
#: Resources whose names are labels, or paths without a slash, instead of subdomains.
_LABEL_NAMES = {"/namespaces": (_LABEL, LABEL_MESSAGE), "/services": (_LABEL_1035, LABEL_1035_MESSAGE)}
_PATH_NAMES = ("rbac.authorization.k8s.io/",)


def now() -> str:
    """Return the time as metav1.Time writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generate_name(prefix: str) -> str:
    """Return a name for a generateName."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    return prefix[:58] + "".join(secrets.choice(alphabet) for _ in range(5))


def check_envelope(obj: Any, kind: Kind) -> None:
    """Raise 400 when a body isn't an object of the kind it was sent to; set what is missing of both."""
    if not isinstance(obj, dict):
        raise bad_request("the request's body must be an object")
    found, version = obj.get("kind"), obj.get("apiVersion")
    if found is not None and found != kind.kind:
        text = (
            f"{found} in version {version!r} cannot be handled as a {kind.kind}: converting ({version}.{found}) failed"
        )
        raise bad_request(text.replace("'", '"'))
    if version is not None and version != kind.api_version:
        text = f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        raise bad_request(text)
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    if obj.get("metadata") is None:
        obj["metadata"] = {}


def for_create(obj: Object, namespace: str) -> None:
    """Give a new object what the server gives: uid, creation time; take away what clients can't set."""
    metadata = obj["metadata"]
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generate_name(metadata["generateName"])
    for name in (
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "selfLink",
        "generation",
    ):
        metadata.pop(name, None)
    if namespace:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now()


def for_update(new: Object, old: Object) -> None:
    """Keep in an update what clients can't change."""
    metadata, before = new["metadata"], old["metadata"]
    for name in (
        "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields",
    ):  # fmt: skip
        if name in before:
            metadata[name] = before[name]
        else:
            metadata.pop(name, None)
    metadata.setdefault("uid", before["uid"])
    if "generateName" in before:
        metadata.setdefault("generateName", before["generateName"])
    if "namespace" in before:
        metadata.setdefault("namespace", before["namespace"])
    metadata.pop("selfLink", None)


def _name_causes(name: str, kind: Kind, path: str) -> list[Cause]:
    if kind.resource.startswith(_PATH_NAMES):
        bad = name in (".", "..") or "/" in name or "%" in name
        return [invalid_value(path, name, "may not contain '/' or '%'")] if bad else []
    pattern, message = _LABEL_NAMES.get(kind.resource, (_SUBDOMAIN, SUBDOMAIN_MESSAGE))
    limit = 63 if pattern is not _SUBDOMAIN else 253
    causes = []
    if len(name) > limit:
        causes.append(invalid_value(path, name, f"must be no more than {limit} characters"))
    if not pattern.match(name):
        causes.append(invalid_value(path, name, message))
    return causes


def label_causes(name: Any, path: str) -> list[Cause]:
    """Return what is wrong with the name of a part of an object, such as a container's: it must be a DNS label."""
    good = isinstance(name, str) and len(name) <= 63 and _LABEL.match(name)
    return [] if good else [invalid_value(path, name, LABEL_MESSAGE)]


def validate_keys(data: Any, path: str) -> list[Cause]:
    """Return what is wrong with the keys of a Secret's or ConfigMap's data: they become names of files."""
    return [
        invalid_value(f"{path}[{key}]", key, KEY_MESSAGE)
        for key in (data if isinstance(data, dict) else ())
        if len(key) > 253 or not _KEY.match(key) or key == "." or key.startswith("..")
    ]


def _qualified_causes(path: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if key.count("/") > 1:
        return [invalid_value(path, key, "a qualified name must consist of an optional prefix and a name part")]
    causes = []
    if slash and not prefix:
        causes.append(invalid_value(path, key, "prefix part must be non-empty"))
    elif slash and not _SUBDOMAIN.match(prefix):
        causes.append(invalid_value(path, key, f"prefix part {SUBDOMAIN_MESSAGE}"))
    if not name:
        causes.append(invalid_value(path, key, "name part must be non-empty"))
    elif len(name) > 63:
        causes.append(invalid_value(path, key, "name part must be no more than 63 characters"))
    if not _QUALIFIED.match(name):
        causes.append(invalid_value(path, key, QUALIFIED_MESSAGE))
    return causes


def validate_labels(labels: Any, path: str) -> list[Cause]:
    """Return what is wrong with a map of labels."""
    causes: list[Cause] = []
    for key, value in labels.items() if isinstance(labels, dict) else ():
        causes += _qualified_causes(path, key)
        if isinstance(value, str) and len(value) > 63:
            causes.append(invalid_value(path, value, "must be no more than 63 characters"))
        if not isinstance(value, str) or not _VALUE.match(value):
            causes.append(invalid_value(path, value, VALUE_MESSAGE))
    return causes


def validate(obj: Object, kind: Kind) -> list[Cause]:
    """Return what is wrong with an object's metadata."""
    metadata = obj["metadata"]
    causes: list[Cause] = []
    name = metadata.get("name", "")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        causes += _name_causes(name, kind, "metadata.name")
    causes += validate_labels(metadata.get("labels"), "metadata.labels")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        causes += _qualified_causes("metadata.annotations", key)
    if sum(len(key) + len(value) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        causes.append(too_long("metadata.annotations", MAX_ANNOTATIONS))
    for index, reference in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(field):
                path = f"metadata.ownerReferences[{index}].{field}"
                causes.append(invalid_value(path, reference.get(field, ""), f"{field} must not be empty"))
    if sum(bool(reference.get("controller")) for reference in metadata.get("ownerReferences") or ()) > 1:
        text = "Only one reference can have Controller set to true"
        causes.append(invalid_value("metadata.ownerReferences", metadata["ownerReferences"], text))
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        causes += _qualified_causes(f"metadata.finalizers[{index}]", finalizer)
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not do to metadata."""
    causes = []
    for field in ("name", "namespace", "uid"):
        value = new["metadata"].get(field, "")
        if value != old["metadata"].get(field, ""):
            causes.append(invalid_value(f"metadata.{field}", value, "field is immutable"))
    if old["metadata"].get("deletionTimestamp"):
        before = set(old["metadata"].get("finalizers") or ())
        added = [one for one in new["metadata"].get("finalizers") or () if one not in before]
        if added:
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            causes.append(field_forbidden("metadata.finalizers", text.replace("'", '"')))
    return causes
