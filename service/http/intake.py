"""How images come in: let in by the gate, read within bounds, taken apart, until the client leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from service.batching.gate import Ticket
from service.http.bodies import check_encoding, holds_many, read_body, split_images
from service.http.disconnect import UntilDisconnect
from service.http.routing import Call
from service.runtime import Runtime


async def received_body(runtime: Runtime, call: Call, ticket: Ticket) -> bytes:
    """The whole body of ``call``, timed, counted and held by ``ticket``; raises as it and ``read_body`` do."""
    began_s = perf_counter()
    settings = runtime.settings
    body = await read_body(call, settings.limits.max_body_bytes, settings.connections.body_idle_s, ticket)
    call.stages.read_s = perf_counter() - began_s
    call.stages.received_bytes = len(body)
    runtime.metrics.stage("read", call.stages.read_s)
    runtime.metrics.received(len(body))
    return body


@asynccontextmanager
async def admitted(runtime: Runtime, call: Call) -> AsyncIterator[list[bytes]]:
    """The encoded images of ``call``, in order, with room for them in the service until the block ends.

    The block is cancelled where the client leaves. Raises ``Overloaded``, ``BodyTooLarge``, ``UnsupportedEncoding``,
    ``TooManyImages`` and ``BadRequest``.
    """
    limits = runtime.settings.limits
    with runtime.gate.admit(call.holder) as ticket:
        check_encoding(call.headers)
        body = await received_body(runtime, call, ticket)
        if holds_many(call.headers):
            images = await runtime.in_decode_pool(split_images, call.headers, body, limits.images_per_request)
        else:
            images = split_images(call.headers, body, limits.images_per_request)
        del body  # the images of a form or JSON are copies; one of the two is enough
        call.stages.images = len(images)
        ticket.extend(len(images))
        async with UntilDisconnect(call.receive):
            yield images
