from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from model_store.stored_model import StoredModel
from service.providers import Share, open_session
from tests.service.conftest import TinyModel
from tests.service.providers.conftest import MODEL, FakeRuntime, check_answers


@pytest.mark.parametrize(("share", "threads"), [(Share(8), 1), (Share(8, 1), 8), (Share(8, 3), 2), (Share(1), 1)])
def test_the_threads_of_a_slot(fake: FakeRuntime, share: Share, threads: int) -> None:
    open_session(MODEL, "cpu", share)
    (session,) = fake.sessions
    assert session.asked == ["CPUExecutionProvider"]
    assert session.options.intra_op_num_threads == threads


@pytest.mark.parametrize("share", [Share(2), Share(2, 1)])
def test_a_real_session(tiny_stored: StoredModel, tiny: TinyModel, share: Share) -> None:
    opened = open_session(tiny_stored.folder / "fp32.onnx", "cpu", share)
    assert (opened.provider, opened.slots) == ("cpu", share.wanted_slots or 2)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check_answers, opened.session, tiny, (1, 8, 2)) for _ in range(8)]:
            done.result()
