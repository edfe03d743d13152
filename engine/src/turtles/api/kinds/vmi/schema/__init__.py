# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a VirtualMachineInstance: documentation, defaults, and what is implemented.

The single source for the CustomResourceDefinition, static defaults, field documentation and the refusal of what the
engine doesn't implement. Names and meanings are those of the KubeVirt API, kubevirt.io/v1. Fields that KubeVirt has
and the engine doesn't are declared `unsupported`: the schema keeps them, so that admission can name them.
"""

from __future__ import annotations

from turtles.api import guests
from turtles.api.core import AFFINITY, DNS_CONFIG, TOLERATIONS, TOPOLOGY_SPREAD
from turtles.api.kinds.vmi.schema.credentials import ACCESS_CREDENTIALS
from turtles.api.kinds.vmi.schema.domain import DOMAIN
from turtles.api.kinds.vmi.schema.network import NETWORK
from turtles.api.kinds.vmi.schema.probes import PROBE
from turtles.api.kinds.vmi.schema.status import VMI_STATUS
from turtles.api.kinds.vmi.schema.volumes import UTILITY_VOLUME, VOLUME
from turtles.api.language import INT64, STRING, STRING_MAP, ListOf, Struct, field, group_list

__all__ = ("DOMAIN", "SCHEMA", "VMI_SPEC", "VMI_STATUS")

VMI_SPEC = Struct(
    "The machine's desired state.",
    field("domain", DOMAIN, "The machine itself.", required=True),
    field("volumes", ListOf(VOLUME, max_items=256), "What backs the disks."),
    field(
        "networks",
        ListOf(NETWORK, max_items=256),
        "What the interfaces are connected to.",
    ),
    field("nodeSelector", STRING_MAP, "Labels the machine's node must have."),
    field("affinity", AFFINITY, "Where the machine may or should run.", absent={}),
    field("tolerations", TOLERATIONS, "Taints of nodes which the machine tolerates."),
    field("priorityClassName", STRING, "The Pod's priority class."),
    field("hostname", STRING, "Host name of the guest, set by DHCP and cloud-init; the machine's name if not given."),
    field("subdomain", STRING, "Subdomain of the guest's host name."),
    field(
        "dnsPolicy",
        STRING,
        "ClusterFirst (the default), ClusterFirstWithHostNet, Default or None.",
        absent="ClusterFirst",
    ),
    field("dnsConfig", DNS_CONFIG, "DNS settings merged with those of dnsPolicy.", absent={}),
    field(
        "terminationGracePeriodSeconds",
        INT64,
        "Seconds that the guest has to shut down before it is powered off; 30 if not given.",
        absent=guests.GRACE_PERIOD_SECONDS,
    ),
    field("evictionStrategy", STRING, "What happens on a drain: None, LiveMigrate, LiveMigrateIfPossible, External."),
    field("startStrategy", STRING, "Paused: the machine is started paused."),
    field("architecture", STRING, "Processor architecture: amd64, arm64 or s390x. The machine waits for such a node."),
    field("livenessProbe", PROBE, "Tells whether the guest is alive; one that isn't is ended."),
    field("readinessProbe", PROBE, "Tells whether the guest is ready; Services send nothing to one that isn't."),
    field("schedulerName", STRING, "The scheduler that places the machine.", absent="default-scheduler"),
    field("topologySpreadConstraints", TOPOLOGY_SPREAD, "How machines are spread over topologies."),
    field("serviceAccountName", STRING, "Service account of the Pod, which gets no token of it by that alone."),
    field("accessCredentials", ACCESS_CREDENTIALS, "SSH keys and passwords given to the guest."),
    group_list(
        "resourceClaims",
        "Claims of devices; machines that have some aren't started yet.",
        field("name", STRING, "Name by which devices refer to it.", required=True),
        field("resourceClaimName", STRING, "The ResourceClaim."),
        field("resourceClaimTemplateName", STRING, "ResourceClaimTemplate that one is made from."),
    ),
    field(
        "utilityVolumes",
        ListOf(UTILITY_VOLUME),
        "Volumes for the Pod which the guest doesn't see. They can't be there from the start, nor be added so far.",
    ),
)

SCHEMA = Struct(
    "A machine that is running, is about to, or has run. It belongs to a VirtualMachine or stands on its own.",
    field("spec", VMI_SPEC, "The machine's desired state. It can't be changed.", required=True),
    field("status", VMI_STATUS, "The machine's observed state."),
)
