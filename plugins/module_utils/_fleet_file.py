# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file that declares a whole fleet: what may be in it, and which objects it means. Pure functions."""

from __future__ import annotations

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import _fleet_plan, _metadata, _network_config, _resources, _service_spec
from ._arguments import wrong_types
from ._errors import KubeError
from ._fleet_task import FleetTask
from ._keys import check_keys
from ._values import described, plain

# Options of the module fleet that a file has under the same name, besides vms.
OPTIONS = ("namespace", "state", "labels", "wait_for", "forks", "rollout", "probe", "prune")
OF_TEMPLATE = ("template", "count", "items")
TOP = (*OPTIONS, "namespaces", "images", "networks", "vms", "services")
NAMESPACE = {
    "name": {"type": "str", "required": True},
    **_metadata.ARGUMENTS,
    "quota": {"type": "dict"},
}
_OBJECT = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str"},
    **_metadata.ARGUMENTS,
}
NETWORK = {**_OBJECT, **_network_config.ARGUMENTS}
SERVICE = {**_OBJECT, **_service_spec.ARGUMENTS}
QUOTA_NAME = "fleet"


def check(content):
    """Check the keys of a file's content, whose templates haven't been evaluated.

    :raises KubeError: naming place and nearest key.
    """
    check_keys("", content, TOP)
    for section in ("namespaces", "networks", "vms", "services"):
        entries = content.get(section)
        if entries is not None and not isinstance(entries, (list, str)):
            raise KubeError("%s: must be a list, but is %s." % (section, described(entries)))
    known = {*_fleet_plan.machine_arguments()["argument_spec"]}
    for number, entry in _entries(content, "vms"):
        place = "vms[%d]" % number
        if isinstance(entry, dict) and "template" in entry:
            check_keys(place, entry, OF_TEMPLATE)
            if isinstance(entry["template"], dict):
                check_keys("%s.template" % place, entry["template"], known)
        else:
            check_keys(place, entry, {*known, "template"})
    for section, spec in (("namespaces", NAMESPACE), ("networks", NETWORK), ("services", SERVICE)):
        for number, entry in _entries(content, section):
            if section == "namespaces" and isinstance(entry, str):
                continue
            _check_options("%s[%d]" % (section, number), entry, spec)
    for option in ("rollout", "probe", "prune"):
        if isinstance(content.get(option), dict):
            check_keys(option, content[option], FleetTask.ARGUMENTS[option]["options"])


def _check_options(place, entry, spec):
    """Check the keys of an entry that has the options of a module, and of what is in it."""
    check_keys(place, entry, spec)
    for option, value in entry.items():
        inner = spec[option].get("options")
        if inner is None or value is None:
            continue
        if spec[option]["type"] == "dict":
            _check_options("%s.%s" % (place, option), value, inner)
        else:
            for position, each in _entries(entry, option):
                _check_options("%s.%s[%d]" % (place, option, position), each, inner)


def _entries(content, section):
    entries = content.get(section)
    return list(enumerate(entries)) if isinstance(entries, list) else []


def with_images(vms, images):
    """Return machines whose images are those that the names in the file stand for.

    :raises KubeError: images isn't a mapping from names to text.
    """
    images = {} if images is None else images
    if not isinstance(images, dict):
        raise KubeError("images: must be a mapping of names to images, but is %s." % described(images))
    for name, image in images.items():
        if not isinstance(image, str):
            raise KubeError("images.%s: must be text, but is %s." % (name, described(image)))
    machines = []
    for vm in vms:
        vm = dict(vm)
        if isinstance(vm.get("image"), str):
            vm["image"] = images.get(vm["image"], vm["image"])
        if isinstance(vm.get("disks"), list):
            vm["disks"] = [
                {**disk, "image": images.get(disk["image"], disk["image"])}
                if isinstance(disk, dict) and isinstance(disk.get("image"), str)
                else disk
                for disk in vm["disks"]
            ]
        machines.append(vm)
    return machines


def objects(content):
    """Return the Namespaces, ResourceQuotas, networks and Services of a file whose templates have been evaluated.

    :raises KubeError: naming the place of what is wrong.
    """
    namespaces, quotas = [], []
    for number, entry in enumerate(content.get("namespaces") or []):
        entry = {"name": entry} if isinstance(entry, str) else entry
        place = "namespaces[%d]" % number
        values = _validated(place, entry, NAMESPACE)
        _resources.check_name("%s.name" % place, values["name"])
        metadata = {key: values[key] for key in ("name", "labels", "annotations") if values[key] is not None}
        namespaces.append({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        if values["quota"]:
            quotas.append(
                {
                    "apiVersion": "v1",
                    "kind": "ResourceQuota",
                    "metadata": {"name": QUOTA_NAME, "namespace": values["name"]},
                    "spec": {"hard": {str(name): str(amount) for name, amount in plain(values["quota"]).items()}},
                }
            )
    declared = [
        _object(section, number, entry, content)
        for section in _SECTIONS
        for number, entry in _entries(content, section)
    ]
    return namespaces + quotas + declared


def _network(values):
    config = _network_config.config_of(values, values["name"])
    if config is None:
        raise KubeError("config: missing. Give it, or a type: one of %s." % ", ".join(_network_config.TYPES))
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "spec": {"config": _network_config.text_of(config, None)},
    }


def _service(values):
    selector = _metadata.texts_of(values, "selector")
    if values["vm"] is not None:
        _resources.check_name("vm", values["vm"])
        selector = _service_spec.selector_of(values["vm"], {})
    # A type that is taken out of the file is the default again.
    values = {**values, "type": values["type"] or "ClusterIP"}
    return {"apiVersion": "v1", "kind": "Service", "spec": _service_spec.spec_of(values, selector, None)}


# Sections whose entries have the options of a module: these, which exclude each other, and what makes the object.
_SECTIONS = {
    "networks": (NETWORK, _network_config.RULES, _network),
    "services": (SERVICE, _service_spec.RULES, _service),
}


def _object(section, number, entry, content):
    spec, rules, make = _SECTIONS[section]
    place = "%s[%d]" % (section, number)
    values = _validated(place, entry, spec, rules)
    try:
        _resources.check_name("name", values["name"])
        made = make(values)
        texts = _metadata.declared(values)
    except KubeError as exc:
        raise KubeError("%s.%s" % (place, exc)) from exc
    metadata = {"name": values["name"], "namespace": values["namespace"] or content.get("namespace"), **texts}
    return {**made, "metadata": {key: value for key, value in metadata.items() if value}}


def _validated(place, entry, spec, rules=None):
    if not isinstance(entry, dict):
        raise KubeError("%s: must be a mapping, but is %s." % (place, described(entry)))
    mistake = wrong_types(spec, {name: value for name, value in entry.items() if value is not None}, place + ".")
    if mistake:
        raise KubeError(mistake)
    validated = ArgumentSpecValidator(spec, **(rules or {})).validate(entry)
    if validated.error_messages:
        raise KubeError("%s: %s" % (place, "; ".join(validated.error_messages)))
    return validated.validated_parameters
