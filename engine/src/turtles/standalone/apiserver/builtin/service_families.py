# SPDX-License-Identifier: GPL-3.0-or-later
"""Address families of Services: what follows from those that the cluster has.

Rules: Kubernetes documentation, "IPv4/IPv6 dual-stack", and the order in which kube-apiserver applies them.
"""

from collections.abc import Sequence

from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value

IPV4, IPV6 = "IPv4", "IPv6"
FAMILIES = (IPV4, IPV6)
SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
POLICIES = (PREFER, REQUIRE, SINGLE)


def family_of(address: str) -> str:
    """Return the family of an address."""
    return IPV6 if ":" in address else IPV4


def settle(spec: Object, before: Object, served: Sequence[str]) -> list[Cause]:
    """Give a Service the policy and the families that it leaves open; return what is wrong with those that it names.

    :param spec: of a Service that has cluster IPs or none ("None"); changed in place.
    :param before: its spec before an update, empty on creation.
    :param served: the families of cluster IPs, the default one first.
    """
    if _is_content(spec, before):
        return []
    headless = spec.get("clusterIP") == "None"
    selects = bool(spec.get("selector"))
    if spec.get("ipFamilyPolicy") is None:
        default = REQUIRE if headless and not selects else SINGLE
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or default
    policy = spec["ipFamilyPolicy"]
    causes = _releases(spec, before, policy)
    if policy == SINGLE:
        for name, words in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
            if len(spec.get(name) or ()) == 2:
                text = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {words} are specified"
                causes.append(invalid_value("spec.ipFamilyPolicy", policy, text))
    families = list(spec.get("ipFamilies") or ())
    addresses = [] if headless else spec.get("clusterIPs") or []
    for index, address in enumerate(addresses[len(families) :], start=len(families)):
        family = family_of(address)
        if family in served:
            families.append(family)
        else:
            text = f"{family} is not configured on this cluster"
            causes.append(invalid_value(f"spec.clusterIPs[{index}]", addresses, text))
    if causes:
        return causes
    # Endpoints that somebody else writes may have any address
    free = headless and not selects
    if not free:
        if policy == REQUIRE and len(served) < len(FAMILIES):
            text = "this cluster is not configured for dual-stack services"
            causes.append(invalid_value("spec.ipFamilyPolicy", policy, text))
        for index, family in enumerate(families):
            if family not in served:
                text = "not configured on this cluster"
                causes.append(invalid_value(f"spec.ipFamilies[{index}]", family, text))
        if causes:
            return causes
    families = families or [served[0]]
    if policy != SINGLE:
        families += [family for family in (FAMILIES if free else served) if family not in families]
    spec["ipFamilies"] = families
    return []


def _is_content(spec: Object, before: Object) -> bool:
    """Say whether a Service prefers two families and an update says nothing about them.

    It keeps what it has, even if the cluster has got another family since then, or lost one.
    """
    same = ("type", "ipFamilyPolicy", "ipFamilies", "clusterIP", "clusterIPs")
    return before.get("ipFamilyPolicy") == PREFER and all(spec.get(name) == before.get(name) for name in same)


def _releases(spec: Object, before: Object, policy: str) -> list[Cause]:
    """Drop the second family of a Service that is to have one only; return why it can't be dropped."""
    causes: list[Cause] = []
    for name, word in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, then = spec.get(name) or [], before.get(name) or []
        if policy == SINGLE:
            if now == then and len(now) > 1:
                spec[name] = now[:1]
        elif len(now) == 1 and len(then) == 2 and now[0] == then[0]:
            text = f"must be 'SingleStack' to release the secondary {word}"
            causes.append(invalid_value("spec.ipFamilyPolicy", policy, text))
    return causes
