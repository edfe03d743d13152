# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as Kubernetes tells them: every one is a metav1.Status."""

from typing import Any

Object = dict[str, Any]


class StatusError(Exception):
    """An answer other than success, with all that a metav1.Status says."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> Object:
        """Return the metav1.Status."""
        body: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def resource_name(group: str, plural: str) -> str:
    """Return ``plural.group``, or the plural alone in the core group, as error messages name a resource."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, plural: str, name: str) -> Object:
    details: Object = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if plural:
        details["kind"] = plural
    return details


def not_found(group: str, plural: str, name: str) -> StatusError:
    """Return 404 for an object."""
    message = f'{resource_name(group, plural)} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(group, plural, name))


def path_not_found() -> StatusError:
    """Return 404 for a path that is no resource's."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> StatusError:
    """Return 409 for a creation of what exists."""
    message = f'{resource_name(group, plural)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = "") -> StatusError:
    """Return 409 for a write based on something old.

    :param why: the reason, if it is another one.
    """
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource_name(group, plural)} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(group, plural, name))


def forbidden(group: str, plural: str, name: str, why: str) -> StatusError:
    """Return 403 for an object.

    :param name: the object's; empty for the resource as a whole.
    """
    what = f'{resource_name(group, plural)} "{name}"' if name else resource_name(group, plural)
    return StatusError(403, "Forbidden", f"{what} is forbidden: {why}", _details(group, plural, name))


class Undecodable(StatusError):
    """400 for what can't be taken for an object of its kind.

    :ivar why: the reason alone.
    """

    def __init__(self, kind: str, version: str, wanted: str, why: str) -> None:
        text = f"{kind} in version {quote(version)} cannot be handled as a {wanted}: {why}"
        super().__init__(400, "BadRequest", text)
        self.why = why


#: The place that Kubernetes names where it doesn't know a kind.
_SCHEME = "pkg/runtime/scheme.go:111"


def unregistered(kind: str, api_version: str) -> str:
    """Return the message about a kind that isn't known."""
    return f"no kind {quote(kind)} is registered for version {quote(api_version)} in scheme {quote(_SCHEME)}"


def bad_request(message: str) -> StatusError:
    """Return 400 with a message."""
    return StatusError(400, "BadRequest", message)


def method_not_allowed() -> StatusError:
    """Return 405 for a path that doesn't have the method."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def method_not_supported(group: str, plural: str, verb: str) -> StatusError:
    """Return 405 for a verb that a custom resource doesn't have."""
    message = f'{verb} is not supported on resources of kind "{resource_name(group, plural)}"'
    return StatusError(405, "MethodNotAllowed", message, _details(group, plural, ""))


def unsupported_media_type(message: str) -> StatusError:
    """Return 415 with a message."""
    return StatusError(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: list[str]) -> StatusError:
    """Return 406.

    :param accepted: the media types that there are.
    """
    message = "only the following media types are accepted: " + ", ".join(accepted)
    return StatusError(406, "NotAcceptable", message)


def expired(requested: int, oldest: int) -> StatusError:
    """Return 410 for a resourceVersion whose history is gone."""
    return StatusError(410, "Expired", f"too old resource version: {requested} ({oldest})")


def too_large_version(version: int, current: int) -> StatusError:
    """Return 504 for a resourceVersion that isn't there yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    text = f"Timeout: Too large resource version: {version}, current: {current}"
    return StatusError(504, "Timeout", text, {"causes": [cause], "retryAfterSeconds": 1})


def unauthorized() -> StatusError:
    """Return 401, without a reason: it would help who guesses."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def internal(message: str) -> StatusError:
    """Return 500, for what the client isn't to blame for."""
    details = {"causes": [{"message": message}]}
    return StatusError(500, "InternalError", f"Internal error occurred: {message}", details)


class Cause:
    """One thing wrong with an object: an entry of Status.details.causes."""

    __slots__ = ("field", "message", "reason")

    def __init__(self, reason: str, message: str, field: str) -> None:
        self.reason, self.message, self.field = reason, message, field

    def data(self) -> Object:
        """Return the wire form."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(text: str) -> str:
    """Return a text in quotes as Go's %q writes it, which Kubernetes' messages use."""
    return '"' + "".join(_ESCAPES.get(one) or (one if one.isprintable() else _escape(one)) for one in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def show(value: object) -> str:
    """Return a value as Kubernetes' messages quote it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, dict | list):
        import json

        return json.dumps(value, separators=(",", ":"))
    return str(value)


def invalid_value(field: str, value: object, why: str) -> Cause:
    """Return the cause for a value that breaks a rule."""
    return Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {why}", field)


def required(field: str, why: str = "") -> Cause:
    """Return the cause for a field that must be there."""
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", field)


def not_supported(field: str, value: object, allowed: list[str]) -> Cause:
    """Return the cause for a value outside of an enumeration."""
    values = ", ".join(show(one) for one in allowed)
    return Cause("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {values}", field)


def duplicate(field: str, value: object) -> Cause:
    """Return the cause for a value that may be there once only."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {show(value)}", field)


def too_long(field: str, limit: int) -> Cause:
    """Return the cause for a value above its size limit, in bytes."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def wrong_type(field: str, value: object, why: str) -> Cause:
    """Return the cause for a value of the wrong type."""
    return Cause("FieldValueTypeInvalid", f"Invalid value: {show(value)}: {why}", field)


def field_forbidden(field: str, why: str) -> Cause:
    """Return the cause for a field that must not be set, or not in this way."""
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> StatusError:
    """Return 422 with all causes.

    Source: NewInvalid of k8s.io/apimachinery/pkg/api/errors.
    """
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = {**_details(group, kind, name), "causes": [cause.data() for cause in causes]}
    what = f"{kind}.{group}" if group else kind
    return StatusError(422, "Invalid", f"{what} {quote(name)} is invalid: {text}", details)
