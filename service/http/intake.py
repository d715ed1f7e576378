"""How images come in: let in by the gate, read within bounds, taken apart, until the client leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.http.bodies import is_multipart, read_body, split_images
from service.http.disconnect import UntilDisconnect
from service.http.routing import Call
from service.runtime import Runtime


@asynccontextmanager
async def admitted(runtime: Runtime, call: Call) -> AsyncIterator[list[bytes]]:
    """The encoded images of ``call``, in order, with room for them in the service until the block ends.

    The block is cancelled where the client leaves. Raises ``Overloaded``, ``BodyTooLarge``, ``TooManyImages`` and
    ``BadRequest``.
    """
    limits = runtime.settings.limits
    with runtime.gate.admit() as ticket:
        with runtime.metrics.timed("read"):
            body = await read_body(call.headers, call.receive, limits.max_body_bytes)
        runtime.metrics.received(len(body))
        if is_multipart(call.headers):
            images = await runtime.in_decode_pool(split_images, call.headers, body, limits.images_per_request)
        else:
            images = split_images(call.headers, body, limits.images_per_request)
        del body  # a form's images are copies; one of the two is enough
        ticket.extend(len(images))
        async with UntilDisconnect(call.receive):
            yield images
