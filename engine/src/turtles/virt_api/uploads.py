# SPDX-License-Identifier: GPL-3.0-or-later
"""The upload proxy: takes images and archives of users who have a token, and passes them on to claims' upload servers.

Paths and answers are those of CDI's proxy, which `virtctl image-upload` speaks to. Nothing is stored here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import hdrs, web

from turtles.api import cdi, uploads
from turtles.api.objects import Object, annotations_of
from turtles.api.populators import uploaded_into
from turtles.kube.client import Client, NotFound
from turtles.kube.resources import POD, PVC
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.pod_servers import CHUNK, certificate_of, context_of, session, url_of
from turtles.virt_api.status import Failure
from turtles.virt_api.upload_tokens import Claim, Tokens

log = logging.getLogger(__name__)

_VERSIONS = ("v1beta1", "v1alpha1")
#: Paths below a version: where an upload server takes it, and whether it is a form's file.
_PATHS = {
    "upload": (uploads.PATH, False),
    "upload-async": (uploads.ASYNC_PATH, False),
    "upload-archive": (uploads.ARCHIVE_PATH, False),
    "upload-form": (uploads.PATH, True),
    "upload-form-async": (uploads.ASYNC_PATH, True),
}
#: Seconds that an upload server may take to be ready, and between two looks at it.
_PATIENCE, _LOOK = 10.0, 0.5
_ANSWER = 64 << 10


class UploadProxy:
    """Passes uploads on."""

    def __init__(self, client: Client, tokens: Tokens, nodes: Nodes, patience: float = _PATIENCE) -> None:
        """Make it.

        :param nodes: has the certificate that identifies virt-api.
        :param patience: seconds that an upload server may take to be ready.
        """
        self._client, self._tokens, self._nodes, self._patience = client, tokens, nodes, patience

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve CDI's paths."""
        for version in _VERSIONS:
            for path in _PATHS:
                router.add_route("POST", f"/{version}/{path}", self._upload)
                router.add_route("HEAD", f"/{version}/{path}", self._probe)

    async def _probe(self, request: web.Request) -> web.StreamResponse:
        """Say whether there is such a path, to those who have a token."""
        try:
            await self._claim(request)
        except Failure as error:
            return web.Response(status=error.code)
        return web.Response()

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        # What a user reads is the text of the answer, whatever the client
        try:
            claim = await self._claim(request)
            pod, context = await self._server(claim)
            status, text = await self._pass_on(request, pod, context)
        except Failure as error:
            status, text = error.code, error.message
        log.info("upload", extra={"path": request.path, "status": status})
        return web.Response(status=status, text=text)

    async def _claim(self, request: web.Request) -> Claim:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Failure(401, f"an upload needs the token of an {uploads.KIND}: Authorization: Bearer <token>")
        return await asyncio.to_thread(self._tokens.verify, token.strip())

    async def _server(self, claim: Claim) -> tuple[Object, ssl.SSLContext]:
        """Return a claim's upload server, as soon as it takes an image.

        :raises Failure: it doesn't.
        """
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                pod, certificate = await asyncio.to_thread(self._look, claim)
                name = f"{claim.namespace}/{claim.name}"
                called = f"the upload server of PersistentVolumeClaim {name}"
                return pod, context_of(self._nodes, certificate, called)
            except Failure as error:
                if error.code != 503 or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_LOOK)

    def _look(self, claim: Claim) -> tuple[Object, str]:
        name = f"{claim.namespace}/{claim.name}"
        try:
            pvc = self._client.get(PVC, claim.namespace, claim.name)
        except NotFound:
            raise Failure(404, f"PersistentVolumeClaim {name} is gone") from None
        noted = annotations_of(pvc)
        if pvc["metadata"]["uid"] != claim.uid:
            raise Failure(401, f"the token was issued for an earlier PersistentVolumeClaim {name}; request a new one")
        if noted.get(cdi.POD_PHASE) == cdi.SUCCEEDED:
            raise Failure(409, f"PersistentVolumeClaim {name} already has its content; delete it to upload again")
        if noted.get(cdi.POD_PHASE) == cdi.FAILED:
            raise Failure(409, f"the upload into {name} has failed for good: {noted.get(cdi.FAILURE_MESSAGE)}")
        try:
            # A populator's is that of the claim which is filled in the place of this one
            pod_name = cdi.pod_name(uploads.PREFIX, uploaded_into(pvc) or claim.name)
            pod = self._client.get(POD, claim.namespace, pod_name)
        except NotFound:
            raise Failure(503, f"PersistentVolumeClaim {name} has no upload server yet; try again") from None
        certificate = certificate_of(pod, uploads.CERTIFICATE)
        if certificate is None:
            raise Failure(503, f"the upload server of PersistentVolumeClaim {name} is not ready; try again")
        return pod, certificate

    async def _pass_on(self, request: web.Request, pod: Object, context: ssl.SSLContext) -> tuple[int, str]:
        path, is_form = _PATHS[request.path.rpartition("/")[2]]
        url = url_of(pod, uploads.PORT) + path
        headers = {hdrs.CONTENT_TYPE: "application/octet-stream"}
        body: Any = _pieces(request)
        if is_form:
            body = await _file(request)
        elif request.content_length is not None:
            # By which an image that is too large is refused before any of it is read
            headers[hdrs.CONTENT_LENGTH] = str(request.content_length)
        try:
            async with (
                session() as client,
                client.post(url, data=body, headers=headers, ssl=context, allow_redirects=False) as answer,
            ):
                text = (await answer.content.read(_ANSWER)).decode(errors="replace")
                return answer.status, text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("an upload was interrupted: %r", error, extra={"pod": pod["metadata"]["name"]})
            words = str(error) or type(error).__name__
            raise Failure(503, f"the upload was interrupted ({words}); send the image again") from error


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_chunked(CHUNK):
        yield piece


async def _file(request: web.Request) -> AsyncIterator[bytes]:
    """Return the first file of a form, in pieces: it is streamed like everything else.

    :raises Failure: there is none.
    """
    if not re.match(r"multipart/form-data\b", request.headers.get(hdrs.CONTENT_TYPE, ""), re.I):
        raise Failure(400, "a form is sent as multipart/form-data, with the image as its file")
    async for part in await request.multipart():
        if isinstance(part, aiohttp.BodyPartReader) and part.filename is not None:
            return _pieces_of(part)
    raise Failure(400, "the form has no file")


async def _pieces_of(part: aiohttp.BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(CHUNK):
        yield bytes(piece)
