# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of servers that this one asks: webhooks and aggregated APIs. They aren't trusted to be small."""

import aiohttp

#: Largest answer of a webhook or of an aggregated API's discovery, in bytes: an object of the largest size, the patch
#: that makes it, and what surrounds them.
MAX_ANSWER = 8 * 1024 * 1024


async def read_limited(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return an answer's body, unpacked.

    :raises aiohttp.ClientError: when it has more bytes than ``limit``; the rest isn't read.
    """
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            answer.close()
            raise aiohttp.ClientPayloadError(f"the answer has more than {limit} bytes")
    return bytes(body)
