# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the Kubernetes core API that a VirtualMachineInstance carries through to its Pod.

Source of names and meanings: Kubernetes API reference, "Pod".
"""

from __future__ import annotations

from turtles.api.language import (
    ANY,
    INT32,
    INT64,
    OPEN_OBJECT,
    STRING,
    STRING_MAP,
    STRINGS,
    TIME,
    ListOf,
    Struct,
    field,
    group,
    group_list,
)

#: Kubernetes' own API gives references an empty name rather than none.
LOCAL_REFERENCE = Struct(
    "The name of an object in the same namespace.", field("name", STRING, "The object's name.", structural="")
)

REQUIREMENTS = ListOf(
    Struct(
        "A requirement on a label.",
        field("key", STRING, "The label's key.", required=True),
        field("operator", STRING, "In, NotIn, Exists, DoesNotExist; for nodes also Gt and Lt.", required=True),
        field("values", STRINGS, "Values the operator compares with; none for Exists and DoesNotExist."),
    )
)

LABEL_SELECTOR = Struct(
    "Selects objects by label; all requirements must match.",
    field("matchLabels", STRING_MAP, "Labels with the values they must have."),
    field("matchExpressions", REQUIREMENTS, "Requirements on labels."),
)

_NODE_SELECTOR_TERM = Struct(
    "Selects nodes; all requirements must match.",
    field("matchExpressions", REQUIREMENTS, "Requirements on the node's labels."),
    field("matchFields", REQUIREMENTS, "Requirements on the node's fields (metadata.name)."),
)

_POD_AFFINITY_TERM = Struct(
    "Selects Pods, and the topology in which they are counted.",
    field("labelSelector", LABEL_SELECTOR, "Selects Pods by label."),
    field("matchLabelKeys", STRINGS, "Label keys whose values are taken from the incoming Pod and merged."),
    field("mismatchLabelKeys", STRINGS, "Label keys whose values, taken from the incoming Pod, must not match."),
    field("namespaceSelector", LABEL_SELECTOR, "Selects the namespaces the term applies to."),
    field("namespaces", STRINGS, "Names of the namespaces the term applies to."),
    field("topologyKey", STRING, "Node label whose equal values make one topology.", required=True),
)


def _pod_affinity(doc: str) -> Struct:
    return Struct(
        doc,
        field(
            "requiredDuringSchedulingIgnoredDuringExecution",
            ListOf(_POD_AFFINITY_TERM),
            "Terms of which a node must match at least one.",
        ),
        group_list(
            "preferredDuringSchedulingIgnoredDuringExecution",
            "Terms by which nodes are preferred.",
            field("weight", INT32, "1 to 100.", required=True),
            field("podAffinityTerm", _POD_AFFINITY_TERM, "The term that is preferred.", required=True),
        ),
    )


AFFINITY = Struct(
    "Where the machine's Pod may or should run.",
    group(
        "nodeAffinity",
        "Rules on nodes.",
        group(
            "requiredDuringSchedulingIgnoredDuringExecution",
            "Nodes that may be chosen.",
            field("nodeSelectorTerms", ListOf(_NODE_SELECTOR_TERM), "The terms.", required=True),
        ),
        group_list(
            "preferredDuringSchedulingIgnoredDuringExecution",
            "Nodes that are preferred.",
            field("weight", INT32, "1 to 100.", required=True),
            field("preference", _NODE_SELECTOR_TERM, "The term that is preferred.", required=True),
        ),
    ),
    field("podAffinity", _pod_affinity("Rules on Pods to be near to."), "Rules on Pods to be near to."),
    field("podAntiAffinity", _pod_affinity("Rules on Pods to be apart from."), "Rules on Pods to be apart from."),
)

TOLERATIONS = ListOf(
    Struct(
        "A node's taint which the Pod tolerates.",
        field("effect", STRING, "NoSchedule, PreferNoSchedule or NoExecute; empty means all."),
        field("key", STRING, "The taint's key; empty means all."),
        field("operator", STRING, "Exists or Equal (the default)."),
        field("tolerationSeconds", INT64, "For NoExecute: how long the taint is tolerated."),
        field("value", STRING, "The taint's value, for Equal."),
    )
)

TOPOLOGY_SPREAD = ListOf(
    Struct(
        "How evenly Pods are spread across the values of a node label.",
        field("maxSkew", INT32, "Maximum difference between the numbers of Pods.", required=True),
        field("topologyKey", STRING, "The node label.", required=True),
        field("whenUnsatisfiable", STRING, "DoNotSchedule or ScheduleAnyway.", required=True),
        field("labelSelector", LABEL_SELECTOR, "The Pods that count."),
        field("matchLabelKeys", STRINGS, "Label keys whose values are taken from the incoming Pod."),
        field("minDomains", INT32, "Minimum number of values."),
        field("nodeAffinityPolicy", STRING, "Honor or Ignore: whether nodes that affinity excludes count."),
        field("nodeTaintsPolicy", STRING, "Honor or Ignore: whether nodes with taints count."),
    )
)

DNS_CONFIG = Struct(
    "DNS settings merged with those of dnsPolicy.",
    field("nameservers", STRINGS, "IP addresses of name servers; at most 3."),
    field("searches", STRINGS, "Search domains; at most 6 and 256 characters."),
    group_list(
        "options",
        "Resolver options.",
        field("name", STRING, "The option's name."),
        field("value", STRING, "The option's value, if it has one."),
    ),
)

CONDITIONS = ListOf(
    Struct(
        "A condition of the object.",
        field("type", STRING, "The aspect.", required=True),
        field("status", STRING, "True, False or Unknown.", required=True),
        field("reason", STRING, "One word that says why."),
        field("message", STRING, "A human-readable explanation."),
        field("lastProbeTime", TIME, "When it was last checked."),
        field("lastTransitionTime", TIME, "When the status last changed."),
    )
)

METADATA = OPEN_OBJECT
FREE = ANY
