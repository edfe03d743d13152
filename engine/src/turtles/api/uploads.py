# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads into a claim: what virt-api, virt-controller and an upload server agree on. Pure.

A client asks the aggregated API for a token (UploadTokenRequest) and sends a disk image to virt-api, which passes it on
to the upload server: a Pod that virt-controller starts for the claim. The server shows the certificate that its Pod has
in an annotation, and serves anyone who has a certificate for `turtles.api.node_server.CLIENT` of virt-api's authority.

Source: CDI user guide, "Upload" and "virtctl image-upload": paths, tokens, annotations, names.
"""

from __future__ import annotations

GROUP = "upload.cdi.kubevirt.io"
VERSION = "v1beta1"
PLURAL = "uploadtokenrequests"
KIND = "UploadTokenRequest"

#: The APIService of the group.
API_SERVICE = f"{VERSION}.{GROUP}"
#: Name of the Service that users on a cluster send images to.
PROXY_SERVICE = "cdi-uploadproxy"

#: Port of an upload server, and where it serves: the second path answers before an image is converted, the third takes
#: archives.
PORT = 8444
PATH, ASYNC_PATH, ARCHIVE_PATH = PATHS = ("/v1beta1/upload", "/v1beta1/upload-async", "/v1beta1/upload-archive")

#: Annotation of a claim that is filled by an upload, whatever its value.
TARGET = "cdi.kubevirt.io/storage.upload.target"
#: Annotation of a claim: "true" while its upload server takes an image.
READY = "cdi.kubevirt.io/storage.pod.ready"
#: Annotations of an upload server's Pod: the certificate that it shows, in PEM; which authorities it knows.
CERTIFICATE = "kubevirt.io/upload-server-certificate"
AUTHORITIES = "kubevirt.io/upload-server-authorities"

#: Value of the label `cdi.kubevirt.io` of upload servers' Pods.
COMPONENT = "cdi-upload-server"
#: Name of the Pod, before that of the claim.
PREFIX = "cdi-upload"
