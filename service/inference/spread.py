"""A model opened once more, for an image that may have all cores: while such images come, and no longer."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Final

from service.process.memory import trim
from service.providers.base import ProviderSession
from service.tuning.profile import one_line

logger = logging.getLogger(__name__)

_FEW: Final = 8
"""So many images that come alone are no chance, and worth the memory of a second session."""

_KEPT_S: Final = 60.0
"""How long traffic may have no image that comes alone until its session is dropped; a service at rest keeps it."""


class Spread:
    """The second session: ``open_session`` gives it, warm, and takes seconds, so it runs in a thread of its own.

    Until it is there, and where it cannot be had, such images run as all others do.
    """

    def __init__(self, open_session: Callable[[], ProviderSession], model: str) -> None:
        self._open_session = open_session
        self._model = model
        self._session: ProviderSession | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spread")
        self._lock = threading.Lock()
        self._alone = 0  # images so far, that come without it
        self._last_s = 0.0

    def session(self, alone: bool) -> ProviderSession | None:
        """The one to run a batch on that is ``alone`` or is not, where it is this one; asked once for each batch.

        Any thread may ask, and none waits: what it asks for makes this open or drop the session.
        """
        session = self._session
        if alone:
            self._last_s = monotonic()
            if session is None:
                self._wanted()
            return session
        if session is not None and monotonic() - self._last_s > _KEPT_S:
            self._unwanted()
        return None

    def open(self) -> None:
        """Open it now, and wait for that; raises whatever that raises."""
        self._session = self._open_session()

    def close(self) -> None:
        """Nothing is opened any more; what is just being opened is waited for."""
        self._thread.shutdown(cancel_futures=True)
        self._session = None

    def _wanted(self) -> None:
        with self._lock:
            self._alone += 1
            if self._alone == _FEW:
                try:
                    self._thread.submit(self._try)
                except RuntimeError:  # no thread to be had now: asked again by the next image
                    self._alone -= 1

    def _try(self) -> None:
        if self._session is not None:  # asked for more than once, while there were no threads
            return
        try:
            self.open()
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises classes of its own, without a common base
            reason = one_line(str(error))
            logger.warning("%s: images that come alone get one core as all others: %s", self._model, reason)
        else:
            logger.info("%s: opened once more, so that images that come alone get all cores", self._model)
        trim()

    def _unwanted(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._thread.submit(self._drop)

    def _drop(self) -> None:
        """Who still runs on it holds it until then."""
        with self._lock:
            if self._session is None:  # several threads asked
                return
            self._session = None
            self._alone = 0
        trim()
        logger.info("%s: its second session is closed, as images come together", self._model)
