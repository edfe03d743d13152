# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Failures that users can act on, and what the API server says with them."""

from __future__ import annotations

from ansible.module_utils.common.text.converters import to_text


class KubeError(Exception):
    """A failure a user can act on; its text is the whole message."""

    def __init__(self, message, **facts):
        super().__init__(message)
        self.facts = facts


class ApiError(KubeError):
    """An answer of the API that isn't a success: HTTP status, and reason, message and causes of the Status object."""

    def __init__(self, status, body, method, path):
        details = body.get("details") or {} if isinstance(body, dict) else {}
        message = body.get("message") if isinstance(body, dict) else to_text(body)
        self.status = status
        self.reason = body.get("reason") or "" if isinstance(body, dict) else ""
        self.message = (message or "HTTP status %d without an explanation" % status).strip()
        self.details = details
        self.causes = details.get("causes") or []
        self.method = method
        self.path = path
        super().__init__(self.message, status=status, reason=self.reason, causes=self.causes)


def explain_error(exc):
    """Return what an ApiError means and what to do about it, in one or two sentences."""
    details = exc.details
    if exc.status == 404 and details.get("kind") == "namespaces":
        name = details.get("name")
        return "namespace %s doesn't exist. Create it first, for instance with turtles.kubevirt.manifest." % name
    if exc.status == 404 and not details.get("name"):
        return (
            "the API server doesn't serve this kind (%s). Install KubeVirt, or whatever provides the kind, and check "
            "apiVersion." % exc.message
        )
    if exc.status == 403 and exc.reason == "Forbidden":
        message = exc.message.rstrip(".")
        if "exceeded quota" in message:
            return "%s. Delete objects that are no longer needed, or have the ResourceQuota raised." % message
        return "%s. %s" % (message, _right(exc.path, message))
    lines = []
    for cause in exc.causes:
        field, message = cause.get("field"), cause.get("message")
        if message:
            lines.append("%s: %s" % (field, message) if field and field not in message else message)
    return "refused: %s" % "; ".join(lines) if lines else exc.message


def _right(path, message):
    """Return how a user gets the right to what a request for this path was refused."""
    group = path.split("/")[2] if path.startswith("/apis/") else ""
    if not group.endswith("kubevirt.io"):
        return "Have an administrator grant the user that right."
    binding = "a ClusterRoleBinding" if "at the cluster scope" in message else "a RoleBinding in the namespace"
    return "Grant the user that right, for instance by the ClusterRole kubevirt.io:edit and %s." % binding


def why(exc):
    """Return what an OSError or another error says, without number and file."""
    return getattr(exc, "strerror", None) or exc


def sentence(text):
    """Return text with a full stop, unless it ends with a question."""
    return text if text.endswith((".", "?")) else "%s." % text
