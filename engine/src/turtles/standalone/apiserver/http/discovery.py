# SPDX-License-Identifier: GPL-3.0-or-later
"""Discovery of the server's own groups and of aggregated ones."""

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.http.server import APIServer
from turtles.standalone.apiserver.views import discovery, negotiate
from turtles.standalone.apiserver.wire.errors import Object, StatusError


async def discover(server: APIServer, parts: list[str], wanted: negotiate.Accept, user: User) -> Object | None:
    """Return what a discovery path shows; None for no such path.

    :param parts: the path's, such as ``apis``, a group, a version.
    :param wanted: whether the client takes the aggregated form.
    :param user: who asks, which the services behind aggregated versions are told.
    :raises StatusError: 503 if the service behind a version can't be asked.
    """
    groups = server.registry.groups()
    services = server.aggregator.services()
    for group, version in services:
        if version not in groups.setdefault(group, []):
            groups[group].append(version)
    if parts == ["api"] or parts == ["apis"]:
        core = parts == ["api"]
        if wanted.shape:
            chosen = {group: versions for group, versions in groups.items() if (group == "") == core}
            return await _aggregated(server, chosen, wanted.version, user)
        return discovery.api_versions() if core else discovery.api_group_list(groups)
    if parts[0] == "api" and len(parts) == 2:
        return discovery.resource_list(server.registry, "", parts[1])
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups:
        return discovery.api_group(parts[1], groups[parts[1]])
    if parts[0] == "apis" and len(parts) == 3:
        if (parts[1], parts[2]) in services:
            return await server.aggregator.resource_list(parts[1], parts[2], user)
        return discovery.resource_list(server.registry, parts[1], parts[2])
    return None


async def _aggregated(server: APIServer, groups: dict[str, list[str]], version: str, user: User) -> Object:
    services = server.aggregator.services()
    listed = []
    for group, versions in groups.items():
        entries = []
        for one in versions:
            if (group, one) in services:
                try:
                    resources: Object | None = await server.aggregator.resource_list(group, one, user)
                except StatusError:
                    entries.append({"version": one, "freshness": "Stale", "resources": []})
                    continue
            else:
                resources = discovery.resource_list(server.registry, group, one)
            entries.append(discovery.aggregated_versions((resources or {}).get("resources", []), group, one))
        listed.append((group, entries))
    return discovery.aggregated(listed, f"apidiscovery.k8s.io/{version}")
