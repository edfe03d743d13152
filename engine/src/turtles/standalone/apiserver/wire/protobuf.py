# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies in Kubernetes' protobuf encoding, of the few kinds that kubectl sends in no other.

``kubectl create namespace``, ``create configmap``, ``auth can-i`` and ``drain`` of kubectl ≥ 1.32 encode what they
send and don't fall back. Answers are JSON, which they do accept. Other kinds get 415. Field numbers: generated.proto
of k8s.io/api and k8s.io/apimachinery.
"""

import base64
from datetime import UTC, datetime
from typing import Any

from turtles.standalone.apiserver.wire.errors import Object, bad_request, unsupported_media_type

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
#: Message -> field number -> (name, type). Types: text, int, zero (an int whose 0 counts), bool, bytes, time,
#: int-or-text, zero-or-text, map, map of bytes or quantities, or the name of a message; a leading * repeats.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "raw"), 3: ("encoding", "text"), 4: ("type", "text")},
    "TypeMeta": {1: ("apiVersion", "text"), 2: ("kind", "text")},
    "ObjectMeta": {
        1: ("name", "text"), 2: ("generateName", "text"), 3: ("namespace", "text"), 5: ("uid", "text"),
        6: ("resourceVersion", "text"), 7: ("generation", "int"), 8: ("creationTimestamp", "time"),
        9: ("deletionTimestamp", "time"), 10: ("deletionGracePeriodSeconds", "zero"), 11: ("labels", "map"),
        12: ("annotations", "map"), 13: ("ownerReferences", "*OwnerReference"), 14: ("finalizers", "*text"),
    },
    "OwnerReference": {
        1: ("kind", "text"), 3: ("name", "text"), 4: ("uid", "text"), 5: ("apiVersion", "text"),
        6: ("controller", "bool"), 7: ("blockOwnerDeletion", "bool"),
    },
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "ConfigMap": {
        1: ("metadata", "ObjectMeta"), 2: ("data", "map"), 3: ("binaryData", "bytes-map"), 4: ("immutable", "bool"),
    },
    "Secret": {
        1: ("metadata", "ObjectMeta"), 2: ("data", "bytes-map"), 3: ("type", "text"), 4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    "ServiceAccount": {
        1: ("metadata", "ObjectMeta"), 3: ("imagePullSecrets", "*LocalObjectReference"),
        4: ("automountServiceAccountToken", "bool"),
    },
    "LocalObjectReference": {1: ("name", "text")},
    "Service": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ServiceSpec")},
    "ServiceSpec": {
        1: ("ports", "*ServicePort"), 2: ("selector", "map"), 3: ("clusterIP", "text"), 4: ("type", "text"),
        5: ("externalIPs", "*text"), 7: ("sessionAffinity", "text"), 10: ("externalName", "text"),
    },
    "ServicePort": {
        1: ("name", "text"), 2: ("protocol", "text"), 3: ("port", "zero"), 4: ("targetPort", "int-or-text"),
        5: ("nodePort", "int"), 6: ("appProtocol", "text"),
    },
    "Role": {1: ("metadata", "ObjectMeta"), 2: ("rules", "*PolicyRule")},
    "ClusterRole": {
        1: ("metadata", "ObjectMeta"), 2: ("rules", "*PolicyRule"), 3: ("aggregationRule", "AggregationRule"),
    },
    "AggregationRule": {1: ("clusterRoleSelectors", "*LabelSelector")},
    "LabelSelector": {1: ("matchLabels", "map"), 2: ("matchExpressions", "*LabelSelectorRequirement")},
    "LabelSelectorRequirement": {1: ("key", "text"), 2: ("operator", "text"), 3: ("values", "*text")},
    "PolicyRule": {
        1: ("verbs", "*text"), 2: ("apiGroups", "*text"), 3: ("resources", "*text"), 4: ("resourceNames", "*text"),
        5: ("nonResourceURLs", "*text"),
    },
    "RoleBinding": {1: ("metadata", "ObjectMeta"), 2: ("subjects", "*Subject"), 3: ("roleRef", "RoleRef")},
    "ClusterRoleBinding": {1: ("metadata", "ObjectMeta"), 2: ("subjects", "*Subject"), 3: ("roleRef", "RoleRef")},
    "Subject": {1: ("kind", "text"), 2: ("apiGroup", "text"), 3: ("name", "text"), 4: ("namespace", "text")},
    "RoleRef": {1: ("apiGroup", "text"), 2: ("kind", "text"), 3: ("name", "text")},
    "PriorityClass": {
        1: ("metadata", "ObjectMeta"), 2: ("value", "zero"), 3: ("globalDefault", "bool"), 4: ("description", "text"),
        5: ("preemptionPolicy", "text"),
    },
    "Eviction": {1: ("metadata", "ObjectMeta"), 2: ("deleteOptions", "DeleteOptions")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "zero"), 2: ("preconditions", "Preconditions"), 3: ("orphanDependents", "bool"),
        4: ("propagationPolicy", "text"), 5: ("dryRun", "*text"),
    },
    "Preconditions": {1: ("uid", "text"), 2: ("resourceVersion", "text")},
    "SelfSubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "AccessReviewSpec")},
    "SubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "SubjectAccessReviewSpec")},
    "LocalSubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "SubjectAccessReviewSpec")},
    "AccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "NonResourceAttributes"),
    },
    "SubjectAccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "NonResourceAttributes"),
        3: ("user", "text"), 4: ("groups", "*text"), 6: ("uid", "text"),
    },
    "ResourceAttributes": {
        1: ("namespace", "text"), 2: ("verb", "text"), 3: ("group", "text"), 4: ("version", "text"),
        5: ("resource", "text"), 6: ("subresource", "text"), 7: ("name", "text"),
    },
    "NonResourceAttributes": {1: ("path", "text"), 2: ("verb", "text")},
    "SelfSubjectRulesReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "RulesReviewSpec")},
    "RulesReviewSpec": {1: ("namespace", "text")},
    "SelfSubjectReview": {1: ("metadata", "ObjectMeta")},
    "TokenReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "TokenReviewSpec")},
    "TokenReviewSpec": {1: ("token", "text"), 2: ("audiences", "*text")},
    "TokenRequest": {1: ("metadata", "ObjectMeta"), 2: ("spec", "TokenRequestSpec")},
    "TokenRequestSpec": {
        1: ("audiences", "*text"), 3: ("boundObjectRef", "BoundObjectReference"), 4: ("expirationSeconds", "zero"),
    },
    "BoundObjectReference": {1: ("kind", "text"), 2: ("apiVersion", "text"), 3: ("name", "text"), 4: ("uid", "text")},
    "NetworkPolicy": {1: ("metadata", "ObjectMeta"), 2: ("spec", "NetworkPolicySpec")},
    "NetworkPolicySpec": {
        1: ("podSelector", "LabelSelector"), 2: ("ingress", "*NetworkPolicyIngressRule"),
        3: ("egress", "*NetworkPolicyEgressRule"), 4: ("policyTypes", "*text"),
    },
    "NetworkPolicyIngressRule": {1: ("ports", "*NetworkPolicyPort"), 2: ("from", "*NetworkPolicyPeer")},
    "NetworkPolicyEgressRule": {1: ("ports", "*NetworkPolicyPort"), 2: ("to", "*NetworkPolicyPeer")},
    "NetworkPolicyPort": {1: ("protocol", "text"), 2: ("port", "int-or-text"), 3: ("endPort", "zero")},
    "NetworkPolicyPeer": {
        1: ("podSelector", "LabelSelector"), 2: ("namespaceSelector", "LabelSelector"), 3: ("ipBlock", "IPBlock"),
    },
    "IPBlock": {1: ("cidr", "text"), 2: ("except", "*text")},
    "PodDisruptionBudget": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodDisruptionBudgetSpec")},
    "PodDisruptionBudgetSpec": {
        1: ("minAvailable", "zero-or-text"), 2: ("selector", "LabelSelector"), 3: ("maxUnavailable", "zero-or-text"),
        4: ("unhealthyPodEvictionPolicy", "text"),
    },
    "ResourceQuota": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ResourceQuotaSpec")},
    "ResourceQuotaSpec": {1: ("hard", "quantity-map"), 2: ("scopes", "*text")},
    "Quantity": {1: ("string", "text")},
    "Time": {1: ("seconds", "int"), 2: ("nanos", "int")},
    "IntOrString": {1: ("type", "int"), 2: ("number", "zero"), 3: ("text", "text")},
    "MapEntry": {1: ("key", "text"), 2: ("value", "raw")},
}  # fmt: skip
#: Kinds that a body may be.
_KINDS = frozenset(
    {
        "Namespace",
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "Service",
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PriorityClass",
        "ResourceQuota",
        "Eviction",
        "DeleteOptions",
        "SelfSubjectAccessReview",
        "SubjectAccessReview",
        "LocalSubjectAccessReview",
        "SelfSubjectRulesReview",
        "SelfSubjectReview",
        "TokenRequest",
        "TokenReview",
    }
)


def parse(raw: bytes) -> Object:
    """Return the object in a body in Kubernetes' protobuf encoding.

    Source: the Kubernetes documentation "API Concepts", "Kubernetes Protobuf encoding".

    :raises StatusError: 400 for what can't be read, 415 for a kind that isn't read in this encoding.
    """
    if not raw.startswith(_MAGIC):
        raise bad_request("the request's body is not in Kubernetes' protobuf encoding")
    try:
        envelope = _message(raw[len(_MAGIC) :], "Unknown")
        meta = envelope.get("typeMeta", {})
        kind = meta.get("kind", "")
        if kind not in _KINDS:
            text = f"{kind or 'this kind'} is not read in protobuf encoding - accepted media types include: "
            raise unsupported_media_type(text + "application/json")
        return {**meta, **_message(envelope.get("raw", b""), kind)}
    except (IndexError, ValueError, OverflowError) as error:
        raise bad_request(f"the request's body is not valid protobuf: {error}") from None


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _message(raw: bytes, name: str) -> Object:
    fields = _MESSAGES[name]
    result: Object = {}
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire = tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(raw, at)
        elif wire == 2:
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise ValueError("it ends early")
            value, at = raw[at : at + length], at + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            continue
        else:
            raise ValueError(f"wire type {wire}")
        field = fields.get(tag >> 3)
        if field is not None:
            _set(result, *field, value)
    return result


def _set(result: Object, name: str, kind: str, value: Any) -> None:
    if isinstance(value, int) != (kind.lstrip("*") in ("int", "zero", "bool")):
        raise ValueError(f"{name} has a wrong type")
    if kind.endswith("map"):
        entry = _message(value, "MapEntry")
        item = entry.get("value", b"")
        if kind == "quantity-map":
            text = _message(item, "Quantity").get("string", "")
        else:
            text = item.decode() if kind == "map" else base64.b64encode(item).decode()
        result.setdefault(name, {})[entry.get("key", "")] = text
        return
    if kind.startswith("*"):
        inner = value.decode() if kind == "*text" else _message(value, kind[1:])
        result.setdefault(name, []).append(inner)
        return
    converted = _scalar(kind, value)
    # The encoding writes unset texts and numbers as empty ones; JSON leaves them out.
    if converted not in ("", None) and not (kind == "int" and converted == 0):
        result[name] = converted


def _scalar(kind: str, value: Any) -> Any:
    if kind == "text":
        return value.decode()
    if kind in ("int", "zero"):
        return value - (1 << 64) if value >= 1 << 63 else value
    if kind == "bool":
        return bool(value)
    if kind == "raw":
        return value
    if kind == "time":
        seconds = _message(value, "Time").get("seconds")
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
    if kind == "int-or-text":
        message = _message(value, "IntOrString")
        return message.get("text", "") if message.get("type") else message.get("number") or None
    if kind == "zero-or-text":
        message = _message(value, "IntOrString")
        return message.get("text", "") if message.get("type") else message.get("number", 0)
    return _message(value, kind)
