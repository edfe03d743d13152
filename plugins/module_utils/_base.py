# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules share: arguments, running in or outside the controller's process, declarative writes, waiting.

A module is a class with ARGUMENTS, RULES and run(); its file ends with `MODULE = TheClass` and `main = MODULE.main`. An
action plugin finds the class by that name and runs it without a new Python process where that is possible. A module for
one object of one kind is a ResourceModule (`_resource_module.py`).
"""

from __future__ import annotations

import time
from collections import namedtuple

from ansible.module_utils.basic import AnsibleModule

from . import _merge, _resources, _server_side, _wait
from ._auth import AUTH_ARGUMENTS, secrets_of
from ._client import MERGE_PATCH, get_client
from ._errors import ApiError, KubeError, explain_error

WAIT_ARGUMENTS = {
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 300},
}
_ATTEMPTS = 5

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
        # Whether something has been written: a task that fails afterwards has changed it all the same.
        self.changed = False
        self.began = time.monotonic()
        self._client = None
        self._deadline = None

    @classmethod
    def arguments(cls):
        """Return the keyword arguments of AnsibleModule for this module."""
        return {"argument_spec": {**cls.ARGUMENTS, **AUTH_ARGUMENTS}, "supports_check_mode": True, **cls.RULES}

    @classmethod
    def main(cls):
        """Run as an ordinary Ansible module."""
        cls(AnsibleModule(**cls.arguments())).execute()

    @property
    def client(self):
        """Return the connection to the API server; it is made when it is first needed."""
        if self._client is None:
            if isinstance(self.params.get("kubeconfig"), dict):
                self.module.no_log_values.update(secrets_of(self.params["kubeconfig"]))
            self._client = get_client(self.params)
        return self._client

    @property
    def deadline(self):
        """Return the Deadline that wait_timeout sets for everything the task waits for."""
        if self._deadline is None:
            self._deadline = _wait.Deadline(self.params["wait_timeout"])
        return self._deadline

    @property
    def waits(self):
        """Return whether the task waits for the state it declares."""
        return self.params["wait"] and not self.check_mode

    def namespace_given(self):
        """Return the namespace that the task is about: the option's, else the kubeconfig context's.

        :raises KubeError: it can't be a namespace's name.
        """
        namespace = self.params["namespace"] or self.client.default_namespace
        _resources.check_name("namespace", namespace)
        return namespace

    def run(self):
        """Do the work and return the result's keys.

        :raises KubeError: with a message for users.
        """
        raise NotImplementedError

    def execute(self):
        """Run, and end the module."""
        try:
            if "wait_timeout" in self.params:
                self._deadline = _wait.Deadline(self.params["wait_timeout"])
            result = self.run()
            self._warn()
        except ApiError as exc:
            self._fail("%s: %s" % (_resources.name_in(exc.path), explain_error(exc)), exc.facts)
        except KubeError as exc:
            self._fail(str(exc), exc.facts)
        self.module.exit_json(**result)

    def _warn(self):
        """Pass on the API server's warnings. Those about what it refuses say what to write instead."""
        for warning in self._client.warnings() if self._client else ():
            self.module.warn("The API server warns: %s" % warning)

    def _fail(self, message, facts):
        self._warn()
        self.module.fail_json(msg=message, **{"changed": self.changed, **self.done_so_far(), **facts})

    def done_so_far(self):
        """Return keys for the result of a task that fails: what it did before."""
        return {}

    # -- declarative writes -----------------------------------------------------------------------------------------

    def live(self, resource, namespace, name, again=False):
        """Return the object that is to change, or None.

        :param again: what was returned before turned out to be outdated.
        """
        try:
            return self.client.get(_resources.path(resource, namespace, name))
        except ApiError as exc:
            raise self.refused(exc, resource, namespace, name) from exc

    def apply(self, resource, namespace, name, desired, exact=frozenset()):
        """Create the object, or patch what differs, and return the Outcome with the object as it is afterwards.

        In check mode the server does all of it except storing the result, so that defaults, validation and rights
        count as they will.

        :param desired: a function from the live object (or None) to the declaration.
        :param exact: keys whose values replace the live ones whole.
        """
        dry_run = {"dryRun": "All"} if self.check_mode else None
        for attempt in range(_ATTEMPTS):
            live = self.live(resource, namespace, name, again=attempt > 0) if name else None
            declaration = desired(live)
            try:
                if live is None:
                    return self._create(resource, namespace, declaration, dry_run)
                if (live.get("metadata") or {}).get("deletionTimestamp"):
                    if self.check_mode:
                        return Outcome(True, live, _merge.overlay(None, desired(None)))
                    self._until_gone(resource, namespace, name, live)
                    continue
                patch = difference(live, declaration, exact)
                if not patch:
                    return Outcome(False, live, live)
                # Lists are replaced whole, so the patch is right only for the object it was computed from.
                patch.setdefault("metadata", {})["resourceVersion"] = live["metadata"].get("resourceVersion")
                after = self.client.request(
                    "PATCH", _resources.path(resource, namespace, name), dry_run, patch, MERGE_PATCH
                )
                return self._done(live, after)
            except ApiError as exc:
                if exc.status == 409 and attempt < _ATTEMPTS - 1:
                    continue
                raise self.refused(exc, resource, namespace, name) from exc
        raise KubeError("%s %s keeps changing during the update" % (resource.kind, name))

    def apply_server_side(self, resource, namespace, name, declaration, manager, force=False):
        """Have the server apply the declaration (KEP-555), and return the Outcome with the object as it is afterwards.

        What the manager applied before and the declaration has no more is removed. Check mode is as in apply().

        :raises KubeError: fields that another manager owns differ; names both, unless force takes them over.
        """
        where = _resources.path(resource, namespace, name)
        query = {"fieldManager": manager, "force": "true" if force else None}
        query["dryRun"] = "All" if self.check_mode else None
        body = _merge.overlay(None, declaration)
        for attempt in range(_ATTEMPTS):
            live = KubeModule.live(self, resource, namespace, name)
            try:
                if live is not None and (live.get("metadata") or {}).get("deletionTimestamp"):
                    if self.check_mode:
                        return Outcome(True, live, body)
                    self._until_gone(resource, namespace, name, live)
                    continue
                adoption = _server_side.adoption(live, manager) if live is not None and not self.check_mode else None
                if adoption:
                    self.client.request("PATCH", where, None, adoption, _server_side.JSON_PATCH)
                    self.changed = True
                after = self.client.request("PATCH", where, query, body, _server_side.APPLY_PATCH)
                return self._done(live, after)
            except ApiError as exc:
                lines = _server_side.conflicts(exc.causes) if exc.status == 409 else []
                if lines:
                    raise KubeError(
                        "%s: other managers own what differs: %s. Leave these fields out of the definition, or set "
                        "server_side_apply.force_conflicts to take them over."
                        % (_resources.label(body), "; ".join(lines)),
                        **exc.facts,
                    ) from exc
                if exc.status == 409 and attempt < _ATTEMPTS - 1:
                    continue
                if self.check_mode and exc.status == 404 and live is None:
                    return self._unchecked(exc, body)
                raise self.refused(exc, resource, namespace, name) from exc
        raise KubeError("%s %s keeps changing during the apply" % (resource.kind, name))

    def delete(self, resource, namespace, name, propagation="Background", preconditions=None):
        """Delete the object; changed is False where there is none, or where its deletion is already under way.

        :param preconditions: uid and resourceVersion that the object has to have; its uid counts anyway.
        """
        url = _resources.path(resource, namespace, name)
        live = self.live(resource, namespace, name)
        if live is None or (live.get("metadata") or {}).get("deletionTimestamp"):
            return Outcome(False, live, live)
        if not self.check_mode:
            options = {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": propagation,
                "preconditions": {"uid": live["metadata"].get("uid"), **(preconditions or {})},
            }
            try:
                self.client.request("DELETE", url, body=options)
                self.changed = True
            except ApiError as exc:
                if exc.status != 404:
                    raise self.refused(exc, resource, namespace, name) from exc
        return Outcome(True, live, None)

    def refused(self, exc, resource, namespace, name):
        """Return the error to raise instead of exc: it names the object, the fields, and what to do."""
        where = _resources.name_of(resource, namespace, name or "(generated name)")
        return KubeError("%s: %s" % (where, explain_error(exc)), **exc.facts)

    def _create(self, resource, namespace, declaration, dry_run):
        body = _merge.overlay(None, declaration)
        try:
            after = self.client.request("POST", _resources.path(resource, namespace), dry_run, body)
        except ApiError as exc:
            if self.check_mode and (exc.status == 404 or _is_about_others(exc)):
                return self._unchecked(exc, body)
            raise
        return self._done(None, after)

    def _done(self, before, after):
        """Return the Outcome of a write."""
        changed = before is None or not _merge.same(_merge.for_diff(before), _merge.for_diff(after))
        self.changed = self.changed or (changed and not self.check_mode)
        return Outcome(changed, before, after)

    def _unchecked(self, exc, body):
        """Return the Outcome, in check mode, for an object that needs what an earlier task would make."""
        self.module.warn("%s couldn't be checked by the server: %s" % (_resources.label(body), explain_error(exc)))
        return Outcome(True, None, body)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def wait_until(self, resource, namespace, name, done, goal, hopeless=None, explain=None):
        """Watch one object until done(object or None) is true, and return it.

        :param goal: what the object is then, for the message.
        :param hopeless: function from the object to {reason: grace in seconds} of states that won't get better.
        :param explain: function from the object as it was last seen to sentences about what is missing, and to facts
            for the result. Without, its conditions and finalizers say it.
        :raises KubeError: it won't come, or didn't within wait_timeout.
        """
        try:
            return self.watch_until(resource, namespace, name, self.deadline.left(), done, hopeless)
        except _wait.GaveUp as exc:
            raise self.gave_up(exc, _resources.name_of(resource, namespace, name), goal, explain) from exc

    def watch_until(self, resource, namespace, name, timeout, done, hopeless=None):
        """Watch one object; as _wait.until()."""
        return _wait.until(self.client, resource, namespace, name, timeout, done, hopeless)

    def gave_up(self, exc, where, goal, explain=None):
        """Return the KubeError that says of a wait.GaveUp what didn't become what, and why."""
        troubles, facts = explain(exc.obj) if explain else (_wait.reasons(exc.obj), {})
        why = ": %s" % exc.why if exc.why else " within %d seconds (wait_timeout)" % self.deadline.seconds
        sentences = "; ".join(text.rstrip(".") for text in troubles)
        return KubeError(
            "%s isn't %s%s.%s" % (where, goal, why.rstrip("."), " %s." % sentences if sentences else ""),
            **{"result": exc.obj or {}, **facts},
        )

    def _until_gone(self, resource, namespace, name, live):
        """Wait for the end of an object that is being deleted; what is declared then takes its place."""
        if not self.params.get("wait"):
            raise KubeError(
                "%s is being deleted. Set wait=true to recreate it once it is gone, or run the task again "
                "then." % _resources.label(live)
            )
        uid = live["metadata"].get("uid")
        self.wait_until(
            resource,
            namespace,
            name,
            lambda obj: obj is None or obj["metadata"].get("uid") != uid,
            "gone, though it is being deleted; it can only be recreated after that",
        )


def _is_about_others(exc):
    """Return whether a server refuses an object for nothing but other objects that it names and that don't exist."""
    return bool(exc.causes) and all(cause.get("reason") == "FieldValueNotFound" for cause in exc.causes)


def difference(live, declaration, exact=frozenset()):
    """Return the merge patch that brings the live object in line with a declaration; {} if it is already."""
    return _merge.merge_patch(live, _merge.overlay(live, declaration, exact=exact))
