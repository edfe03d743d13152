# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages between a launcher and its hook sidecars: KubeVirt's, over gRPC.

Source: ``pkg/hooks/info/api_info.proto`` and ``pkg/hooks/v1alpha*/api_v1alpha*.proto`` of KubeVirt. The messages of all
versions are the same on the wire, as far as a version has them, so there is one class for each.
"""

from turtles import messages

#: From the newest to the oldest.
VERSIONS = ("v1alpha3", "v1alpha2", "v1alpha1")
ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO, SHUTDOWN = "OnDefineDomain", "PreCloudInitIso", "Shutdown"
INFO_METHOD = "/kubevirt.hooks.info.Info/Info"
_PACKAGE = "turtles.hooks"

_MESSAGES: messages.Table = {
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


_message = messages.classes(_PACKAGE, _MESSAGES)

InfoParams, InfoResult, HookPoint = _message("InfoParams"), _message("InfoResult"), _message("HookPoint")
#: Parameters and result of each hook point.
MESSAGES = {
    hook_point: (_message(f"{hook_point}Params"), _message(f"{hook_point}Result"))
    for hook_point in (ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO, SHUTDOWN)
}
