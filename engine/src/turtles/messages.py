# SPDX-License-Identifier: GPL-3.0-or-later
"""Protobuf messages, made at run time from a table: nothing is generated, and fields that it lacks are skipped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: Fields of each message: name, number, type. A type in brackets is repeated; one that isn't a scalar is a message.
Table = Mapping[str, Sequence[tuple[str, int, str]]]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
}


def classes(package: str, table: Table) -> Callable[[str], Any]:
    """Return a function from the name of a message to its class.

    :param package: the protobuf package of the messages.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"turtles/{package}.proto", package=package, syntax="proto3")
    for name, fields in table.items():
        message = file.message_type.add(name=name)
        for field, number, type_ in fields:
            kind = type_.strip("[]")
            label = _Field.LABEL_REPEATED if type_.startswith("[") else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
    # A pool of its own: another library in the process may have the real file.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
