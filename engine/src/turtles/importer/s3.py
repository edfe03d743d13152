# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs requests for objects in buckets (AWS Signature Version 4), with AWS' own library."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from turtles.importer.request import login

#: What a signature is for where an address doesn't tell, as servers other than AWS' take it.
_REGION = "us-east-1"
#: Addresses of AWS, such as s3.eu-central-1.amazonaws.com and my-bucket.s3-eu-west-1.amazonaws.com.
_HOST = re.compile(r"(?:^|\.)s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com(?:\.cn)?$")


def region_of(url: str) -> str:
    """Return the region that a bucket's address names."""
    match = _HOST.search(urlsplit(url).hostname or "")
    return match[1] if match else _REGION


def signer(credentials: Path) -> Callable[[str], dict[str, str]]:
    """Return what gives the headers that sign a request for an address, as of now.

    :param credentials: folder with the files accessKeyId and secretKey.
    :raises ImportRefused: they aren't there.
    """
    user, password = login(credentials)
    return lambda url: _signed(url, user.strip(), password.strip())


def _signed(url: str, user: str, password: str) -> dict[str, str]:
    # Not from the start: other imports don't need its memory
    from awscrt import auth, http

    parts = urlsplit(url)
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    config = auth.AwsSigningConfig(
        algorithm=auth.AwsSigningAlgorithm.V4,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=auth.AwsCredentialsProvider.new_static(user, password),
        region=region_of(url),
        service="s3",
        date=datetime.now(UTC),
        # An object's name is taken as it is
        use_double_uri_encode=False,
        should_normalize_uri_path=False,
        # A request that is continued has another range: that isn't signed, nor is a body that there isn't
        signed_body_value="UNSIGNED-PAYLOAD",
        signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
    )
    host = parts.netloc.rpartition("@")[2]
    request = http.HttpRequest("GET", target, http.HttpHeaders([("Host", host)]))
    signed = auth.aws_sign_request(request, config).result(60)
    return {name: value for name, value in signed.headers if name.lower() != "host"}
