# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of the kubelet's device plugin API, version v1beta1, as far as a plugin needs them.

Source: ``k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto``; numbers and names are that file's. The classes are
made at run time from the table below: nothing is generated, and protobuf skips fields that aren't in it.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}
#: Message → (name, number, type; a type in brackets is repeated).
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Empty": (),
    "DevicePluginOptions": (
        ("pre_start_required", 1, "bool"),
        ("get_preferred_allocation_available", 2, "bool"),
    ),
    "RegisterRequest": (
        ("version", 1, "string"),
        ("endpoint", 2, "string"),
        ("resource_name", 3, "string"),
        ("options", 4, "DevicePluginOptions"),
    ),
    "Device": (("ID", 1, "string"), ("health", 2, "string")),
    "ListAndWatchResponse": (("devices", 1, "[Device]"),),
    "ContainerAllocateRequest": (("devices_ids", 1, "[string]"),),
    "AllocateRequest": (("container_requests", 1, "[ContainerAllocateRequest]"),),
    "DeviceSpec": (
        ("container_path", 1, "string"),
        ("host_path", 2, "string"),
        ("permissions", 3, "string"),
    ),
    # On the wire a map is a list of such entries.
    "EnvsEntry": (("key", 1, "string"), ("value", 2, "string")),
    "ContainerAllocateResponse": (("envs", 1, "[EnvsEntry]"), ("devices", 3, "[DeviceSpec]")),
    "AllocateResponse": (("container_responses", 1, "[ContainerAllocateResponse]"),),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="turtles/deviceplugin.proto", package=VERSION, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, type_ in fields:
            kind = type_.strip("[]")
            label = _Field.LABEL_REPEATED if type_.startswith("[") else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{VERSION}.{kind}"
    return file


# A pool of its own: another library in the process may have the real file.
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{VERSION}.{name}"))


Empty = _message("Empty")
DevicePluginOptions = _message("DevicePluginOptions")
RegisterRequest = _message("RegisterRequest")
Device = _message("Device")
ListAndWatchResponse = _message("ListAndWatchResponse")
AllocateRequest = _message("AllocateRequest")
DeviceSpec = _message("DeviceSpec")
EnvsEntry = _message("EnvsEntry")
ContainerAllocateResponse = _message("ContainerAllocateResponse")
AllocateResponse = _message("AllocateResponse")
