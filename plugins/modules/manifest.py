#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: manifest
short_description: Make any Kubernetes objects be as their manifests say
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, changes or deletes all objects of a manifest in one task, in the manifest's order (deletes in the reverse
    order), and waits until they can be used.
  - What a manifest doesn't mention is left as it is on the server. The schemas of CustomResourceDefinitions are the
    exception; they become exactly what the manifest says.
  - With C(apply=true) the server applies the objects (server-side apply). It remembers what this module declared,
    removes what a later manifest has no more, and leaves to others what they set.
  - For virtual machines M(turtles.kubevirt.vm) knows more.
options:
  state:
    description: Whether the objects are to be there.
    type: str
    choices: [present, absent]
    default: present
  definition:
    description: The objects, as a dictionary, a list of dictionaries, or YAML text of one or more documents.
    type: raw
    aliases: [resource_definition, inline]
  src:
    description: File with the manifest, on the machine where the module runs.
    type: path
  namespace:
    description: Namespace of objects that don't name one. If not given, that of the kubeconfig's context or V(default).
    type: str
  apply:
    description:
      - Whether the server applies the objects, rather than that this module creates them or patches what differs.
      - What C(server_side_apply.field_manager) has patched before becomes applied by it, so that it can be removed by
        being left out of the manifest. Check mode doesn't predict this one removal.
      - Needs Kubernetes 1.18 or later.
    type: bool
    default: false
  server_side_apply:
    description: How the server applies the objects, with C(apply=true).
    type: dict
    suboptions:
      field_manager:
        description: Name under which the server remembers what was applied.
        type: str
        default: turtles.kubevirt
      force_conflicts:
        description:
          - Whether fields are taken over from other managers.
          - If not, fields that differ and have another owner are an error that names both.
        type: bool
        default: false
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
attributes:
  check_mode:
    support: full
    details: The server does everything but store the result (dry run), so its validation counts in check mode too.
  diff_mode:
    support: full
    details: Values of Secrets aren't shown.
  idempotent:
    support: partial
    details: Objects with C(generateName) are created each time.
  action_group:
    support: full
notes:
  - Waiting means that a CustomResourceDefinition is established and its objects are served, an APIService is available,
    and deleted objects (a Namespace with all that is in it, a Deployment or DaemonSet with its Pods) are gone.
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: A namespace and a Secret with cloud-init data in it
  turtles.kubevirt.manifest:
    definition:
      - apiVersion: v1
        kind: Namespace
        metadata:
          name: shop
      - apiVersion: v1
        kind: Secret
        metadata:
          name: web-seed
          namespace: shop
        stringData:
          userdata: "{{ lookup('ansible.builtin.template', 'web.cloud-config.j2') }}"
  no_log: true

- name: All that a file declares
  turtles.kubevirt.manifest:
    src: /etc/turtles/manifests.yaml

- name: Exactly what the file of a release declares, also where somebody has changed it by hand
  turtles.kubevirt.manifest:
    src: /etc/turtles/operator.yaml
    apply: true
    server_side_apply:
      field_manager: shop-playbook
      force_conflicts: true

- name: The namespace is gone with all that was in it
  turtles.kubevirt.manifest:
    state: absent
    definition:
      apiVersion: v1
      kind: Namespace
      metadata:
        name: shop
"""

RETURN = r"""
resources:
  description: The objects as they are after the task, in the manifest's order. Without the data of Secrets.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: v1
      kind: Namespace
      metadata: {name: shop}
      status: {phase: Active}
changes:
  description: What was done, or would be in check mode, an entry for each object that changed.
  returned: success
  type: list
  elements: str
  sample: ["created Namespace shop", "patched Secret shop/web-seed", "deleted ConfigMap shop/old"]
"""

import copy
import time

from ansible_collections.turtles.kubevirt.plugins.module_utils import merge, resources, server_side, wait
from ansible_collections.turtles.kubevirt.plugins.module_utils.base import (
    KubeModule,
    Outcome,
    load_definitions,
    run_module,
)
from ansible_collections.turtles.kubevirt.plugins.module_utils.client import KubeError

# Schemas are replaced whole: a property that a newer manifest has no more must go.
EXACT = frozenset(("schema",))
HIDDEN = "VALUE_HIDDEN"
SHOWN = 5
# Deleted with what they made, so that nothing of it runs any more when they are gone.
WITH_PODS = frozenset(("DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"))


class Manifest(KubeModule):
    """Objects of any kind."""

    ARGUMENTS = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "definition": {"type": "raw", "aliases": ["resource_definition", "inline"]},
        "src": {"type": "path"},
        "namespace": {"type": "str"},
        "apply": {"type": "bool", "default": False},
        "server_side_apply": {
            "type": "dict",
            "options": {
                "field_manager": {"type": "str", "default": server_side.FIELD_MANAGER},
                "force_conflicts": {"type": "bool", "default": False},
            },
        },
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 300},
    }
    RULES = {"mutually_exclusive": [("definition", "src")], "required_one_of": [("definition", "src")]}

    def run(self):
        self.deadline = time.monotonic() + self.params["wait_timeout"]
        if self.params["server_side_apply"] and not self.params["apply"]:
            raise KubeError("server_side_apply says how objects are applied by the server, which needs apply=true")
        objects = [
            self._checked(n, o) for n, o in enumerate(load_definitions(self.params["definition"], self.params["src"]))
        ]
        done = self._absent(objects) if self.params["state"] == "absent" else self._present(objects)
        changed = [entry for entry in done if entry[1].changed]
        return {
            "changed": bool(changed),
            "resources": [_shown(outcome.after) for dummy, outcome in done if outcome.after is not None],
            "changes": ["%s %s" % (_verb(outcome), name) for name, outcome in changed],
            "diff": [
                {
                    "before_header": name,
                    "after_header": name,
                    "before": merge.for_diff(_shown(outcome.before)),
                    "after": merge.for_diff(_shown(outcome.after)),
                }
                for name, outcome in changed
            ],
        }

    def _checked(self, number, obj):
        obj = copy.deepcopy(obj)
        where = "definition, object %d" % (number + 1)
        for member in ("apiVersion", "kind"):
            if not isinstance(obj.get(member), str) or not obj[member]:
                raise KubeError("%s: %s is missing or isn't text: %r" % (where, member, obj.get(member)))
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
            raise KubeError("%s (%s): metadata.name is missing" % (where, obj["kind"]))
        obj.pop("status", None)
        return obj

    def _resource(self, obj):
        """Where the object lives; its namespace is filled in."""
        resource = resources.find(self.client, obj["apiVersion"], obj["kind"])
        if resource.namespaced:
            metadata = obj["metadata"]
            metadata["namespace"] = (
                metadata.get("namespace") or self.params["namespace"] or self.client.default_namespace
            )
        return resource

    def _present(self, objects):
        done, unready = [], []
        for obj in objects:
            if unready and obj["kind"] not in ("CustomResourceDefinition", "APIService"):
                # This object may be of a kind that one before it brings.
                done = self._settled(unready, done)
                unready = []
            try:
                resource = self._resource(obj)
            except resources.UnknownKind as exc:
                if not self.check_mode:
                    raise
                self.module.warn("%s couldn't be checked by the server: %s" % (resources.label(obj), exc))
                done.append((resources.label(obj), Outcome(True, None, obj)))
                continue
            outcome = self._applied(resource, obj)
            if obj["kind"] in ("CustomResourceDefinition", "APIService"):
                unready.append((len(done), resource, outcome))
            done.append((resources.label(outcome.after), outcome))
        return self._settled(unready, done)

    def _applied(self, resource, obj):
        metadata = obj["metadata"]
        where = (resource, metadata.get("namespace"), metadata.get("name"))
        if self.params["apply"]:
            if not metadata.get("name"):
                raise KubeError("%s: apply=true needs metadata.name" % resources.label(obj))
            how = self.params["server_side_apply"] or {}
            manager = how.get("field_manager") or server_side.FIELD_MANAGER
            return self.apply_server_side(*where, obj, manager, how.get("force_conflicts", False))
        exact = EXACT if obj["kind"] == "CustomResourceDefinition" else frozenset()
        return self.apply(*where, lambda live: obj, exact=exact)

    def _settled(self, unready, done):
        """Waits until the CRDs and APIServices are usable, and puts them as they are then into done."""
        if self.check_mode or not self.params["wait"]:
            return done
        done = list(done)
        for position, resource, outcome in unready:
            kind = "Established" if resource.kind == "CustomResourceDefinition" else "Available"
            name, namespace = outcome.after["metadata"]["name"], outcome.after["metadata"].get("namespace")
            seen = self._until(
                resource,
                namespace,
                name,
                lambda obj, kind=kind: wait.condition(obj, kind).get("status") == "True",
                "%s yet" % kind.lower(),
            )
            done[position] = (done[position][0], outcome._replace(after=seen))
        return done

    def _absent(self, objects):
        done, gone = [], []
        for obj in reversed(objects):
            if not obj["metadata"].get("name"):
                raise KubeError("%s: state=absent needs metadata.name" % resources.label(obj))
            try:
                resource = self._resource(obj)
            except resources.UnknownKind:
                # No such kind, so no such object.
                continue
            metadata = obj["metadata"]
            propagation = "Foreground" if obj["kind"] in WITH_PODS else "Background"
            outcome = self.delete(resource, metadata.get("namespace"), metadata["name"], propagation)
            if outcome.before is not None:
                gone.append((resource, metadata.get("namespace"), metadata["name"]))
            done.append((resources.label(obj), outcome))
        if self.params["wait"] and not self.check_mode:
            for resource, namespace, name in gone:
                self._until(resource, namespace, name, lambda obj: obj is None, "gone")
            done = [(name, outcome._replace(after=None)) for name, outcome in done]
        return done[::-1]

    def _until(self, resource, namespace, name, done, goal):
        left = max(1, self.deadline - time.monotonic())
        try:
            return wait.until(self.client, resource, namespace, name, left, done)
        except wait.GaveUp as exc:
            reasons = []
            for entry in ((exc.obj or {}).get("status") or {}).get("conditions") or []:
                reasons.append(
                    "%s=%s (%s: %s)"
                    % (entry.get("type"), entry.get("status"), entry.get("reason"), entry.get("message"))
                )
            finalizers = ((exc.obj or {}).get("metadata") or {}).get("finalizers")
            if finalizers:
                reasons.append("finalizers: %s" % ", ".join(finalizers))
            if goal == "gone":
                reasons += self._on_silent_nodes(resource.kind, namespace, exc.obj)
            where = "%s/%s" % (namespace, name) if namespace and resource.namespaced else name
            raise KubeError(
                "%s %s isn't %s after %d seconds (wait_timeout). %s"
                % (resource.kind, where, goal, self.params["wait_timeout"], "; ".join(reasons)),
                result=_shown(exc.obj) or {},
            ) from exc

    def _on_silent_nodes(self, kind, namespace, obj):
        """What is to be done where an object doesn't go because its Pods can't end: one sentence or none."""
        if not obj or kind not in WITH_PODS | {"Namespace"}:
            return []
        selector = wait.selector_of(obj) if kind in WITH_PODS else None
        where = namespace if kind in WITH_PODS else obj["metadata"]["name"]
        pods = wait.pods_on_silent_nodes(self.client, where, selector)
        if not pods:
            return []
        named = ["%s on node %s" % (pod["metadata"]["name"], pod["spec"]["nodeName"]) for pod in pods[:SHOWN]]
        more = ", …" if len(pods) > SHOWN else ""
        return [
            "it waits for Pods on nodes that aren't Ready: %s%s. They end when the node is back, or when its Node "
            "object is deleted because it won't come back. Run the task again then." % (", ".join(named), more)
        ]


def _verb(outcome):
    if outcome.before is None:
        return "created"
    return "deleted" if outcome.after is None else "patched"


def _shown(obj):
    """The object without the values of a Secret."""
    if not obj or obj.get("kind") != "Secret":
        return obj
    obj = dict(obj)
    for member in ("data", "stringData"):
        if obj.get(member):
            obj[member] = dict.fromkeys(obj[member], HIDDEN)
    return obj


MODULE = Manifest


def main():
    """Entry point."""
    run_module(Manifest)


if __name__ == "__main__":
    main()
