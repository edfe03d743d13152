# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Kubernetes API as plain dicts: objects, lists, watches, discovery."""

from __future__ import annotations

import json
import os
import time

from ansible.module_utils.common.text.converters import to_text

from ._auth import AUTH_ARGUMENTS
from ._configuration import default_namespace
from ._errors import ApiError
from ._transport import Transport

MERGE_PATCH = "application/merge-patch+json"
PAGE_SIZE = 1000
# Seconds after which is looked again where the user may list, but not watch.
UNWATCHED = 2


class Client(Transport):
    """One API server as seen by one user."""

    def __init__(self, options):
        super().__init__(options)
        self._discovered = {}

    @property
    def default_namespace(self):
        """Return the namespace of the kubeconfig's context, or "default"."""
        return default_namespace(self._options, self._configuration)

    def get(self, path):
        """Return the object at path, or None where there is none."""
        try:
            return self.request("GET", path)
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise

    def list(self, path, label_selector=None, field_selector=None, keep=None):
        """Return all items of a collection, with apiVersion and kind, and the resourceVersion to watch from.

        :param keep: a function from an item to what is returned of it, called page by page: of a large collection,
            only what is kept takes memory.
        """
        items, token, restarted = [], None, False
        while True:
            query = {"labelSelector": label_selector or None, "fieldSelector": field_selector or None}
            query.update({"limit": PAGE_SIZE, "continue": token})
            try:
                page = self.request("GET", path, query) or {}
            except ApiError as exc:
                if exc.status == 410 and token and not restarted:
                    # The list changed too much meanwhile and the server forgot where the pages stood.
                    items, token, restarted = [], None, True
                    continue
                raise
            kind = (page.get("kind") or "").removesuffix("List") if page.get("kind") != "List" else None
            for item in page.get("items") or []:
                if kind:
                    item.setdefault("apiVersion", page.get("apiVersion"))
                    item.setdefault("kind", kind)
                items.append(keep(item) if keep else item)
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return items, metadata.get("resourceVersion")

    def watch(self, path, resource_version, timeout, field_selector=None, label_selector=None, opened=None):
        """Yield (type, object) until the server or the timeout (seconds) ends the watch.

        The caller lists again afterwards: the end of a watch says nothing about the state. For a user who isn't allowed
        to watch, it ends after UNWATCHED seconds.

        :param opened: called with the response, so that another thread can end the watch by its shutdown().
        """
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "fieldSelector": field_selector or None,
            "labelSelector": label_selector or None,
            "timeoutSeconds": max(1, int(timeout)),
        }
        try:
            yield from self.events(path, query, timeout, opened)
        except ApiError as exc:
            if exc.status != 403 or " watch " not in exc.message:
                raise
            time.sleep(min(timeout, UNWATCHED))

    def discover(self, api_version, fresh=False):
        """Return the resources of one group and version as the server lists them; ask once, unless fresh."""
        if fresh or api_version not in self._discovered:
            prefix = "/apis/" if "/" in api_version else "/api/"
            listing = self.get(prefix + api_version)
            self._discovered[api_version] = (listing or {}).get("resources") or []
        return self._discovered[api_version]


_CLIENTS = {}
# Seconds in which a file may change again without its times showing it: those of the kernel's clock, with room; and
# where a filesystem keeps whole seconds only.
TICK, COARSE_TICK = 0.1, 2.0


def get_client(options):
    """Return a client for these auth options; the same within a process, so that loop items share connections."""
    auth = {name: options.get(name) for name in AUTH_ARGUMENTS if options.get(name) is not None}
    paths = auth.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
    stamps = []
    for path in paths.split(os.pathsep) if isinstance(paths, str) else ():
        try:
            status = os.stat(os.path.expanduser(path))
        except OSError:
            continue
        tick = TICK if status.st_ctime_ns % 1000000000 else COARSE_TICK
        if time.time() - status.st_ctime < tick:
            return Client(auth)
        stamps.append((path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    key = json.dumps([auth, to_text(paths), stamps, os.getpid(), os.getcwd()], sort_keys=True, default=to_text)
    if key not in _CLIENTS:
        _CLIENTS[key] = Client(auth)
    return _CLIENTS[key]
