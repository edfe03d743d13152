# SPDX-License-Identifier: GPL-3.0-or-later
"""How it is found out whether a guest is alive, and whether it is ready."""

from __future__ import annotations

from turtles.api.language import INT32, INT_OR_STRING, STRING, STRINGS, Struct, field, group, group_list

_TCP_SOCKET = Struct(
    "Succeeds if a connection is made.",
    field("port", INT_OR_STRING, "Port, or the name of one.", required=True),
    field("host", STRING, "Host to connect to; the Pod if not given."),
)

_HTTP_GET = Struct(
    "Succeeds if the status is at least 200 and below 400.",
    field("port", INT_OR_STRING, "Port, or the name of one.", required=True),
    field("path", STRING, "Path; / if not given."),
    field("host", STRING, "Host to connect to; the Pod if not given."),
    field("scheme", STRING, "HTTP (the default) or HTTPS, whose certificate isn't verified."),
    group_list(
        "httpHeaders",
        "Headers of the request.",
        field("name", STRING, "Its name.", required=True),
        field("value", STRING, "Its value.", required=True),
    ),
)

PROBE = Struct(
    "Exactly one kind of probe is set.",
    field("tcpSocket", _TCP_SOCKET, "Connects to a port of the guest."),
    field("httpGet", _HTTP_GET, "Sends a request to a port of the guest."),
    group(
        "exec",
        "Runs a command in the guest, by its agent; succeeds if its exit code is 0.",
        field("command", STRINGS, "Program and arguments; no shell is involved."),
    ),
    group("guestAgentPing", "Pings the guest's agent."),
    field("initialDelaySeconds", INT32, "Seconds between the start and the first probe."),
    field("timeoutSeconds", INT32, "Seconds after which a probe has failed; 1 if not given."),
    field("periodSeconds", INT32, "Seconds between two probes; 10 if not given."),
    field("successThreshold", INT32, "Successes in a row for the guest to be ready again; 1 if not given."),
    field("failureThreshold", INT32, "Failures in a row for the guest not to be ready or alive; 3 if not given."),
)
