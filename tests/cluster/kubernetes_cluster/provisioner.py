# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""provisioner.py KUBECONFIG DIRECTORY: volumes for the claims of a cluster's default StorageClass, until it is ended.

A volume is a folder on the node that the scheduler chose for the claim's Pod, below DIRECTORY/<node>/var as the host
sees it. It goes with its claim. There are no limits of size, and no volumes of mode Block.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import urllib3
from kubernetes import client, config, watch

NAME = "local.turtles.test"
#: On nodes.
FOLDER = PurePosixPath("/var/lib/volumes")
CLASS = {
    "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": NAME,
    "volumeBindingMode": "WaitForFirstConsumer",
    "reclaimPolicy": "Delete",
}
_NODE = "volume.kubernetes.io/selected-node"


class Provisioner:
    """Makes and removes volumes."""

    def __init__(self, core: client.CoreV1Api, directory: Path) -> None:
        self._core = core
        self._directory = directory

    def run(self) -> None:
        """Follow claims and volumes for ever."""
        other = threading.Thread(target=self._follow, args=(self._core.list_persistent_volume, self._reclaim))
        other.start()
        self._follow(self._core.list_persistent_volume_claim_for_all_namespaces, self._provision)

    def _follow(self, list_: Callable[..., Any], act: Callable[[Any], None]) -> None:
        while True:
            try:
                for event in watch.Watch().stream(list_, timeout_seconds=600):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        act(event["object"])
            except (client.ApiException, urllib3.exceptions.HTTPError) as error:
                # The API server was restarted, a claim is gone: from the beginning.
                print(error, file=sys.stderr, flush=True)

    def _provision(self, claim: client.V1PersistentVolumeClaim) -> None:
        node = (claim.metadata.annotations or {}).get(_NODE)
        spec = claim.spec
        if spec.storage_class_name != CLASS["metadata"]["name"] or spec.volume_name or not node:
            return
        if spec.volume_mode == "Block":
            print(f"{claim.metadata.name}: no volumes of mode Block", file=sys.stderr, flush=True)
            return
        name = f"pvc-{claim.metadata.uid}"
        folder = self._folder(node, name)
        folder.mkdir(parents=True, exist_ok=True)
        # Whoever the Pod runs as.
        folder.chmod(0o777)
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
        }
        volume = {
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": NAME}},
            "spec": {
                "accessModes": spec.access_modes,
                "capacity": {"storage": spec.resources.requests["storage"]},
                "claimRef": reference,
                "hostPath": {"path": str(FOLDER / name), "type": "Directory"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": spec.storage_class_name,
            },
        }
        try:
            self._core.create_persistent_volume(volume)
        except client.ApiException as error:
            if error.status != 409:
                raise

    def _reclaim(self, volume: client.V1PersistentVolume) -> None:
        made_by = (volume.metadata.annotations or {}).get("pv.kubernetes.io/provisioned-by")
        if made_by != NAME or volume.status.phase != "Released":
            return
        (term,) = volume.spec.node_affinity.required.node_selector_terms
        shutil.rmtree(self._folder(term.match_expressions[0].values[0], volume.metadata.name), ignore_errors=True)
        self._core.delete_persistent_volume(volume.metadata.name)

    def _folder(self, node: str, name: str) -> Path:
        return self._directory / node / (FOLDER / name).relative_to("/")


def main() -> None:
    """Run with what the command line says."""
    kubeconfig, directory = sys.argv[1:]
    api = config.new_client_from_config(kubeconfig)
    Provisioner(client.CoreV1Api(api), Path(directory)).run()


if __name__ == "__main__":
    main()
