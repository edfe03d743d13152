#!/usr/bin/python
# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module data_source."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_source
short_description: Name disks that others are copied from
version_added: 0.1.0
author:
  - turtles.kubevirt contributors (!UNKNOWN)
description:
  - Creates, changes or deletes a DataSource of the Containerized Data Importer's API (C(cdi.kubevirt.io/v1beta1)). A
    DataSource is a name for a disk, such as V(debian). DataVolumes that refer to it in C(sourceRef) are copies of that
    disk. The name can be given to a newer disk later; existing copies stay as they are.
  - Copying a disk to another namespace requires permission to create C(datavolumes/source) in the namespace of the
    disk.
  - Works with this collection's engine and with upstream's Containerized Data Importer.
options:
  state:
    description: Whether the DataSource should exist. Deleting it leaves the disk alone.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the DataSource.
    type: str
    required: true
  namespace:
    description: Namespace of the DataSource. Defaults to that of the kubeconfig's context, then V(default).
    type: str
  pvc:
    description: Name of the PersistentVolumeClaim with the disk. The claim of a DataVolume has the DataVolume's name.
    type: str
  snapshot:
    description: Name of the VolumeSnapshot with the disk.
    type: str
  data_source:
    description: Name of another DataSource in the same namespace, which must not refer to yet another one.
    type: str
  source_namespace:
    description: Namespace of O(pvc) or O(snapshot). Defaults to the DataSource's.
    type: str
  labels:
    description:
      - Labels of the DataSource. C(instancetype.kubevirt.io/default-instancetype) and
        C(instancetype.kubevirt.io/default-preference) name the instance type and the preference that suit the disk, for
        machines with C(inferFromVolume).
    type: dict
  annotations:
    description: Annotations of the DataSource.
    type: dict
extends_documentation_fragment:
  - turtles.kubevirt.auth
  - turtles.kubevirt.attributes
  - turtles.kubevirt.attributes.declares
  - turtles.kubevirt.hidden
  - turtles.kubevirt.library
  - turtles.kubevirt.wait
notes:
  - O(wait) waits until the disk is complete.
seealso:
  - module: turtles.kubevirt.data_source_info
  - module: turtles.kubevirt.data_volume
"""

EXAMPLES = r"""
- name: Import an image
  turtles.kubevirt.data_volume:
    name: debian-13
    namespace: images
    url: https://images.example.com/debian-13-amd64.qcow2
    size: 10Gi
    bind_immediately: true

- name: Give it the name by which it is used
  turtles.kubevirt.data_source:
    name: debian
    namespace: images
    pvc: debian-13
    labels:
      instancetype.kubevirt.io/default-preference: debian

- name: Let the machines of a namespace copy it
  turtles.kubevirt.manifest:
    definition:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: RoleBinding
      metadata: {name: shop-copies-images, namespace: images}
      roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "kubevirt.io:edit"}
      subjects:
        - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:serviceaccounts:shop"}

- name: Create a machine with a copy
  turtles.kubevirt.vm:
    name: web
    namespace: shop
    state: running
    memory: 2Gi
    disks:
      - {name: root, data_volume: web-root}
    data_volume_templates:
      - metadata: {name: web-root}
        spec:
          sourceRef: {kind: DataSource, name: debian, namespace: images}
          storage: {resources: {requests: {storage: 20Gi}}}
"""

RETURN = r"""
result:
  description: The DataSource as it is after the task; empty if there is none.
  returned: success
  type: dict
  sample:
    apiVersion: cdi.kubevirt.io/v1beta1
    kind: DataSource
    metadata: {name: debian, namespace: images}
    spec: {source: {pvc: {namespace: images, name: debian-13}}}
    status:
      source: {pvc: {namespace: images, name: debian-13}}
      conditions: [{type: Ready, status: "True", reason: Ready, message: DataSource is ready to be consumed}]
duration:
  description: Seconds the task took.
  returned: success
  type: float
  sample: 0.31
"""

from ..module_utils import _resources, _wait
from ..module_utils._errors import KubeError
from ..module_utils._resource_module import ResourceModule

# Options, and the fields of spec.source that they are.
SOURCES = {"pvc": "pvc", "snapshot": "snapshot", "data_source": "dataSource"}


class DataSource(ResourceModule):
    """A DataSource."""

    KIND = "DataSource"
    API_VERSION = "cdi.kubevirt.io/v1beta1"
    READY = "ready"
    # What it stood for before goes.
    EXACT = frozenset(("source",))
    ARGUMENTS = {
        "name": {"type": "str", "required": True},
        **{option: {"type": "str"} for option in (*SOURCES, "source_namespace")},
    }
    RULES = {"mutually_exclusive": [tuple(SOURCES), ("data_source", "source_namespace")]}

    def declare(self, live):
        source = self._source()
        if live is None and source is None:
            raise KubeError("pvc, snapshot, data_source: missing for a new DataSource. Name one disk.")
        return {"spec": {} if source is None else {"source": source}}

    def _source(self):
        option = next((each for each in SOURCES if self.params[each] is not None), None)
        if option is None:
            return None
        _resources.check_name(option, self.params[option])
        named = {"name": self.params[option]}
        if option != "data_source":
            named["namespace"] = self.params["source_namespace"] or self.namespace
        return {SOURCES[option]: named}

    def is_ready(self, obj):
        return _wait.condition(obj, "Ready").get("status") == "True"

    def explain(self, obj):
        message = _wait.condition(obj, "Ready").get("message")
        return [message] if message else [], {}


MODULE = DataSource
main = MODULE.main


if __name__ == "__main__":
    main()
