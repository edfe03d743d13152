# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true of every object: names, labels, times, owners."""

import re
import secrets
import uuid
from typing import Any

from turtles.api.times import now
from turtles.standalone.apiserver.schema.kinds import BUILTIN, EXTENSIONS, REGISTRATION, Kind
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    Undecodable,
    bad_request,
    field_forbidden,
    invalid,
    invalid_value,
    quote,
    required,
    too_long,
    unregistered,
)

SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
LABEL_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z")
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
FULL_QUALIFIED_MESSAGE = (
    QUALIFIED_MESSAGE.replace("name part", "a valid label key")
    + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
)
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")
#: Finalizers that need no domain.
STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
MAX_ANNOTATIONS = 256 * 1024
#: Resources whose names are labels, or parts of a path, instead of subdomains; APIServices have rules of their own.
_LABEL_NAMES = ("/namespaces", "/services")
_PATH_NAMES = ("rbac.authorization.k8s.io/", f"{REGISTRATION}/")


def generate_name(prefix: str) -> str:
    """Return a name for a generateName."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    return prefix[:58] + "".join(secrets.choice(alphabet) for _ in range(5))


def check_envelope(obj: Any, kind: Kind) -> None:
    """Check that a body is an object of the kind it was sent to; set kind, apiVersion and metadata if they are missing.

    :raises StatusError: 400 if it isn't, and 422 for another kind of a custom resource's group.
    """
    if not isinstance(obj, dict):
        raise bad_request(f"the body must be an object of kind {kind.kind}")
    _check_kind(obj, kind)
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    if obj.get("metadata") is None:
        obj["metadata"] = {}


#: The kinds of this server by group and name, for the message about an object of another one.
_KNOWN = {(one.group, one.kind): one for one in BUILTIN}


def _check_kind(obj: Object, kind: Kind) -> None:
    kind_name, api_version = obj.get("kind") or kind.kind, obj.get("apiVersion") or kind.api_version
    if (kind_name, api_version) == (kind.kind, kind.api_version):
        return
    group, _, version = str(api_version).rpartition("/")
    if kind.custom:
        if api_version != kind.api_version:
            text = f"the API version in the data ({api_version}) does not match the expected API version "
            raise bad_request(f"{text}({kind.api_version})")
        meta = obj.get("metadata")
        name = str(meta.get("name") or "") if isinstance(meta, dict) else ""
        raise invalid(group, str(kind_name), name, [invalid_value("kind", kind_name, f"must be {kind.kind}")])
    other = _KNOWN.get((group, str(kind_name)))
    if other is not None and other.version == version:
        why = f"converting (v1.{kind_name}) to ({kind.package}.{kind.kind}): unknown conversion"
    else:
        why = unregistered(str(kind_name), str(api_version))
    raise Undecodable(str(kind_name), version, kind.kind, why)


def version_of(obj: Object) -> str:
    """Return the resourceVersion that an update is based on; '' for none, which 0 means as well.

    :raises StatusError: 400 for what is no version.
    """
    version = str(obj["metadata"].get("resourceVersion") or "")
    if version and not (version.isascii() and version.isdigit()):
        raise bad_request(f"metadata.resourceVersion: strconv.ParseUint: parsing {quote(version)}: invalid syntax")
    return "" if version == "0" else version


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
    if metadata.get("deletionTimestamp", before.get("deletionTimestamp")) == before.get("deletionTimestamp"):
        metadata.pop("deletionTimestamp", None)
    # A client's own deletionTimestamp stays to be refused by validate_update.
    kept = () if "deletionTimestamp" in metadata else ("deletionTimestamp",)
    for name in ("creationTimestamp", *kept, "deletionGracePeriodSeconds", "generation", "managedFields"):
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
        return path_causes(name, path)
    if kind.resource in _LABEL_NAMES:
        return label_causes(name, path)
    pattern, message, limit = SUBDOMAIN, SUBDOMAIN_MESSAGE, 253
    causes = []
    if len(name) > limit:
        causes.append(invalid_value(path, name, f"must be no more than {limit} characters"))
    if not pattern.match(name):
        causes.append(invalid_value(path, name, message))
    return causes


def path_causes(name: str, path: str) -> list[Cause]:
    """Return what is wrong with a name that only has to be a part of a path."""
    if name in (".", ".."):
        return [invalid_value(path, name, f"may not be '{name}'")]
    return [invalid_value(path, name, f"may not contain '{one}'") for one in "/%" if one in name]


def subdomain_causes(name: Any, path: str) -> list[Cause]:
    """Return what is wrong with a field that names another object."""
    good = isinstance(name, str) and len(name) <= 253 and SUBDOMAIN.match(name)
    return [] if good else [invalid_value(path, name, SUBDOMAIN_MESSAGE)]


def label_causes(name: Any, path: str) -> list[Cause]:
    """Return what is wrong with a name that must be a DNS label: a namespace's, a container's."""
    if not isinstance(name, str):
        return [invalid_value(path, name, LABEL_MESSAGE)]
    causes = []
    if len(name) > 63:
        causes.append(invalid_value(path, name, "must be no more than 63 characters"))
    if not _LABEL.match(name):
        why = "must not contain dots" if SUBDOMAIN.match(name) else LABEL_MESSAGE
        causes.append(invalid_value(path, name, why))
    return causes


def validate_keys(data: Any, path: str) -> list[Cause]:
    """Return what is wrong with the keys of a Secret's or ConfigMap's data: they become names of files."""
    causes = []
    for key in data if isinstance(data, dict) else ():
        where = f"{path}[{key}]"
        if len(key) > 253:
            causes.append(invalid_value(where, key, "must be no more than 253 characters"))
        if not _KEY.match(key):
            causes.append(invalid_value(where, key, KEY_MESSAGE))
        if key in (".", ".."):
            causes.append(invalid_value(where, key, f"must not be '{key}'"))
        elif key.startswith(".."):
            causes.append(invalid_value(where, key, "must not start with '..'"))
    return causes


def qualified_causes(path: str, key: str) -> list[Cause]:
    """Return what is wrong with a qualified name: a label's key, a resource."""
    prefix, slash, name = key.rpartition("/")
    if key.count("/") > 1:
        return [invalid_value(path, key, FULL_QUALIFIED_MESSAGE)]
    causes = []
    if slash and not prefix:
        causes.append(invalid_value(path, key, "prefix part must be non-empty"))
    elif slash and not SUBDOMAIN.match(prefix):
        causes.append(invalid_value(path, key, f"prefix part {SUBDOMAIN_MESSAGE}"))
    if not name:
        causes.append(invalid_value(path, key, "name part must be non-empty"))
    elif len(name) > 63:
        causes.append(invalid_value(path, key, "name part must be no more than 63 bytes"))
    if not _QUALIFIED.match(name):
        causes.append(invalid_value(path, key, QUALIFIED_MESSAGE))
    return causes


def value_causes(value: Any, path: str) -> list[Cause]:
    """Return what is wrong with a label's value."""
    causes = []
    if isinstance(value, str) and len(value) > 63:
        causes.append(invalid_value(path, value, "must be no more than 63 bytes"))
    if not isinstance(value, str) or not _VALUE.match(value):
        causes.append(invalid_value(path, value, VALUE_MESSAGE))
    return causes


def validate_labels(labels: Any, path: str) -> list[Cause]:
    """Return what is wrong with a map of labels."""
    causes: list[Cause] = []
    for key, value in labels.items() if isinstance(labels, dict) else ():
        causes += qualified_causes(path, key)
        causes += value_causes(value, path)
    return causes


def selector_causes(selector: Object | None, path: str) -> list[Cause]:
    """Return what is wrong with a LabelSelector."""
    causes = validate_labels((selector or {}).get("matchLabels"), f"{path}.matchLabels")
    for index, one in enumerate((selector or {}).get("matchExpressions") or ()):
        where, operator, values = f"{path}.matchExpressions[{index}]", one.get("operator"), one.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                causes.append(field_forbidden(f"{where}.values", text))
        else:
            causes.append(invalid_value(f"{where}.operator", operator, "not a valid selector operator"))
        causes += qualified_causes(f"{where}.key", one.get("key") or "")
        for number, value in enumerate(values):
            causes += value_causes(value, f"{where}.values[{number}]")
    return causes


def validate(obj: Object, kind: Kind) -> list[Cause]:
    """Return what is wrong with an object's metadata."""
    metadata = obj["metadata"]
    causes: list[Cause] = []
    name, prefix = metadata.get("name", ""), metadata.get("generateName", "")
    if prefix:
        # What the server appends is letters: a prefix may end as a name may not.
        causes += _name_causes(
            prefix.rstrip("-") + "a" if prefix.endswith("-") else prefix, kind, "metadata.generateName"
        )
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        causes += _name_causes(name, kind, "metadata.name")
    causes += validate_labels(metadata.get("labels"), "metadata.labels")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        # The prefix of an annotation's key may be in capital letters.
        causes += qualified_causes("metadata.annotations", key.lower())
    if sum(len(key) + len(value) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        causes.append(too_long("metadata.annotations", MAX_ANNOTATIONS))
    causes += _owner_causes(metadata.get("ownerReferences") or [])
    # Kinds of the extension and registration APIs may have finalizers without a domain, as custom ones.
    strict = not kind.custom and kind.group not in (EXTENSIONS, REGISTRATION)
    causes += _finalizer_causes(metadata.get("finalizers") or [], strict)
    return causes


def _owner_causes(references: list[Object]) -> list[Cause]:
    path = "metadata.ownerReferences"
    causes: list[Cause] = []
    for reference in references:
        version = reference.get("apiVersion", "")
        if not version or version.count("/") > 1:
            causes.append(invalid_value(f"{path}.apiVersion", version, "version must not be empty"))
        for field in ("kind", "name", "uid"):
            if not reference.get(field):
                causes.append(invalid_value(f"{path}.{field}", "", "must not be empty"))
        if (version, reference.get("kind")) == ("v1", "Event"):
            causes.append(invalid_value(path, reference, "/v1, Kind=Event is disallowed from being an owner"))
    controllers = [
        f"{reference.get('kind', '')}/{reference.get('name', '')}"
        for reference in references
        if reference.get("controller")
    ]
    if len(controllers) > 1:
        text = (
            'Only one reference can have Controller set to true. Found "true" in references for '
            f"{controllers[0]} and {controllers[1]}"
        )
        causes.append(invalid_value(path, references, text))
    return causes


def finalizer_causes(finalizer: str, path: str) -> list[Cause]:
    """Return what is wrong with a finalizer that must be a standard one or have a domain."""
    if "/" in finalizer or finalizer in STANDARD_FINALIZERS:
        return []
    return [invalid_value(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified")]


def _finalizer_causes(finalizers: list[str], strict: bool) -> list[Cause]:
    path = "metadata.finalizers"
    causes: list[Cause] = []
    for index, finalizer in enumerate(finalizers):
        causes += qualified_causes(path, finalizer)
        if strict:
            causes += finalizer_causes(finalizer, f"{path}[{index}]")
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        causes.append(invalid_value(path, finalizers, text))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not do to metadata."""
    causes = []
    asked = new["metadata"].get("deletionTimestamp")
    if asked != old["metadata"].get("deletionTimestamp"):
        causes.append(invalid_value("metadata.deletionTimestamp", asked, "field is immutable"))
    for field in ("name", "namespace", "uid"):
        value = new["metadata"].get(field, "")
        if value != old["metadata"].get(field, ""):
            causes.append(invalid_value(f"metadata.{field}", value, "field is immutable"))
    if old["metadata"].get("deletionTimestamp"):
        before = set(old["metadata"].get("finalizers") or ())
        added = [one for one in new["metadata"].get("finalizers") or () if one not in before]
        if added:
            # This one is printed as Go writes a slice.
            shown = "[]string{" + ", ".join(quote(one) for one in added) + "}"
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            causes.append(field_forbidden("metadata.finalizers", text))
    return causes
