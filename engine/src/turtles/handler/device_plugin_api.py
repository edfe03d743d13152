# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of the kubelet's device plugin API, version v1beta1, as far as a plugin needs them.

Source: ``k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto``; numbers and names are that file's.
"""

from turtles import messages

VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"

_MESSAGES: messages.Table = {
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


_message = messages.classes(VERSION, _MESSAGES)

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
