# SPDX-License-Identifier: GPL-3.0-or-later
"""What a schema can't say of NetworkAttachmentDefinitions: they hold a CNI configuration, JSON in a text."""

from turtles.standalone import attachments
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value


def validate(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with the configuration of a NetworkAttachmentDefinition; nothing about other kinds.

    One that was stored before stays valid until it changes.
    """
    if (kind.group, kind.plural) != (attachments.GROUP, attachments.PLURAL):
        return []
    config = (obj.get("spec") or {}).get("config")
    if old is not None and (old.get("spec") or {}).get("config") == config:
        return []
    try:
        attachments.parse_config(config, str(obj["metadata"].get("name") or ""))
    except ValueError as error:
        return [invalid_value("spec.config", config, str(error))]
    return []
