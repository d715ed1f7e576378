from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN

from model_store.stored_model import StoredModel
from service.batching.forming import Forming
from service.batching.slots import Slots
from service.errors import BadImage, DeadlineExceeded, ImageTooCostly, InferenceFailed, NotAnImage, ShuttingDown
from service.images.apart import Apart
from service.images.decode import Costly, Decoder
from service.inference.pipeline import Pipeline
from service.inference.session import Session
from service.metrics import Metrics
from service.providers import Share
from service.settings import DecodeSettings
from service.tracing import CURRENT, Request
from tests.model_store.pictures import png_chunk
from tests.service.conftest import Hold, TinyModel, a_picture, a_png, encode, expected, turns

FAR = math.inf


@pytest.fixture(params=[False, True], ids=["in the slot", "ahead"])
def decode_ahead(request: pytest.FixtureRequest) -> bool:
    """Where images are decoded."""
    return bool(request.param)


def using(
    stored: StoredModel, use: Callable[[Pipeline], Awaitable[None]], decode_ahead: bool = False, slots: int = 1
) -> None:
    async def main() -> None:
        shared = Slots(slots)
        with ThreadPoolExecutor(1) as threads:
            session = Session(stored, "cpu", Share(slots))
            pool = threads if decode_ahead else None
            pipeline = Pipeline(stored, session, Decoder(DecodeSettings()), pool, shared, Forming(4), Metrics(None))
            await use(pipeline)
            await pipeline.close()
            assert shared.free == slots
        shared.close()

    asyncio.run(main())


def test_one_image(tiny_stored: StoredModel, tiny: TinyModel, decode_ahead: bool) -> None:
    async def use(pipeline: Pipeline) -> None:
        found = await pipeline.run(a_png(4), pipeline.top(3), FAR)
        assert [(p.label, p.index) for p in found] == [e[:2] for e in expected(tiny, 4, 3)]
        assert [p.probability for p in found] == pytest.approx([e[2] for e in expected(tiny, 4, 3)], abs=1e-5)

    using(tiny_stored, use, decode_ahead)


def test_images_of_one_batch_may_ask_for_different_k(
    tiny_stored: StoredModel, tiny: TinyModel, decode_ahead: bool
) -> None:
    async def use(pipeline: Pipeline) -> None:
        found = await asyncio.gather(*(pipeline.run(a_png(i), pipeline.top(1 + i % 7), FAR) for i in range(20)))
        for i, predictions in enumerate(found):
            assert [p.index for p in predictions] == [e[1] for e in expected(tiny, i, 1 + i % 7)]

    using(tiny_stored, use, decode_ahead, slots=2)


def test_many_images_with_bad_ones(tiny_stored: StoredModel, tiny: TinyModel, decode_ahead: bool) -> None:
    async def use(pipeline: Pipeline) -> None:
        results = await pipeline.run_many([a_png(0), b"x", a_png(1), a_png(2)[:50], a_png(3)], pipeline.top(1), FAR)
        assert [type(result) for result in results] == [list, NotAnImage, list, BadImage, list]
        good = [result[0].index for result in results if isinstance(result, list)]
        assert good == [expected(tiny, i, 1)[0][1] for i in (0, 1, 3)]
        assert await pipeline.run_many([], pipeline.top(1), FAR) == []

    using(tiny_stored, use, decode_ahead)


def test_a_bad_image_alone_raises(tiny_stored: StoredModel, decode_ahead: bool) -> None:
    async def use(pipeline: Pipeline) -> None:
        with pytest.raises(NotAnImage):
            await pipeline.run(b"x", pipeline.top(1), FAR)

    using(tiny_stored, use, decode_ahead)


def test_an_expired_image_fails_a_request_of_many(tiny_stored: StoredModel, decode_ahead: bool) -> None:
    async def use(pipeline: Pipeline) -> None:
        with pytest.raises(DeadlineExceeded):
            await pipeline.run_many([a_png(0), a_png(1)], pipeline.top(1), asyncio.get_running_loop().time() - 1)

    using(tiny_stored, use, decode_ahead)


def test_a_failure_of_the_model_fails_the_request(
    tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch, decode_ahead: bool
) -> None:
    async def use(pipeline: Pipeline) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("x")

        monkeypatch.setattr(pipeline.session, "run", broken)
        with pytest.raises(InferenceFailed):
            await pipeline.run_many([a_png(0), a_png(1)], pipeline.top(1), FAR)

    using(tiny_stored, use, decode_ahead)


def test_cancelling_many_computes_none_that_waits(
    tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch, decode_ahead: bool
) -> None:
    async def use(pipeline: Pipeline) -> None:
        hold = Hold(pipeline.session.run)
        monkeypatch.setattr(pipeline.session, "run", hold)
        task = asyncio.create_task(pipeline.run_many([a_png(i) for i in range(6)], pipeline.top(1), FAR))
        await hold.wait_entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns()
        hold.released.set()
        await pipeline.close()
        assert len(hold.batches) == 1

    using(tiny_stored, use, decode_ahead)


def test_cancelling_skips_the_decoding_that_has_not_begun(
    tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(pipeline: Pipeline) -> None:
        begun, release = threading.Event(), threading.Event()
        decoded: list[bytes] = []
        real = pipeline._decoding.decoder.tensor

        def slow(data: bytes, *how: Any) -> Any:
            decoded.append(data)
            begun.set()
            assert release.wait(30)
            return real(data, *how)

        monkeypatch.setattr(pipeline._decoding.decoder, "tensor", slow)
        tasks = [asyncio.create_task(pipeline.run(a_png(i), pipeline.top(1), FAR)) for i in range(3)]
        assert await asyncio.to_thread(begun.wait, 30)
        tasks[1].cancel()
        await turns()
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert decoded == [a_png(0), a_png(2)]

    using(tiny_stored, use, decode_ahead=True)


def test_after_close_images_are_refused(tiny_stored: StoredModel, decode_ahead: bool) -> None:
    async def use(pipeline: Pipeline) -> None:
        await pipeline.close()
        with pytest.raises(ShuttingDown):
            await pipeline.run(a_png(0), pipeline.top(1), FAR)

    using(tiny_stored, use, decode_ahead)


def test_a_batch_of_bad_images_alone_never_reaches_the_model(
    tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(pipeline: Pipeline) -> None:
        def unreachable(*_: Any) -> Any:
            raise AssertionError("there is nothing to infer")

        monkeypatch.setattr(pipeline.session, "run", unreachable)
        results = await pipeline.run_many([b"x", b"y"], pipeline.top(1), FAR)
        assert [type(result) for result in results] == [NotAnImage, NotAnImage]

    using(tiny_stored, use)


def test_what_no_check_foresaw_fails_its_image_alone(
    tiny_stored: StoredModel, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(pipeline: Pipeline) -> None:
        real = pipeline._decoding.decoder.tensor

        def sometimes(data: bytes, *how: Any) -> Any:
            if data == b"odd":
                raise MemoryError("secret")
            return real(data, *how)

        monkeypatch.setattr(pipeline._decoding.decoder, "tensor", sometimes)
        results = await asyncio.gather(
            *(pipeline.run(data, pipeline.top(1), FAR) for data in (a_png(0), b"odd", a_png(1))), return_exceptions=True
        )
        assert isinstance(results[1], InferenceFailed)
        assert [found[0].index for found in (results[0], results[2])] == [expected(tiny, i, 1)[0][1] for i in (0, 1)]

    using(tiny_stored, use)
    assert "secret" in caplog.text


# Costly images: a TIFF always is one


def a_tiff(seed: int) -> bytes:
    return encode(a_picture(seed), "TIFF")


def using_apart(
    stored: StoredModel, use: Callable[[Pipeline], Awaitable[None]], decode_ahead: bool, **changes: Any
) -> Metrics:
    settings = DecodeSettings(image_formats=("png", "tiff"), **changes)
    metrics, apart = Metrics(None), Apart(settings, 2)

    async def main() -> None:
        slots = Slots(1)
        with ThreadPoolExecutor(1) as threads:
            pipeline = Pipeline(
                stored,
                Session(stored, "cpu", Share(1)),
                Decoder(settings, cheap_only=True),
                threads if decode_ahead else None,
                slots,
                Forming(4),
                metrics,
                apart=apart,
            )
            await use(pipeline)
            await pipeline.close()
        slots.close()

    try:
        asyncio.run(main())
    finally:
        apart.close()
    return metrics


def test_costly_images_are_answered_as_others_are(
    tiny_stored: StoredModel, tiny: TinyModel, decode_ahead: bool
) -> None:
    async def use(pipeline: Pipeline) -> None:
        (found,) = await pipeline.run(a_tiff(4), pipeline.top(1), FAR)
        assert found.index == expected(tiny, 4, 1)[0][1]
        images = [a_png(0), a_tiff(1), b"x", a_tiff(2)[:60], a_png(3), a_tiff(5)]
        results = await pipeline.run_many(images, pipeline.top(1), FAR)
        assert [type(result) for result in results] == [list, list, NotAnImage, BadImage, list, list]
        good = [result[0].index for result in results if isinstance(result, list)]
        assert good == [expected(tiny, seed, 1)[0][1] for seed in (0, 1, 3, 5)]
        with pytest.raises(BadImage):
            await pipeline.run(a_tiff(2)[:60], pipeline.top(1), FAR)
        assert (await pipeline.upright_apart(a_tiff(4), FAR)).tobytes() == a_picture(4).tobytes()
        with pytest.raises(Costly):
            pipeline.upright(a_tiff(4))
        with pytest.raises(DeadlineExceeded):
            await pipeline.upright_apart(a_tiff(4), 0.0)

    using_apart(tiny_stored, use, decode_ahead)


def test_a_costly_image_is_noted_once(tiny_stored: StoredModel, decode_ahead: bool) -> None:
    async def use(pipeline: Pipeline) -> None:
        request = Request(INVALID_SPAN)
        CURRENT.set(request)
        try:
            await pipeline.run_many([a_png(0), a_tiff(1)], pipeline.top(1), FAR)
        finally:
            CURRENT.set(None)
        assert [note.decode is not None and note.infer is not None for note in request.images] == [True, True]

    using_apart(tiny_stored, use, decode_ahead)


def test_too_costly_images_are_counted_and_harm_no_neighbour(
    tiny_stored: StoredModel, tiny: TinyModel, decode_ahead: bool
) -> None:
    bomb = a_png(1)
    bomb = bomb[:33] + png_chunk(b"teSt") * 500_000 + bomb[33:]

    async def use(pipeline: Pipeline) -> None:
        results = await pipeline.run_many([a_png(0), bomb, a_png(3)], pipeline.top(1), FAR)
        assert [type(result) for result in results] == [list, ImageTooCostly, list]
        with pytest.raises(ImageTooCostly):
            await pipeline.run(bomb, pipeline.top(1), FAR)

    page = using_apart(tiny_stored, use, decode_ahead, decode_cpu_s=0.2).page()
    assert b'resnet_decode_failures_total{format="png",reason="image_too_costly"} 2.0' in page


def test_no_slot_waits_for_a_costly_image(tiny_stored: StoredModel, decode_ahead: bool) -> None:
    """There is one slot; while the costly image is held up, others are answered."""
    held, entered = threading.Event(), threading.Event()

    async def use(pipeline: Pipeline) -> None:
        assert pipeline._apart is not None
        decode = pipeline._apart.tensor

        def hold(*arguments: Any) -> Any:
            entered.set()
            assert held.wait(60)
            return decode(*arguments)

        pipeline._apart.tensor = hold  # type: ignore[method-assign]
        costly = asyncio.create_task(pipeline.run(a_tiff(1), pipeline.top(1), FAR))
        assert await asyncio.to_thread(entered.wait, 60)
        assert pipeline.load == (0, 0)
        for seed in range(3):
            await pipeline.run(a_png(seed), pipeline.top(1), FAR)
        assert not costly.done()
        held.set()
        assert len(await costly) == 1

    try:
        using_apart(tiny_stored, use, decode_ahead)
    finally:
        held.set()


def test_a_deadline_ends_the_wait_for_a_costly_image(tiny_stored: StoredModel, decode_ahead: bool) -> None:
    held = threading.Event()

    async def use(pipeline: Pipeline) -> None:
        assert pipeline._apart is not None
        pipeline._apart.tensor = lambda *_: held.wait(60)  # type: ignore[method-assign, assignment, return-value]
        with pytest.raises(DeadlineExceeded):
            await pipeline.run(a_tiff(1), pipeline.top(1), asyncio.get_running_loop().time() + 0.2)
        held.set()

    using_apart(tiny_stored, use, decode_ahead)
