# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Downloads what an export offers, as the options of the module export say."""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from urllib.parse import urlsplit

from . import _download, _resources, _transfer
from ._download_record import Record
from ._errors import KubeError
from ._exports import SOURCES

ENDINGS = {"raw": ".img", "gzip": ".img.gz", "tar.gz": ".tar.gz"}
MANIFEST = "manifest.json"
# Seconds before an interrupted download is resumed.
PAUSE = 2


class ExportDownload:
    """Downloads the volumes and the manifest of one export into the folder `dest`.

    :param task: the running module: its options, client, check mode, and the export's resource, namespace and name.
    :param export: the VirtualMachineExport, which is ready.
    :raises KubeError: the export has no usable links or token, or options contradict it.
    """

    def __init__(self, task, export):
        self._task, self._export = task, export
        self._params, self._client = task.params, task.client
        self._link = _link(export, self._params)
        self._server = _download.Server(self._token(), self._authorities(), not self._params["export_insecure"])
        self._record = None

    def run(self):
        """Download what isn't in the folder yet; return the result's `files`.

        :raises KubeError: a volume isn't offered, the server refuses, or a file can't be written.
        """
        offered = {volume["name"]: self._formats(volume) for volume in self._link.get("volumes") or ()}
        chosen = self._params["volumes"] or list(offered)
        if missing := [name for name in chosen if name not in offered]:
            raise KubeError(
                "volumes: the export has no %s; it has %s." % (", ".join(missing), ", ".join(offered) or "none")
            )
        self._record = Record(self._params["dest"], self._task.name, self._task.check_mode)
        files = [self._volume(name, offered[name]) for name in chosen]
        return [*files, self._manifest()] if self._params["manifest"] else files

    def _formats(self, volume):
        return {each["format"]: self._address(each["url"]) for each in volume.get("formats") or ()}

    def _volume(self, name, formats):
        form = self._params["format"] if "raw" in formats else "tar.gz"
        if form not in formats:
            raise KubeError("The export offers volume %s as %s, not as %s." % (name, ", ".join(formats), form))
        size, tag = self._retried(lambda: self._server.head(formats["raw"])) if "raw" in formats else (0, "")
        path = os.path.join(self._params["dest"], name.replace(os.sep, "_") + ENDINGS[form])
        about = {"format": form, **self._content(tag)}
        facts = {"volume": name, "path": path, "format": form, "disk_bytes": size}
        earlier = self._record.find(path, about)
        if earlier is not None:
            return {**facts, **earlier, "downloaded": False}
        if self._task.check_mode:
            return {**facts, "bytes": 0, "checksum": "", "downloaded": True}
        self._task.changed = True
        total = size if form == "raw" else 0
        self._record.check_space(total)
        part = _download.Part(path, sparse=form == "raw")
        meter = _transfer.Meter(total, lambda text: self._say(text, name), self._params["progress"], "received")
        try:
            self._retried(lambda: self._server.fetch(formats[form], part, meter), part)
            checksum = part.finish()
        finally:
            part.close()
        return {**facts, **self._record.note(path, about, checksum), "downloaded": True}

    def _content(self, tag):
        """Return what identifies a volume's content. Each export of a snapshot has new claims with the same content."""
        kind, name = self._export["spec"]["source"]["kind"], self._export["spec"]["source"]["name"]
        if kind != SOURCES["snapshot"][0]:
            return {"source": [kind, name, ""], "tag": tag}
        snapshot = _resources.known("snapshot.kubevirt.io/v1beta1", kind)
        live = self._client.get(_resources.path(snapshot, self._task.namespace, name)) or {"metadata": {}}
        return {"source": [kind, name, live["metadata"].get("uid") or self._export["metadata"]["uid"]], "tag": ""}

    def _manifest(self):
        path = os.path.join(self._params["dest"], MANIFEST)
        url = next((each["url"] for each in self._link.get("manifests") or () if each["type"] == "all"), None)
        if url is None:
            raise KubeError("manifest: only exports of virtual machines and snapshots have one; this one doesn't.")
        text = self._retried(lambda: self._server.text(self._address(url)))
        try:
            text = json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
        except ValueError as exc:
            raise KubeError("The manifest of the export isn't JSON: %s" % exc) from exc
        facts = {"volume": "", "path": path, "format": "json", "disk_bytes": 0}
        return {**facts, **self._record.write(path, text)}

    def _retried(self, act, part=None):
        """Return what act returns. It is retried when interrupted; attempts that get further don't count."""
        left = self._params["retries"]
        while True:
            before = part.size if part is not None else 0
            try:
                return act()
            except _transfer.Broken as exc:
                if self._params["retries"] and part is not None and part.size > before:
                    left = self._params["retries"]
                elif left:
                    left -= 1
                else:
                    where = _resources.name_of(*self._task.where)
                    raise KubeError("%s can't be downloaded: %s (retries)." % (where, exc)) from exc
                restarts = part is not None and part.size and not part.tag
                self._say("%s; %s" % (exc, "starting over: only format=raw can resume" if restarts else "retrying"))
                time.sleep(PAUSE)

    def _say(self, text, volume=None):
        if self._params["progress"]:
            where = _resources.name_of(*self._task.where)
            _transfer.show(self._task.module, "%s: %s" % ("%s %s" % (where, volume) if volume else where, text))

    def _address(self, url):
        """Return the address of a link; with `export_url`, that of the same file on this proxy."""
        proxy = self._params["export_url"]
        if not proxy:
            return url
        resource, namespace, name = self._task.where
        path = urlsplit(url).path
        _before, separator, after = path.partition("/%s/%s/" % (resource.plural, name))
        root = "/api/%s/namespaces/%s/%s/%s" % (resource.api_version, namespace, resource.plural, name)
        proxy = proxy if "://" in proxy else "https://%s" % proxy
        return "%s%s/%s" % (proxy.rstrip("/"), root, (after if separator else path).lstrip("/"))

    def _authorities(self):
        return _transfer.read_authorities("export_ca", self._params["export_ca"]) or self._link.get("cert") or None

    def _token(self):
        namespace, name = self._task.namespace, self._export["status"].get("tokenSecretRef")
        name = name or self._params["token_secret"]
        secret = self._client.get(_resources.path(_resources.known("v1", "Secret"), namespace, name))
        try:
            token = base64.b64decode(((secret or {}).get("data") or {})["token"], validate=True).decode().strip()
        except (KeyError, binascii.Error, UnicodeDecodeError) as exc:
            raise KubeError("Secret %s/%s has no usable key token." % (namespace, name)) from exc
        self._task.module.no_log_values.add(token)
        return token


def _link(export, params):
    """Return the links that the options choose; a proxy that the user names serves the internal ones, too."""
    links = export["status"].get("links") or {}
    link = links.get(params["link"])
    if link is None and params["export_url"]:
        link = links.get("internal")
    if link is None:
        raise KubeError(
            "The export has no %s links: the cluster doesn't know at which address virt-api is reached from outside. "
            "Set export_url, or in a Pod link=internal." % params["link"]
        )
    return link
