"""A stored model, opened: verified, on its provider, warm, and run on batches."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from model_store.manifest import Precision
from model_store.store import StoreError
from model_store.stored_model import StoredModel
from service.inference.outputs import OutputName
from service.inference.postprocess import Floats
from service.inference.precision import choose_variant, passed_over
from service.inference.spread import Spread
from service.providers import Share, close, kind, open_session
from service.providers.base import ProviderSession
from service.settings import Provider, ProviderSettings

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8]


class Session:
    """A variant of ``stored`` on a provider, with a worker's share of the machine.

    ``slots`` calls at the same time use all of that share. With ``spread``, a batch that is ``alone`` gets all of
    it by itself: on a CPU the model is opened a second time for such calls, when they come.
    """

    def __init__(
        self,
        stored: StoredModel,
        requested: Literal["auto"] | Provider,
        share: Share,
        precision: Literal["auto"] | Precision = "auto",
        options: ProviderSettings | None = None,
        spread: bool = False,
    ) -> None:
        self._input_shape = (stored.manifest.preprocessing.height, stored.manifest.preprocessing.width, 3)
        self._classes = stored.manifest.outputs.classes

        def file(provider: Provider) -> tuple[bytes, Precision]:
            variant = choose_variant(stored, precision, provider)
            return stored.read_graph(variant), variant.precision

        opened = open_session(file, requested, share, options)
        self.provider = opened.provider
        self.variant = choose_variant(stored, precision, opened.provider)
        self.slots = opened.slots
        self.passed_over = opened.passed_over
        self._session = opened.session
        self._check_signature(stored)
        self._spread: Spread | None = None
        if spread and self.slots > 1 and self.on_cpu:
            provider, all_cores = opened.provider, replace(share, wanted_slots=1)
            blank = np.zeros((1, *self._input_shape), np.uint8)

            # Without ``self``, or only a garbage collection frees its memory, and what is there at start has none.
            def second() -> ProviderSession:
                found = open_session(file, provider, all_cores, options).session
                found.run(("logits",), {"image": blank})
                return found

            self._spread = Spread(second, f"model {stored.manifest.name} version {stored.manifest.version}")
        if precision == "auto":
            for reason in passed_over(stored, opened.provider):
                logger.info("model %s version %s: %s", stored.manifest.name, stored.manifest.version, reason)

    @property
    def on_cpu(self) -> bool:
        """Whether a slot is a core, which decoding needs too."""
        return kind(self.provider) == "CPU"

    def _check_signature(self, stored: StoredModel) -> None:
        """Refuse a graph that is not what its manifest says, before any request meets it."""
        inputs = [(i.name, i.type, i.shape) for i in self._session.get_inputs()]
        name, kind, (batch, *shape) = inputs[0] if inputs and inputs[0][2] else ("", "", [0])
        expected = ("image", "tensor(uint8)", self._input_shape)
        if len(inputs) != 1 or (name, kind, tuple(shape)) != expected or isinstance(batch, int):
            raise StoreError(
                f"{stored.path(self.variant)}: its input is {inputs}, not image uint8 with a dynamic batch of "
                f"{list(self._input_shape)}"
            )
        outputs = {o.name: o.shape for o in self._session.get_outputs()}
        if list(outputs.get("logits", ()))[1:] != [self._classes]:
            raise StoreError(f"{stored.path(self.variant)}: it gives no logits of {self._classes} classes")

    def run(
        self, batch: Images, names: tuple[OutputName, ...] = ("logits",), alone: bool = False
    ) -> dict[OutputName, Floats]:
        """The outputs ``names``, float32 with the batch first, of preprocessed images: uint8 ``[n, height, width, 3]``.

        ``alone`` says that nothing else is computed meanwhile, so that this call may have all cores.
        """
        session = None if self._spread is None else self._spread.session(alone)
        found = (session or self._session).run(names, {"image": batch})
        return {name: np.asarray(value, dtype=np.float32) for name, value in zip(names, found, strict=True)}

    def close(self) -> None:
        """Give a GPU's memory back; nothing may be run any more."""
        if self._spread is not None:
            self._spread.close()
        close(self._session)

    def spread(self) -> None:
        """Have all cores for a batch that is ``alone`` from now on, where it may have them; takes seconds."""
        if self._spread is not None:
            self._spread.open()

    def warm_up(self, max_batch: int) -> None:
        """Run every batch size, in all slots at once; the first run of a size is slow, as it compiles."""
        blank = np.zeros((max_batch, *self._input_shape), np.uint8)
        with ThreadPoolExecutor(self.slots) as pool:
            for size in range(1, max_batch + 1):
                list(pool.map(self.run, [blank[:size]] * self.slots))
