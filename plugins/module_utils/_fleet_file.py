# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file that declares a whole fleet: what may be in it, and which objects it means. Pure functions."""

from __future__ import annotations

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import _fleet_plan, _resources
from ._arguments import wrong_types
from ._client import KubeError
from ._fleet_task import FleetTask
from ._keys import check_keys
from ._values import described, plain

# Options of the module fleet that a file has under the same name, besides vms.
OPTIONS = ("namespace", "state", "labels", "wait_for", "forks", "rollout", "probe", "prune")
OF_TEMPLATE = ("template", "count", "items")
TOP = (*OPTIONS, "namespaces", "images", "vms", "services")
REFUSED = {
    "networks": "networks can't be declared in a fleet file. Leave it out, and create NetworkAttachmentDefinitions by "
    "turtles.kubevirt.manifest where the cluster serves them.",
}
NAMESPACE = {
    "name": {"type": "str", "required": True},
    "labels": {"type": "dict"},
    "annotations": {"type": "dict"},
    "quota": {"type": "dict"},
}
SERVICE = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str"},
    "labels": {"type": "dict"},
    "selector": {"type": "dict", "required": True},
    "type": {"type": "str", "choices": ["ClusterIP", "NodePort", "LoadBalancer"], "default": "ClusterIP"},
    "ports": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "port": {"type": "int", "required": True},
            "name": {"type": "str"},
            "target_port": {"type": "raw"},
            "node_port": {"type": "int"},
            "protocol": {"type": "str", "choices": ["TCP", "UDP", "SCTP"], "default": "TCP"},
        },
    },
}
QUOTA_NAME = "fleet"


def check(content):
    """Check the keys of a file's content, whose templates haven't been evaluated.

    :raises KubeError: naming place and nearest key.
    """
    check_keys("", content, TOP, REFUSED)
    for section in ("namespaces", "vms", "services"):
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
    for section, spec in (("namespaces", NAMESPACE), ("services", SERVICE)):
        for number, entry in _entries(content, section):
            if section == "namespaces" and isinstance(entry, str):
                continue
            place = "%s[%d]" % (section, number)
            check_keys(place, entry, spec)
            for position, port in _entries(entry, "ports"):
                check_keys("%s.ports[%d]" % (place, position), port, SERVICE["ports"]["options"])
    for option in ("rollout", "probe", "prune"):
        if isinstance(content.get(option), dict):
            check_keys(option, content[option], FleetTask.ARGUMENTS[option]["options"])


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
    found = []
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
        found.append(vm)
    return found


def objects(content):
    """Return the Namespaces, ResourceQuotas and Services of a file whose templates have been evaluated.

    :raises KubeError: naming the place of what is wrong.
    """
    found, quotas = [], []
    for number, entry in enumerate(content.get("namespaces") or []):
        entry = {"name": entry} if isinstance(entry, str) else entry
        place = "namespaces[%d]" % number
        values = _validated(place, entry, NAMESPACE)
        _resources.check_name("%s.name" % place, values["name"])
        metadata = {key: values[key] for key in ("name", "labels", "annotations") if values[key] is not None}
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        if values["quota"]:
            quotas.append(
                {
                    "apiVersion": "v1",
                    "kind": "ResourceQuota",
                    "metadata": {"name": QUOTA_NAME, "namespace": values["name"]},
                    "spec": {"hard": {str(name): str(amount) for name, amount in plain(values["quota"]).items()}},
                }
            )
    return found + quotas + [_service(number, entry, content) for number, entry in _entries(content, "services")]


def _service(number, entry, content):
    place = "services[%d]" % number
    values = _validated(place, entry, SERVICE)
    _resources.check_name("%s.name" % place, values["name"])
    metadata = {"name": values["name"], "namespace": values["namespace"] or content.get("namespace")}
    if values["labels"]:
        metadata["labels"] = plain(values["labels"])
    keys = {
        "port": "port",
        "name": "name",
        "target_port": "targetPort",
        "node_port": "nodePort",
        "protocol": "protocol",
    }
    ports = [
        {field: plain(port[key]) for key, field in keys.items() if port[key] is not None} for port in values["ports"]
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {key: value for key, value in metadata.items() if value},
        "spec": {"type": values["type"], "selector": plain(values["selector"]), "ports": ports},
    }


def _validated(place, entry, spec):
    if not isinstance(entry, dict):
        raise KubeError("%s: must be a mapping, but is %s." % (place, described(entry)))
    mistake = wrong_types(spec, {name: value for name, value in entry.items() if value is not None}, place + ".")
    if mistake:
        raise KubeError(mistake)
    validated = ArgumentSpecValidator(spec).validate(entry)
    if validated.error_messages:
        raise KubeError("%s: %s" % (place, "; ".join(validated.error_messages)))
    return validated.validated_parameters
