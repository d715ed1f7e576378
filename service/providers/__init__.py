"""Execution providers: which can be had here, and a session on one. docs/providers.md tells them for operators.

``fp32`` means fp32 arithmetic on each: what would round by default is told not to.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from service.config import ConfigError
from service.providers.base import Arithmetic as Arithmetic
from service.providers.base import ExecutionProvider, ProviderSession
from service.providers.base import Model as Model
from service.providers.base import ProviderUnavailable as ProviderUnavailable
from service.providers.base import Share as Share
from service.providers.base import kind as kind
from service.providers.cpu import CPU
from service.providers.cuda import CUDA
from service.providers.gpu import GpuSession
from service.providers.openvino import OPENVINO
from service.providers.tensorrt import TENSORRT
from service.settings import Provider, ProviderSettings

logger = logging.getLogger(__name__)

PROVIDERS: Mapping[Provider, ExecutionProvider] = MappingProxyType(
    {provider.name: provider for provider in (TENSORRT, CUDA, OPENVINO, CPU)}
)

# Without TensorRT: building its engines takes minutes, which nobody should meet unasked.
AUTO_ORDER: Final[tuple[Provider, ...]] = ("cuda", "openvino", "cpu")


@dataclass(frozen=True)
class OpenedSession:
    """A session, the provider it really runs on with how many slots, and why the ones before it were passed over."""

    session: ProviderSession
    provider: Provider
    slots: int
    passed_over: tuple[str, ...]


def candidates(requested: Literal["auto"] | Provider) -> tuple[list[Provider], dict[Provider, str]]:
    """Providers to try, best first, and why others are out; ``ProviderUnavailable`` where a named one is."""
    if requested != "auto":
        try:
            PROVIDERS[requested].check()
        except ProviderUnavailable as reason:
            raise ProviderUnavailable(f"{requested}: {reason}") from reason
        return [requested], {}
    found: list[Provider] = []
    passed_over: dict[Provider, str] = {}
    for name in AUTO_ORDER:
        try:
            PROVIDERS[name].check()
            found.append(name)
        except ProviderUnavailable as reason:
            passed_over[name] = f"{name}: {reason}"
    return found, passed_over


def close(session: ProviderSession) -> None:
    """Give back now what ``session`` holds of a GPU; what others hold goes with the last that refers to them."""
    if isinstance(session, GpuSession):
        session.close()


def starts_on_gpu(requested: Literal["auto"] | Provider) -> bool:
    """Whether the provider that is tried first computes on a GPU; neither a model nor a CPU's provider is loaded."""
    first = AUTO_ORDER[0] if requested == "auto" else requested
    if kind(first) != "GPU":
        return False
    try:
        PROVIDERS[first].check()
    except ProviderUnavailable:
        return False
    return True


ModelFile = Path | Callable[[Provider], tuple[Model, Arithmetic]]


def _file(file: ModelFile, provider: Provider) -> tuple[Model, Arithmetic]:
    return (file, "fp32") if isinstance(file, Path) else file(provider)


def _called(model: Model) -> str:
    return model.name if isinstance(model, Path) else "a model"


def _before(taken: Provider, passed_over: Mapping[Provider, str]) -> tuple[str, ...]:
    return tuple(passed_over[name] for name in itertools.takewhile(taken.__ne__, AUTO_ORDER) if name in passed_over)


def open_session(
    file: ModelFile,
    requested: Literal["auto"] | Provider,
    share: Share,
    options: ProviderSettings | None = None,
) -> OpenedSession:
    """A session for ``file`` on the requested provider; ``auto`` falls back in ``AUTO_ORDER``.

    A GPU must not only open the model but run it.

    Where providers run different files, ``file`` is a function that says which, and in what arithmetic, or raises
    ``ConfigError`` where that provider has none to run; a path alone is run in fp32, or as its own quantization says.
    ``ConfigError`` where no provider has one, and for options that none should pass over.
    """
    names, passed_over = candidates(requested)
    for name in names:
        try:
            model, precision = _file(file, name)
        except ConfigError as error:
            if name == names[-1]:
                raise ConfigError("; ".join([*passed_over.values(), str(error)])) from error
            passed_over[name] = f"{name}: {error}"
            continue
        try:
            session = PROVIDERS[name].open(model, share, precision, options or ProviderSettings())
        except ConfigError:
            raise
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
            if requested != "auto" or name == names[-1]:
                raise ProviderUnavailable(f"{name}: {error}") from error
            logger.warning("%s: provider %s failed, trying the next: %s", _called(model), name, error)
            passed_over[name] = f"{name}: {error}"
        else:
            return OpenedSession(session, name, share.slots(name), _before(name, passed_over))
    raise ProviderUnavailable("; ".join(passed_over.values()))
