# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of requests taken apart."""

from urllib.parse import unquote


class ResourcePath:
    """A resource path taken apart."""

    __slots__ = ("group", "name", "namespace", "plural", "subresource", "version", "watched")

    def __init__(self, group: str, version: str, rest: list[str]) -> None:
        self.group, self.version = group, version
        #: Whether the path asks for a watch, as paths below ``/api/v1/watch/`` do: the way before there was ?watch=1.
        self.watched = rest[0] == "watch" and len(rest) > 1
        rest = rest[1:] if self.watched else rest
        self.namespace = self.plural = self.name = self.subresource = ""
        if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
            self.namespace, rest = rest[1], rest[2:]
        self.plural = rest[0]
        self.name = rest[1] if len(rest) > 1 else ""
        self.subresource = "/".join(rest[2:])


def split_path(path: str) -> ResourcePath | None:
    """Return a resource path's parts, None for a path that isn't about a resource.

    :param path: as the client sent it, so that a quoted slash stays within its part.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) >= 3 and parts[0] == "api":
        return ResourcePath("", parts[1], parts[2:])
    if len(parts) >= 4 and parts[0] == "apis":
        return ResourcePath(parts[1], parts[2], parts[3:])
    return None
