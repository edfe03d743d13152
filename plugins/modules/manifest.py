#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: manifest
short_description: Create, update and delete Kubernetes objects from manifests
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, updates or deletes all objects of a manifest in one task, in the manifest's order (deletes in reverse
    order), and waits until they can be used.
  - Fields that a manifest doesn't mention stay unchanged on the server. The schemas of CustomResourceDefinitions are
    the exception; they become exactly what the manifest says.
  - With C(apply=true) the server applies the objects (server-side apply). It remembers what this module declared,
    removes what a later manifest no longer has, and leaves alone what others set.
  - M(turtles.kubevirt.vm) can do more for virtual machines.
options:
  state:
    description: Whether the objects should exist.
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
    description: Namespace of objects that don't name one. Defaults to that of the kubeconfig's context, or V(default).
    type: str
  apply:
    description:
      - Whether the server applies the objects, instead of this module creating them or patching what differs.
      - What C(server_side_apply.field_manager) has patched before becomes applied by it, so that it can be removed by
        being left out of the manifest. Check mode doesn't predict this one removal.
      - Needs Kubernetes 1.18 or later.
    type: bool
    default: false
  wait_for:
    description:
      - JMESPath expression that must become true for each of the objects, with O(state=present) and
        O(wait=true), such as V(status.phase == 'Bound'). Without it, only CustomResourceDefinitions and APIServices are
        waited for.
      - Needs the Python package C(jmespath).
    type: str
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
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
attributes:
  diff_mode:
    details: Values of Secrets aren't shown.
  idempotent:
    support: partial
    details: Objects with C(generateName) are created each time.
notes:
  - Waiting means that a CustomResourceDefinition is established and its objects are served, an APIService is available,
    and deleted objects (a Namespace with all that is in it, a Deployment or DaemonSet with its Pods) are gone.
seealso:
  - module: turtles.kubevirt.vm
"""

EXAMPLES = r"""
- name: Create a namespace and a Secret with cloud-init data
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

- name: Create what a file declares
  turtles.kubevirt.manifest:
    src: /etc/turtles/manifests.yaml

- name: Apply the file of a release, even where someone has changed the objects by hand
  turtles.kubevirt.manifest:
    src: /etc/turtles/operator.yaml
    apply: true
    server_side_apply:
      field_manager: shop-playbook
      force_conflicts: true

- name: Run a Pod and wait until it is ready
  turtles.kubevirt.manifest:
    src: /etc/turtles/pod.yaml
    wait_for: status.conditions[?type == 'Ready'] | [0].status == 'True'

- name: Delete the namespace with everything in it
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
  description: What was done, or would be done in check mode, with an entry for each object that changed.
  returned: success, and failure after a change
  type: list
  elements: str
  sample: ["created Namespace shop", "patched Secret shop/web-seed", "deleted ConfigMap shop/old"]
"""

import copy

from ..module_utils import _diagnosis, _merge, _resources, _server_side, _shape, _wait
from ..module_utils._base import WAIT_ARGUMENTS, KubeModule, Outcome
from ..module_utils._definitions import DEFINITION_ARGUMENTS, load_definitions
from ..module_utils._errors import KubeError
from ..module_utils._jmespath import Expression

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
        **DEFINITION_ARGUMENTS,
        "namespace": {"type": "str"},
        "apply": {"type": "bool", "default": False},
        "server_side_apply": {
            "type": "dict",
            "options": {
                "field_manager": {"type": "str", "default": _server_side.FIELD_MANAGER},
                "force_conflicts": {"type": "bool", "default": False},
            },
        },
        "wait_for": {"type": "str"},
        **WAIT_ARGUMENTS,
    }
    RULES = {"mutually_exclusive": [("definition", "src")], "required_one_of": [("definition", "src")]}

    def __init__(self, module):
        super().__init__(module)
        self._changes = []

    def done_so_far(self):
        """Return the changes made before the one that failed."""
        return {"changes": self._changes} if self._changes and not self.check_mode else {}

    def run(self):
        if self.params["server_side_apply"] and not self.params["apply"]:
            raise KubeError("server_side_apply has no effect without apply=true")
        condition = Expression.of(self.params, "wait_for")
        objects = [
            self._checked(n, o) for n, o in enumerate(load_definitions(self.params["definition"], self.params["src"]))
        ]
        if self.params["state"] == "absent":
            if condition:
                raise KubeError("wait_for: applies only to objects that exist; remove it, or state=absent")
            done = self._absent(objects)
        else:
            done = self._present(objects)
            if condition and self.waits:
                done = [(name, self._awaited(condition, outcome)) for name, outcome in done]
        changed = [entry for entry in done if entry[1].changed]
        return {
            "changed": bool(changed),
            "resources": [_shown(outcome.after) for dummy, outcome in done if outcome.after is not None],
            "changes": ["%s %s" % (_verb(outcome), name) for name, outcome in changed],
            "diff": [
                {
                    "before_header": name,
                    "after_header": name,
                    "before": _merge.for_diff(_shown(outcome.before)),
                    "after": _merge.for_diff(_shown(outcome.after)),
                }
                for name, outcome in changed
            ],
        }

    def _checked(self, number, obj):
        obj = copy.deepcopy(obj)
        where = "definition, object %d" % (number + 1)
        for member in ("apiVersion", "kind"):
            if not isinstance(obj.get(member), str) or not obj[member]:
                example = "v1 or kubevirt.io/v1" if member == "apiVersion" else "VirtualMachine"
                actual = "is missing" if obj.get(member) is None else "isn't text: %r" % (obj[member],)
                raise KubeError("%s: %s %s. Give it, such as %s." % (where, member, actual, example))
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
            raise KubeError("%s (%s): metadata.name is missing" % (where, obj["kind"]))
        obj.pop("status", None)
        if self.params["state"] != "absent":
            _shape.check_shape(where, obj)
        return obj

    def _resource(self, obj):
        """Where the object lives; its namespace is filled in."""
        resource = _resources.find(self.client, obj["apiVersion"], obj["kind"])
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
            except _resources.UnknownKind as exc:
                if not self.check_mode:
                    raise
                self.module.warn("%s couldn't be checked by the server: %s" % (_resources.label(obj), exc))
                done.append((_resources.label(obj), Outcome(True, None, obj)))
                continue
            outcome = self._applied(resource, obj)
            self._note(_resources.label(outcome.after), outcome)
            if obj["kind"] in ("CustomResourceDefinition", "APIService"):
                unready.append((len(done), resource, outcome))
            done.append((_resources.label(outcome.after), outcome))
        return self._settled(unready, done)

    def _applied(self, resource, obj):
        metadata = obj["metadata"]
        where = (resource, metadata.get("namespace"), metadata.get("name"))
        if self.params["apply"]:
            if not metadata.get("name"):
                raise KubeError("%s: apply=true needs metadata.name" % _resources.label(obj))
            how = self.params["server_side_apply"] or {}
            manager = how.get("field_manager") or _server_side.FIELD_MANAGER
            return self.apply_server_side(*where, obj, manager, how.get("force_conflicts", False))
        exact = EXACT if obj["kind"] == "CustomResourceDefinition" else frozenset()
        return self.apply(*where, lambda live: obj, exact=exact)

    def _note(self, name, outcome):
        if outcome.changed:
            self._changes.append("%s %s" % (_verb(outcome), name))

    def _settled(self, unready, done):
        """Wait until the CRDs and APIServices are usable, and put them as they are then into done."""
        if not self.waits:
            return done
        done = list(done)
        for position, resource, outcome in unready:
            kind = "Established" if resource.kind == "CustomResourceDefinition" else "Available"
            metadata = outcome.after["metadata"]
            seen = self.wait_until(
                resource,
                metadata.get("namespace"),
                metadata["name"],
                lambda obj, kind=kind: _wait.is_true(obj, kind),
                kind.lower(),
            )
            done[position] = (done[position][0], outcome._replace(after=seen))
        return done

    def _awaited(self, condition, outcome):
        """Wait until an object meets a condition; return the outcome with the object as it is then."""
        obj = outcome.after
        resource = _resources.find(self.client, obj["apiVersion"], obj["kind"])
        metadata = obj["metadata"]
        seen = self.wait_until(
            resource,
            metadata.get("namespace"),
            metadata["name"],
            lambda live: live is not None and bool(condition.search(live, _resources.label(live))),
            "what wait_for asks for (%s)" % condition.text,
        )
        return outcome._replace(after=seen)

    def _absent(self, objects):
        done, gone = [], []
        for obj in reversed(objects):
            if not obj["metadata"].get("name"):
                raise KubeError("%s: state=absent needs metadata.name" % _resources.label(obj))
            try:
                resource = self._resource(obj)
            except _resources.UnknownKind:
                # No such kind, so no such object.
                continue
            where = (resource, obj["metadata"].get("namespace"), obj["metadata"]["name"])
            outcome = self.delete(*where, "Foreground" if obj["kind"] in WITH_PODS else "Background")
            self._note(_resources.label(obj), outcome)
            if outcome.before is not None:
                gone.append(where)
            done.append((_resources.label(obj), outcome))
        if self.waits:
            for where in gone:
                self.wait_until(*where, lambda obj: obj is None, "gone", explain=self._why_not_gone)
            done = [(name, outcome._replace(after=None)) for name, outcome in done]
        return done[::-1]

    def _why_not_gone(self, obj):
        troubles = _wait.reasons(obj) + self._on_silent_nodes(obj)
        return troubles, {"result": _shown(obj) or {}}

    def _on_silent_nodes(self, obj):
        """Return what to do where an object doesn't go because its Pods can't end: one sentence or none."""
        kind = (obj or {}).get("kind")
        if kind in WITH_PODS:
            namespace, selector = obj["metadata"].get("namespace"), _diagnosis.selector_of(obj)
        elif kind == "Namespace":
            namespace, selector = obj["metadata"]["name"], None
        else:
            return []
        pods = _diagnosis.pods_on_silent_nodes(self.client, namespace, selector)
        if not pods:
            return []
        named = ["%s on node %s" % (pod["metadata"]["name"], pod["spec"]["nodeName"]) for pod in pods[:SHOWN]]
        more = ", …" if len(pods) > SHOWN else ""
        return [
            "it is waiting for Pods on nodes that aren't Ready: %s%s. They end when the node is back, or when its Node "
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
main = MODULE.main


if __name__ == "__main__":
    main()
