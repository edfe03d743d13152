# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all modules share: arguments, running in or outside the controller's process, declarative apply and delete.

A module is a class with ARGUMENTS, RULES and run(), and `MODULE = TheClass` beside its main(). The action plugin finds
it by that name and runs it without a new Python process where that is possible.
"""

from __future__ import annotations

import os
from collections import namedtuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turtles.kubevirt.plugins.module_utils import merge, resources, server_side, wait
from ansible_collections.turtles.kubevirt.plugins.module_utils.client import (
    AUTH_ARGUMENTS,
    MERGE_PATCH,
    ApiError,
    KubeError,
    get_client,
    secrets_of,
)

try:
    import yaml
except ImportError:
    yaml = None  # part of the kubernetes package's requirements; get_client reports what is missing

ATTEMPTS = 5

# before and after are objects, or None where there is none.
Outcome = namedtuple("Outcome", "changed before after")


class KubeModule:
    """Base of the modules. `module` is an AnsibleModule or what the action plugin puts in its place."""

    ARGUMENTS = {}
    RULES = {}

    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.check_mode = module.check_mode
        self._client = None

    @classmethod
    def arguments(cls):
        """Keyword arguments of AnsibleModule for this module."""
        return {"argument_spec": {**cls.ARGUMENTS, **AUTH_ARGUMENTS}, "supports_check_mode": True, **cls.RULES}

    @property
    def client(self):
        if self._client is None:
            if isinstance(self.params.get("kubeconfig"), dict):
                self.module.no_log_values.update(secrets_of(self.params["kubeconfig"]))
            self._client = get_client(self.params)
        return self._client

    def run(self):
        """Does the work and gives the result's keys. Raises KubeError."""
        raise NotImplementedError

    def execute(self):
        """Runs and ends the module."""
        try:
            result = self.run()
            for warning in self._client.warnings() if self._client else ():
                self.module.warn("The API server warns: %s" % warning)
        except ApiError as exc:
            self.module.fail_json(msg="%s %s: %s" % (exc.method, exc.path, explain_error(exc)), **exc.facts)
        except KubeError as exc:
            self.module.fail_json(msg=str(exc), **exc.facts)
        self.module.exit_json(**result)

    # -- declarative apply ------------------------------------------------------------------------------------------

    def apply(self, resource, namespace, name, desired, exact=frozenset()):
        """Creates the object or patches what differs, and gives the Outcome with the object as it is afterwards.

        desired is a function from the live object (or None) to the declaration. In check mode the server does all of
        it except storing the result, so that defaults, validation and rights count as they will.
        """
        dry_run = {"dryRun": "All"} if self.check_mode else None
        for attempt in range(ATTEMPTS):
            live = self.client.get(resources.path(resource, namespace, name)) if name else None
            declaration = desired(live)
            try:
                if live is None:
                    return self._create(resource, namespace, declaration, dry_run)
                if (live.get("metadata") or {}).get("deletionTimestamp"):
                    if self.check_mode:
                        return Outcome(True, live, merge.overlay(None, desired(None)))
                    self._until_gone(resource, namespace, name, live)
                    continue
                patch = merge.merge_patch(live, merge.overlay(live, declaration, exact=exact))
                if not patch:
                    return Outcome(False, live, live)
                # Lists are replaced whole, so the patch is right only for the object it was computed from.
                patch.setdefault("metadata", {})["resourceVersion"] = live["metadata"].get("resourceVersion")
                after = self.client.request(
                    "PATCH", resources.path(resource, namespace, name), dry_run, patch, MERGE_PATCH
                )
                return Outcome(not merge.same(merge.for_diff(live), merge.for_diff(after)), live, after)
            except ApiError as exc:
                if exc.status == 409 and attempt < ATTEMPTS - 1:
                    continue
                raise self.refused(exc, resource, namespace, name) from exc
        raise KubeError("%s %s keeps changing while it is being patched" % (resource.kind, name))

    def apply_server_side(self, resource, namespace, name, declaration, manager, force=False):
        """Has the server apply the declaration (KEP-555), and gives the Outcome with the object as it is afterwards.

        What the manager applied before and the declaration has no more is removed. Fields that another manager owns
        and that differ are a KubeError which names both, unless force takes them over. Check mode is as in apply().
        """
        where = resources.path(resource, namespace, name)
        query = {"fieldManager": manager, "force": "true" if force else None}
        query["dryRun"] = "All" if self.check_mode else None
        body = merge.overlay(None, declaration)
        for attempt in range(ATTEMPTS):
            live = self.client.get(where)
            try:
                if live is not None and (live.get("metadata") or {}).get("deletionTimestamp"):
                    if self.check_mode:
                        return Outcome(True, live, body)
                    self._until_gone(resource, namespace, name, live)
                    continue
                adoption = server_side.adoption(live, manager) if live is not None and not self.check_mode else None
                if adoption:
                    self.client.request("PATCH", where, None, adoption, server_side.JSON_PATCH)
                after = self.client.request("PATCH", where, query, body, server_side.APPLY_PATCH)
                changed = live is None or not merge.same(merge.for_diff(live), merge.for_diff(after))
                return Outcome(changed, live, after)
            except ApiError as exc:
                lines = server_side.conflicts(exc.causes) if exc.status == 409 else []
                if lines:
                    raise KubeError(
                        "%s: other managers own what differs: %s. Leave these fields out of the definition, or set "
                        "server_side_apply.force_conflicts to take them over."
                        % (resources.label(body), "; ".join(lines)),
                        **exc.facts,
                    ) from exc
                if exc.status == 409 and attempt < ATTEMPTS - 1:
                    continue
                if self.check_mode and exc.status == 404 and live is None:
                    return self._unchecked(exc, body)
                raise self.refused(exc, resource, namespace, name) from exc
        raise KubeError("%s %s keeps changing while it is being applied" % (resource.kind, name))

    def _until_gone(self, resource, namespace, name, live):
        """Waits for the end of an object that is being deleted: what is declared takes its place then."""
        where = resources.label(live)
        if not self.params.get("wait"):
            raise KubeError(
                "%s is being deleted. Set wait=true to have it made anew when it is gone, or run the task again then."
                % where
            )
        timeout = self.params["wait_timeout"]
        uid = live["metadata"].get("uid")
        try:
            wait.until(
                self.client,
                resource,
                namespace,
                name,
                timeout,
                lambda obj: obj is None or obj["metadata"].get("uid") != uid,
            )
        except wait.GaveUp as exc:
            finalizers = ", ".join(((exc.obj or {}).get("metadata") or {}).get("finalizers") or ())
            raise KubeError(
                "%s is being deleted, and wasn't gone after %d seconds (wait_timeout)%s. It is made anew only then."
                % (where, timeout, "; it still has the finalizers %s" % finalizers if finalizers else ""),
                result=live,
            ) from exc

    def _create(self, resource, namespace, declaration, dry_run):
        body = merge.overlay(None, declaration)
        try:
            after = self.client.request("POST", resources.path(resource, namespace), dry_run, body)
        except ApiError as exc:
            if self.check_mode and exc.status == 404:
                return self._unchecked(exc, body)
            raise
        return Outcome(True, None, after)

    def _unchecked(self, exc, body):
        """What is said in check mode of an object that needs what an earlier task would make: a namespace, a CRD."""
        self.module.warn("%s couldn't be checked by the server: %s" % (resources.label(body), explain_error(exc)))
        return Outcome(True, None, body)

    def delete(self, resource, namespace, name, propagation="Background"):
        """Deletes the object; changed is False where there is none, or where its deletion is already under way."""
        url = resources.path(resource, namespace, name)
        live = self.client.get(url)
        if live is None or (live.get("metadata") or {}).get("deletionTimestamp"):
            return Outcome(False, live, live)
        if not self.check_mode:
            options = {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": propagation,
                "preconditions": {"uid": live["metadata"].get("uid")},
            }
            try:
                self.client.request("DELETE", url, body=options)
            except ApiError as exc:
                if exc.status != 404:
                    raise self.refused(exc, resource, namespace, name) from exc
        return Outcome(True, live, None)

    def refused(self, exc, resource, namespace, name):
        """The error to raise instead of exc: names the object, the fields, and what to do."""
        where = "%s/%s" % (namespace, name or "(generated name)") if resource.namespaced else name
        return KubeError("%s %s: %s" % (resource.kind, where, explain_error(exc)), **exc.facts)


def explain_error(exc):
    """What an ApiError means and what to do about it, in one or two sentences."""
    details = exc.details
    if exc.status == 404 and details.get("kind") == "namespaces":
        name = details.get("name")
        return "namespace %s doesn't exist. Create it first, for instance with turtles.kubevirt.manifest." % name
    if exc.status == 404 and not details.get("name"):
        return (
            "the API server doesn't serve this kind (%s). Install KubeVirt, or what else brings the kind, and check "
            "apiVersion." % exc.message
        )
    if exc.status == 403 and exc.reason == "Forbidden":
        return "%s. Give the user the right, for instance by the ClusterRole kubevirt.io:edit." % exc.message.rstrip(
            "."
        )
    missing = [c for c in exc.causes if c.get("message")]
    if missing:
        lines = []
        for cause in missing:
            field, message = cause.get("field"), cause["message"]
            lines.append("%s: %s" % (field, message) if field and field not in message else message)
        return "refused: %s" % "; ".join(lines)
    return exc.message


def load_definitions(definition, src):
    """The objects of the options definition (dict, list of dicts, or YAML text) and src (a file), as a list of dicts.

    Lists of kind List are opened. Raises KubeError naming the document that is wrong.
    """
    if src:
        try:
            with open(os.path.expanduser(src), encoding="utf-8") as stream:
                definition = stream.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise KubeError("src: %s can't be read: %s" % (src, exc)) from exc
    origin = "src %s" % src if src else "definition"
    found, pending = [], [definition]
    while pending:
        value = pending.pop(0)
        if value is None:
            continue
        if isinstance(value, str):
            pending[:0] = _parse(value, origin)
        elif isinstance(value, (list, tuple)):
            pending[:0] = list(value)
        elif (
            isinstance(value, dict)
            and str(value.get("kind", "")).endswith("List")
            and isinstance(value.get("items"), list)
        ):
            pending[:0] = value["items"]
        elif isinstance(value, dict):
            found.append(value)
        else:
            raise KubeError(
                "%s: expected Kubernetes objects, but found a %s: %r" % (origin, type(value).__name__, value)
            )
    return found


def _parse(text, origin):
    if yaml is None:
        raise KubeError("Reading YAML text needs the Python package PyYAML on the machine that runs the module.")
    try:
        # In the controller's process the text may be a tagged string, which libyaml's loader doesn't take for one.
        documents = list(yaml.load_all(str(text), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as exc:
        raise KubeError("%s isn't valid YAML: %s" % (origin, exc)) from exc
    for document in documents:
        if isinstance(document, str):
            raise KubeError("%s: expected Kubernetes objects, but found the text %r" % (origin, document[:80]))
    return documents


def run_module(cls):
    """The body of a module's main(): runs it as an ordinary Ansible module."""
    cls(AnsibleModule(**cls.arguments())).execute()
