# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The groups of an inventory: per cluster, per namespace, and by what machines are."""

from __future__ import annotations

from . import _machines


class Groups:
    """The groups of one cluster's hosts."""

    def __init__(self, plugin, cluster, name, several):
        self._plugin, self._inventory = plugin, plugin.inventory
        self._names = {}
        self._namespaces = {}
        self._name, self._several = name, several
        self._by = set(cluster["group_by"] or ())
        compatible = plugin.get_option("compatibility") == "kubevirt.core"
        if cluster["create_groups"]:
            self._by |= {"label"} if compatible else {"label", "node"}
        self._root = self._group(name)
        if not several and not cluster.cluster_name() and not compatible:
            self._inventory.add_child(self._group("kubevirt"), self._root)

    def add(self, machine, host):
        """Add a host, and put it in its groups."""
        group = self._namespace(machine.namespace) if "namespace" in self._by else self._root
        self._inventory.add_host(host, group=group)
        added = {group}
        for raw in _machines.groups_of(machine, self._by):
            group = self._group(raw)
            if group not in added:
                added.add(group)
                self._inventory.groups[group].add_host(self._inventory.hosts[host])

    def _group(self, raw):
        group = self._names.get(raw)
        if group is None:
            group = self._inventory.add_group(self._plugin._sanitize_group_name(raw))
            self._names[raw] = group
        return group

    def _namespace(self, namespace):
        """Return the group of a namespace below the cluster's group.

        A namespace of the same name in another cluster must not put its hosts in this cluster's group: several clusters
        have a group each per namespace.
        """
        if namespace in self._namespaces:
            return self._namespaces[namespace]
        raw = "namespace_%s" % namespace
        own = "%s_%s" % (self._name, raw)
        shared = self._group(raw)
        parents = {group.name for group in self._inventory.groups[shared].parent_groups} - {"all", self._root}
        if self._several:
            group = self._group(own)
            if not parents:
                self._inventory.add_child(shared, group)
        elif parents:
            group = self._group(own)
        else:
            group = shared
        if parents:
            self._plugin._report(
                "group %s belongs to the cluster %s of an earlier inventory file; the hosts of %s are only in %s."
                % (shared, ", ".join(sorted(parents)), self._name, group),
                error=False,
            )
        self._inventory.add_child(self._root, group)
        self._namespaces[namespace] = group
        return group
