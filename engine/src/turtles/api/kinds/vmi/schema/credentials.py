# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH keys and passwords that are given to the guest."""

from __future__ import annotations

from turtles.api.language import STRING, STRINGS, ListOf, Struct, field, group

_SOURCE = Struct(
    "Where it comes from.",
    group("secret", "A Secret in the same namespace.", field("secretName", STRING, "Its name.", required=True)),
)
_NO_SETTINGS = Struct("No settings.")

ACCESS_CREDENTIALS = ListOf(
    Struct(
        "Either SSH keys or passwords.",
        group(
            "sshPublicKey",
            "SSH keys: each value of the Secret is one, or several on lines of their own.",
            field("source", _SOURCE, "Where the keys come from.", required=True),
            group(
                "propagationMethod",
                "How the guest gets them; exactly one way is set.",
                field("configDrive", _NO_SETTINGS, "By the config drive, when the guest boots."),
                field("noCloud", _NO_SETTINGS, "By the NoCloud seed, when the guest boots."),
                group(
                    "qemuGuestAgent",
                    "By the guest's agent, whenever the Secret changes.",
                    field("users", STRINGS, "Users that get the keys.", required=True),
                ),
                required=True,
            ),
        ),
        group(
            "userPassword",
            "Passwords: each key of the Secret is a user.",
            field("source", _SOURCE, "Where the passwords come from.", required=True),
            group(
                "propagationMethod",
                "How the guest gets them; exactly one way is set.",
                field(
                    "qemuGuestAgent",
                    _NO_SETTINGS,
                    "By the guest's agent, whenever the Secret changes.",
                ),
                required=True,
            ),
        ),
    )
)
