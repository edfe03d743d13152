# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one declaration of a VirtualMachine that a task gives in parts: manifest, spec, and options such as memory."""

from __future__ import annotations

import copy

from . import _merge, _resources, _shape, _vm_spec
from ._definitions import DEFINITION_ARGUMENTS, load_definitions, origin_of
from ._errors import KubeError
from ._values import described, plain
from ._vm_strategy import drop_strategy, strategy_of

API_VERSIONS = ["kubevirt.io/v1", "kubevirt.io/v1alpha3"]
DECLARATION_ARGUMENTS = {
    **DEFINITION_ARGUMENTS,
    "api_version": {"type": "str", "choices": API_VERSIONS},
    "spec": {"type": "dict"},
    "generate_name": {"type": "str"},
    **_vm_spec.ARGUMENTS,
}
# States that need a machine that is there already, or a name that is known beforehand.
_OF_EXISTING = ("stopped", "restarted", "absent")


def declaration(params):
    """Return the VirtualMachine that the options declare, with apiVersion, kind, metadata and spec.

    Of what contradicts, options count more than spec, and spec more than the definition.

    :raises KubeError: naming the option or the field that is wrong.
    """
    manifest = _manifest(params)
    api_version = _api_version(params, manifest)
    own_spec = plain(params["spec"]) or {}
    if params["state"] != "absent":
        _check_own_spec(own_spec)
    for source, spec in (("definition.spec", manifest["spec"]), ("spec", own_spec)):
        if spec.get("running") is not None and spec.get("runStrategy") is not None:
            raise KubeError(
                "%s: running and runStrategy can't be combined. Leave out running, the older of them." % source
            )
    if strategy_of(own_spec):
        # They are two forms of one declaration, of which spec has the last word.
        drop_strategy(manifest["spec"])
    combined = _merge.combine(
        {"metadata": manifest["metadata"], "spec": manifest["spec"]}, {"spec": own_spec}, _vm_spec.declare(params)
    )
    combined.update(apiVersion=api_version, kind="VirtualMachine")
    _identify(params, combined["metadata"])
    _check_strategy(params, combined["spec"])
    return combined


def _manifest(params):
    """Return metadata and spec of the option definition or src."""
    manifests = load_definitions(params["definition"], params["src"])
    if len(manifests) > 1:
        raise KubeError(
            "definition has %d objects, but this module manages one VirtualMachine. Use turtles.kubevirt.manifest, "
            "or a loop." % len(manifests)
        )
    manifest = copy.deepcopy(manifests[0]) if manifests else {}
    kind = manifest.get("kind", "VirtualMachine")
    if kind != "VirtualMachine":
        raise KubeError(
            "definition.kind: %r isn't VirtualMachine. Use turtles.kubevirt.manifest for other kinds." % (kind,)
        )
    for member in ("metadata", "spec"):
        manifest[member] = manifest.get(member) or {}
        if not isinstance(manifest[member], dict):
            raise KubeError("definition.%s: must be a mapping, but is %s" % (member, described(manifest[member])))
    if params["state"] != "absent":
        _shape.check_shape(origin_of(params["src"]), manifest, "VirtualMachine")
    return manifest


def _check_own_spec(spec):
    if isinstance(spec.get("spec"), dict) and ("kind" in spec or "apiVersion" in spec):
        raise KubeError("spec: is a whole manifest. Give it as definition, or give only what is below its spec.")
    _shape.check_spec_is_of_machine(spec)
    _shape.check_shape("option spec", {"spec": spec}, "VirtualMachine")


def _api_version(params, manifest):
    api_version = params["api_version"] or manifest.get("apiVersion") or API_VERSIONS[0]
    if not _resources.known(api_version, "VirtualMachine"):
        raise KubeError(
            "definition.apiVersion: %r has no VirtualMachine. Use %s." % (api_version, " or ".join(API_VERSIONS))
        )
    return api_version


def _identify(params, metadata):
    for option in ("name", "namespace"):
        option_value, named = params[option], metadata.get(option)
        if option_value and named and option_value != named:
            raise KubeError(
                "%s: %r contradicts metadata.%s %r of the definition" % (option, option_value, option, named)
            )
        if option_value:
            metadata[option] = option_value
        if metadata.get(option):
            _resources.check_name(option, metadata[option])
    if params["generate_name"]:
        if params["state"] in _OF_EXISTING:
            raise KubeError(
                "generate_name: creates a new machine, but state=%s is for an existing one. Give its name."
                % params["state"]
            )
        if metadata.get("name"):
            raise KubeError("generate_name: contradicts the name %r. Leave one of them out." % metadata["name"])
        metadata["generateName"] = params["generate_name"]
    if metadata.get("generateName") and not metadata.get("name"):
        _resources.check_prefix("generate_name", metadata["generateName"])
    generated = metadata.get("generateName") and params["state"] not in _OF_EXISTING
    if not metadata.get("name") and not generated:
        raise KubeError("name: missing. Give the option name or generate_name, or metadata.name in the definition.")


def _check_strategy(params, spec):
    if spec.get("running") is not None and not isinstance(spec["running"], bool):
        raise KubeError("spec.running: %r isn't true or false" % (spec["running"],))
    state, strategy, running = params["state"], params["run_strategy"], params["running"]
    option = "run_strategy=%s" % strategy
    if running is not None:
        strategy, option = strategy_of({"running": running}), "running=%s" % str(running).lower()
    if strategy:
        spec.pop("running", None)
    if (state == "running" and strategy == "Halted") or (state == "stopped" and strategy in ("Always", "Once")):
        raise KubeError("%s contradicts state=%s. Leave one of them out." % (option, state))
