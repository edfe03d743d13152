# SPDX-License-Identifier: GPL-3.0-or-later
"""What virt-api registers with the API server: webhook configurations, APIServices, and where they lead to."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from turtles import __version__
from turtles.api import exports
from turtles.api.kind import GROUP, UPDATE, Kind, Webhook
from turtles.api.kinds import KINDS
from turtles.api.kinds.cdi_config import CDI_CONFIG
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.objects import Object, annotations_of
from turtles.kube.kubevirt import RESOURCES
from turtles.kube.resources import (
    APISERVICE,
    ENDPOINTS,
    MUTATINGWEBHOOK,
    SERVICE,
    VALIDATINGWEBHOOK,
    Resource,
)
from turtles.virt_api import admission, discovery, eviction
from turtles.virt_api.names import MUTATOR, VALIDATOR
from turtles.virt_api.names import SERVICE as SERVICE_NAME

PORT = 443

#: KubeVirt's annotations of what its operator installs: the version, and a hash that tells builds of it apart. Here
#: that of the registered object, without the authorities, which all replicas share.
_VERSION, _IDENTIFIER = "kubevirt.io/install-strategy-version", "kubevirt.io/install-strategy-identifier"


def webhooks(
    bundle: str, namespace: str, url: str | None = None, kinds: Sequence[Kind] = KINDS
) -> list[tuple[Resource, Object]]:
    """Return both webhook configurations.

    `bundle`: the authorities in PEM; `url`: if there is no Service; `kinds`: those that aren't somebody else's.
    """

    def calling(name: str, path: str, scope: str, rule: Object) -> Object:
        client: Object = {"caBundle": _base64(bundle)}
        if url:
            client["url"] = url.rstrip("/") + path
        else:
            client["service"] = {"name": SERVICE_NAME, "namespace": namespace, "path": path, "port": PORT}
        return {
            "name": f"{name}.{GROUP}",
            "clientConfig": client,
            "rules": [{**rule, "scope": scope}],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": 10,
            "admissionReviewVersions": ["v1"],
        }

    def hook(kind: Kind, webhook: Webhook) -> Object:
        rule = {
            "apiGroups": [kind.group],
            "apiVersions": [version.name for version in kind.versions],
            "operations": list(webhook.operations),
            "resources": [f"{kind.plural}/status" if webhook.status else kind.plural],
        }
        entry = calling(webhook.name, webhook.path, kind.scope, rule)
        if webhook.operations == (UPDATE,):
            # What the engine's own components write needs no judgement; it would cost each status a round trip,
            # and running machines would depend on virt-api being there
            users = ", ".join(f"'{user}'" for user in admission.engine_users(namespace))
            expression = f"!(request.userInfo.username in [{users}])"
            entry["matchConditions"] = [{"name": "not-the-engine", "expression": expression}]
        return entry

    evictions = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/eviction"]}
    interceptor = calling("virt-launcher-eviction-interceptor", eviction.VALIDATE, "Namespaced", evictions)
    # Other people's drains don't depend on virt-api; machines that must stay have a disruption budget as well
    interceptor |= {"failurePolicy": "Ignore", "sideEffects": "NoneOnDryRun"}

    hooks = [(webhook, hook(kind, webhook)) for kind in kinds for webhook in kind.webhooks]
    mutating = [found for webhook, found in hooks if webhook.mutating]
    validating = [*(found for webhook, found in hooks if not webhook.mutating), interceptor]
    return [
        (
            resource,
            {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": _metadata(name), "webhooks": found},
        )
        for resource, name, found in (
            (MUTATINGWEBHOOK, MUTATOR, mutating),
            (VALIDATINGWEBHOOK, VALIDATOR, validating),
        )
    ]


def apiservices(
    bundle: str, namespace: str, groups: Mapping[str, Sequence[str]] = discovery.GROUPS, url: str | None = None
) -> list[tuple[Resource, Object]]:
    """Return the APIServices of the aggregated APIs, the preferred version first.

    `groups`: those that aren't somebody else's, with their versions; `url`: where users reach virt-api, if it is known.
    """
    return [
        (
            APISERVICE,
            {
                "apiVersion": APISERVICE.api_version,
                "kind": APISERVICE.kind,
                "metadata": {
                    **_metadata(f"{version}.{group}"),
                    # For the links of exports
                    **({"annotations": {exports.ADDRESS: url.rstrip("/")}} if url else {}),
                },
                "spec": {
                    "group": group,
                    "version": version,
                    "service": {"name": SERVICE_NAME, "namespace": namespace, "port": PORT},
                    "caBundle": _base64(bundle),
                    "groupPriorityMinimum": 1000,
                    "versionPriority": 15 - index,
                },
            },
        )
        for group, versions in groups.items()
        for index, version in enumerate(versions)
    ]


def upload_proxy(bundle: str, url: str | None = None) -> tuple[Resource, Object]:
    """Return the object that says where uploads are sent.

    `url`: on a cluster nobody but an administrator knows it.
    """
    status = {"uploadProxyCA": bundle, **({"uploadProxyURL": url} if url else {})}
    resource = RESOURCES[CDI_CONFIG.kind]
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": _metadata(CDI_CONFIG_NAME)}
    return resource, {**obj, "status": status}


def endpoints(namespace: str, url: str) -> list[tuple[Resource, Object]]:
    """Return Service and Endpoints that lead to a URL.

    Raises OSError where the URL's host has no address.
    """
    parts = urlsplit(url)
    port = parts.port or PORT
    address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0][4][0]
    metadata = {**_metadata(SERVICE_NAME), "namespace": namespace}
    named = {"name": "https", "protocol": "TCP"}
    return [
        (
            SERVICE,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"ports": [{**named, "port": PORT, "targetPort": port}]},
            },
        ),
        (
            ENDPOINTS,
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": metadata,
                "subsets": [{"addresses": [{"ip": str(address)}], "ports": [{**named, "port": port}]}],
            },
        ),
    ]


def contains(actual: Any, wanted: Any) -> bool:
    """Say whether `found` has everything that `wanted` has; the API server may have added defaults to objects."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(contains(actual.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(contains(one, other) for one, other in zip(actual, wanted, strict=True))
        )
    return bool(actual == wanted)


def signed(wanted: Object) -> Object:
    """Return an object with the annotations of the build that registers it."""
    parts = {key: value for key, value in trusting(wanted, "").items() if key != "metadata"}
    identifier = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    annotations = {
        **annotations_of(wanted),
        _VERSION: f"v{__version__}",
        _IDENTIFIER: identifier,
    }
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def build_of(obj: Object) -> tuple[str | None, str | None]:
    """Return version and hash of the build that registered an object; empty if it wasn't virt-api."""
    annotations = annotations_of(obj)
    return annotations.get(_VERSION), annotations.get(_IDENTIFIER)


def trusting(obj: Object, bundle: str) -> Object:
    """Return a webhook configuration or an APIService with these authorities, and otherwise as it is."""
    authorities = {"caBundle": _base64(bundle)}
    if "webhooks" in obj:
        hooks = [{**hook, "clientConfig": {**hook["clientConfig"], **authorities}} for hook in obj["webhooks"] or []]
        return {**obj, "webhooks": hooks}
    if obj.get("kind") == APISERVICE.kind:
        return {**obj, "spec": {**obj["spec"], **authorities}}
    return obj


def _metadata(name: str) -> Object:
    return {"name": name, "labels": {"app.kubernetes.io/part-of": "kubevirt", "kubevirt.io": "virt-api"}}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
