"""The supervisor with a process manager that only notes what it is asked; tests/reliability has the real one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from service.process import supervision as module
from service.process.supervision import HURRY_EVERY_S, Supervisor, supervise


class Loop:
    """Calls are kept until the test runs them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.asyncio_loop = SimpleNamespace(add_signal_handler=lambda number, call: self.signals.update({number: call}))
        self.signals: dict[int, Callable[[], None]] = {}

    def call_later(self, delay_s: float, call: Callable[..., Any], *args: Any) -> None:
        del delay_s
        self.calls.append((call, args))

    def add_callback_from_signal(self, call: Callable[..., Any]) -> None:
        self.calls.append((call, ()))

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for call, args in calls:
            done = call(*args)
            if done is not None:
                with pytest.raises(StopIteration):
                    done.send(None)


class Circus:
    """The handler of SIGTERM is its method, as circus's is its controller's."""

    def __init__(self) -> None:
        self.controller = SimpleNamespace(arbiter=self)
        self.watchers = [SimpleNamespace(respawn=False, processes={1: None, 2: None})]
        self.sockets = SimpleNamespace(close_all=lambda: self.done.append("sockets closed"))
        self.done: list[str] = []
        self.busy = False
        self._stopping = False

    def signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.done.append("told to stop")
        self._stopping = not self.busy

    async def manage_watchers(self) -> None:
        self.done.append("looked")
        self.watchers[0].processes = {2: None, 3: None}


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def attached() -> tuple[Circus, Loop, list[float]]:
    circus, loop, now = Circus(), Loop(), [100.0]
    Supervisor(circus.signal, loop, lambda: now[0]).attach()
    return circus, loop, now


Attached = tuple[Circus, Loop, list[float]]


def test_workers_are_replaced_in_a_container_too(attached: Attached) -> None:
    assert [watcher.respawn for watcher in attached[0].watchers] == [True]


def test_a_dead_worker_is_replaced_at_once_but_one_that_keeps_dying_is_not(
    attached: Attached, caplog: pytest.LogCaptureFixture
) -> None:
    circus, loop, now = attached
    died = loop.signals[signal.SIGCHLD]
    died()
    died()  # two at a time need one look
    loop.run()
    assert circus.done == ["looked"]
    assert "worker 1 died; another is started" in caplog.text
    now[0] += HURRY_EVERY_S - 1
    died()
    loop.run()
    assert circus.done == ["looked"]
    now[0] += 1
    died()
    loop.run()
    assert circus.done == ["looked", "looked"]


def test_the_socket_is_left_to_the_workers_once_they_were_told_to_stop(attached: Attached) -> None:
    circus, loop, _ = attached
    circus.busy = True
    signal.raise_signal(signal.SIGTERM)
    loop.run()
    assert circus.done == ["told to stop"]
    circus.busy = False
    loop.run()  # told again, as it had forgotten
    loop.run()
    assert circus.done == ["told to stop", "told to stop", "sockets closed"]
    loop.signals[signal.SIGCHLD]()  # the workers end
    assert not loop.calls


def test_another_process_manager_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[Any] = []
    current = SimpleNamespace(add_callback=lambda call, loop: called.append(call(loop)))
    monkeypatch.setattr("tornado.ioloop.IOLoop.current", lambda: current)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    supervise()
    assert called == [None]
    assert "as BentoML does it" in caplog.text
    assert module.signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
