# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages between a launcher and its hook sidecars: KubeVirt's, over gRPC.

Source: ``pkg/hooks/info/api_info.proto`` and ``pkg/hooks/v1alpha*/api_v1alpha*.proto`` of KubeVirt. The messages of all
versions are the same on the wire, as far as a version has them, so there is one class for each. They are made at run
time from the table below.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: From the newest to the oldest.
VERSIONS = ("v1alpha3", "v1alpha2", "v1alpha1")
ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO, SHUTDOWN = "OnDefineDomain", "PreCloudInitIso", "Shutdown"
INFO_METHOD = "/kubevirt.hooks.info.Info/Info"
_PACKAGE = "turtles.hooks"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "int32": _Field.TYPE_INT32}
#: Message → (name, number, type; a type in brackets is repeated).
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "InfoParams": (),
    "HookPoint": (("name", 1, "string"), ("priority", 2, "int32")),
    "InfoResult": (("name", 1, "string"), ("hookPoints", 3, "[HookPoint]"), ("versions", 4, "[string]")),
    "OnDefineDomainParams": (("domainXML", 1, "bytes"), ("vmi", 2, "bytes")),
    "OnDefineDomainResult": (("domainXML", 1, "bytes"),),
    "PreCloudInitIsoParams": (
        ("cloudInitNoCloudSource", 1, "bytes"),
        ("vmi", 2, "bytes"),
        ("cloudInitData", 3, "bytes"),
    ),
    "PreCloudInitIsoResult": (("cloudInitNoCloudSource", 1, "bytes"), ("cloudInitData", 3, "bytes")),
    "ShutdownParams": (),
    "ShutdownResult": (),
}


def method(version: str, hook_point: str) -> str:
    """Return the gRPC method of a hook point."""
    return f"/kubevirt.hooks.{version}.Callbacks/{hook_point}"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="turtles/hooks.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, type_ in fields:
            kind = type_.strip("[]")
            label = _Field.LABEL_REPEATED if type_.startswith("[") else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    return file


# A pool of its own: another library in the process may have the real file.
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


InfoParams, InfoResult, HookPoint = _message("InfoParams"), _message("InfoResult"), _message("HookPoint")
#: Parameters and result of each hook point.
MESSAGES = {
    hook_point: (_message(f"{hook_point}Params"), _message(f"{hook_point}Result"))
    for hook_point in (ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO, SHUTDOWN)
}
