# SPDX-License-Identifier: GPL-3.0-or-later
"""CDIConfig: settings of all imports, and where uploads are sent (CDI API reference, CDIConfig).

There is one, `config`. An administrator writes its spec, or the engine does, from the object CDI if there is one. The
engine writes its status.
"""

from __future__ import annotations

import re
from typing import Any

from turtles.api import cdi
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    READ,
    UPDATE,
    Context,
    Kind,
    Version,
    Webhook,
)
from turtles.api.language import BOOLEAN, INVALID, STRING, STRINGS, Cause, MapOf, Struct, field, unsupported
from turtles.api.rules import Causes, Spec, schema_causes

#: Name of the one object.
NAME = "config"
#: CDI's pattern of a share.
_SHARE = re.compile(r"(?:0(?:\.[0-9]{1,3})?|1)")
_PROXY = re.compile(r"https?://\S+")

_OVERHEAD = Struct(
    "The share of a file system that a disk leaves free, such as 0.06.",
    field("global", STRING, "For all StorageClasses; 0.06 if not given."),
    field("storageClass", MapOf(STRING), "By StorageClass."),
)
_IMPORT_PROXY = Struct(
    "The proxy through which importers reach servers.",
    field("HTTPProxy", STRING, "Address of the proxy for http."),
    field("HTTPSProxy", STRING, "Address of the proxy for https."),
    field("noProxy", STRING, "Hosts and domains to reach without the proxy, separated by commas."),
    unsupported("trustedCAProxy", "ConfigMap with the authorities of the proxy's certificate."),
)

SPEC = Struct(
    "Desired settings.",
    field("uploadProxyURLOverride", STRING, "Address of the upload proxy, such as that of an Ingress."),
    field("filesystemOverhead", _OVERHEAD, "The share of a file system that a disk leaves free."),
    field("scratchSpaceStorageClass", STRING, "StorageClass of scratch space; that of the disk if not given."),
    field("insecureRegistries", STRINGS, "Registries, as host:port, that importers reach without verified TLS."),
    field("importProxy", _IMPORT_PROXY, "The proxy through which importers reach servers."),
    field("preallocation", BOOLEAN, "Whether disks are preallocated if a DataVolume doesn't specify it."),
    unsupported("podResourceRequirements", "Requests and limits of importers."),
    unsupported("imagePullSecrets", "Secrets for the importer's image."),
    unsupported("featureGates", "Features that are switched on."),
    unsupported("dataVolumeTTLSeconds", "Seconds until complete DataVolumes are deleted."),
    unsupported("tlsSecurityProfile", "Versions and ciphers of TLS."),
    unsupported("logVerbosity", "How much CDI's components log."),
)
_STATUS = Struct(
    "Effective settings. Only written by the engine.",
    field("uploadProxyURL", STRING, "Address of the upload proxy."),
    field("uploadProxyCA", STRING, "Authorities of the upload proxy's certificate, in PEM."),
    field("filesystemOverhead", _OVERHEAD, "The share of a file system that a disk leaves free."),
    field("scratchSpaceStorageClass", STRING, "StorageClass of scratch space; that of the disk if empty."),
    field("importProxy", _IMPORT_PROXY, "The proxy through which importers reach servers."),
    field("preallocation", BOOLEAN, "Whether disks are preallocated if a DataVolume doesn't specify it."),
)


def validate(config: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a CDIConfig."""
    if not isinstance(config, dict) or config.get("spec") is None:
        return []
    return schema_causes(config, SPEC) or list(setting_causes(config["spec"], "spec"))


def setting_causes(spec: Spec, where: str) -> Causes:
    """Return what is wrong with settings, whose shape is sound.

    :param where: their path.
    """
    overhead, here = spec.get("filesystemOverhead") or {}, f"{where}.filesystemOverhead"
    shares = {f"{here}.storageClass[{name}]": share for name, share in (overhead.get("storageClass") or {}).items()}
    for path, share in {f"{here}.global": overhead.get("global") or "0", **shares}.items():
        if not _SHARE.fullmatch(share) or float(share) == 1:
            yield Cause(INVALID, f"{path} {share!r} is no share of a file system, from 0 to 0.999", path)
    for name in ("HTTPProxy", "HTTPSProxy"):
        if (address := (spec.get("importProxy") or {}).get(name)) and not _PROXY.fullmatch(address):
            path = f"{where}.importProxy.{name}"
            yield Cause(INVALID, f"{path} {address!r} is no address of a proxy, such as http://proxy:3128", path)


CDI_CONFIG = Kind(
    kind="CDIConfig",
    plural="cdiconfigs",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    namespaced=False,
    categories=(),
    schema=Struct(
        "Settings for all imports and uploads.",
        field("spec", SPEC, "Desired settings."),
        field("status", _STATUS, "What is in force."),
    ),
    columns=(AGE,),
    rights={**dict.fromkeys(MANAGED_BY_USERS, READ), "default": READ},
    webhooks=(Webhook("cdiconfig-validate.cdi", "/cdiconfig-validate", (CREATE, UPDATE)),),
    validate=validate,
)

KINDS = (CDI_CONFIG,)
