"""Published weights by their names: ``torchvision/resnet50`` and ``hf://owner/name``.

torchvision's table (https://docs.pytorch.org/vision/stable/models.html) says where
the weights lie, what their classes are called and how images are prepared; the
leading digits of their SHA-256 are part of the file's name. On a Hugging Face
hub all that is in files beside the weights: see ``export.downloads.hub``.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic_core import from_json
from rich.console import Console

from export.downloads.download import Downloader, Remote
from export.downloads.http_client import DownloadError, open_client, shown
from export.downloads.hub import ENDPOINT, Repository, fetch_snapshot
from export.networks import specs
from model_store.manifest import Preprocessing
from model_store.verified import sha256_of

TORCHVISION: Final = "https://download.pytorch.org"
FORMS: Final = "torchvision/NAME, torchvision/NAME:WEIGHTS, hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
_BUILTIN: Final = re.compile(r"torchvision/([a-z0-9_]{1,64})(?::([A-Za-z0-9_]{1,64}))?")
_ON_A_HUB: Final = re.compile(r"hf://([^/@]+)/([^/@]+)(?:@(.+))?")
_FILE: Final = re.compile(r"/([A-Za-z0-9_.]{1,128}-([0-9a-f]{8,64})\.pth)$")


@dataclass(frozen=True)
class Builtin:
    """Weights of torchvision; without ``weights`` those it recommends."""

    name: str
    weights: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """Published weights on this machine, whole and checked.

    reference     -- what they are, exactly: with the name of the weights, or with the commit.
    checkpoint    -- a file; for a hub, a folder with model.safetensors or pytorch_model.bin and,
                     if published, config.json and preprocessor_config.json.
    architecture  -- for torchvision its name, which is also ours; else None: config.json says it.
    labels        -- the classes' names, by number; None where the folder says them.
    preprocessing -- None where the folder says it.
    sha256        -- of the weights' file, in hexadecimal.
    url           -- of the weights' file.
    """

    reference: str
    checkpoint: Path
    origin: Literal["torchvision", "huggingface", "timm"]
    architecture: str | None
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    sha256: str
    url: str


def default_cache(environment: Mapping[str, str]) -> Path:
    """The folder for downloads, by https://specifications.freedesktop.org/basedir-spec/latest/."""
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    # A relative one is invalid by the specification.
    return (base if base.is_absolute() else Path.home() / ".cache") / "resnet-serving"


def parse(reference: str) -> Builtin | Repository:
    """What ``reference`` names; ``DownloadError`` unless it has one of ``FORMS``."""
    if found := _BUILTIN.fullmatch(reference):
        return Builtin(found[1], found[2])
    if found := _ON_A_HUB.fullmatch(reference):
        return Repository(found[1], found[2], found[3] or "main")
    hint = f" (torchvision/{reference} is)" if reference in specs.SPECS else ""
    raise DownloadError(f"{reference!r} is no name of published weights{hint}; these are: {FORMS}")


def resolve(
    reference: str,
    cache: Path,
    console: Console,
    *,
    mirror: str | None = None,
    token: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Pretrained:
    """The weights that ``reference`` names: from ``cache`` where they are whole there, else downloaded into it.

    ``mirror`` takes the place of https://download.pytorch.org or https://huggingface.co,
    ``token`` is for private models of a hub, ``sleep`` waits between attempts.
    ``DownloadError`` says what cannot be had and why.
    """
    wanted = parse(reference)
    if isinstance(wanted, Builtin):
        with open_client() as client:
            return _from_torchvision(wanted, cache, Downloader(client, console, sleep), mirror)
    endpoint = mirror or ENDPOINT
    with open_client(token, endpoint) as client:
        return _from_hub(wanted, cache, Downloader(client, console, sleep), endpoint)


def _from_torchvision(wanted: Builtin, cache: Path, downloader: Downloader, mirror: str | None) -> Pretrained:
    weights = _weights(wanted)
    file = _FILE.search(weights.url)
    if not file:
        raise DownloadError(f"{weights.url}: no hash in the file's name, so it cannot be checked")
    url = _mirrored(weights.url, mirror)
    path = downloader.fetch(Remote(url, sha256=file[2]), cache / "torchvision" / file[1])
    return Pretrained(
        reference=f"torchvision/{wanted.name}:{weights.name}",
        checkpoint=path,
        origin="torchvision",
        architecture=wanted.name,
        labels=tuple(weights.meta["categories"]),
        preprocessing=_preprocessing(weights.transforms()),
        sha256=sha256_of(path),
        url=shown(url),
    )


def _weights(wanted: Builtin) -> Any:
    """The member of torchvision's enum of weights."""
    # Imported only here: it takes seconds.
    from torchvision.models import get_model_weights, list_models  # type: ignore[import-untyped]

    try:
        table = get_model_weights(wanted.name)
    except ValueError as error:
        close = difflib.get_close_matches(wanted.name, list_models(), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise DownloadError(f"torchvision has no weights for {wanted.name!r}{hint}") from error
    if wanted.name not in specs.SPECS:
        raise DownloadError(f"torchvision/{wanted.name}: this network cannot be exported; it is none of --arch")
    if wanted.weights is None:
        return table.DEFAULT
    if wanted.weights not in table.__members__:
        there = ", ".join(member.name for member in table)
        raise DownloadError(f"{wanted.name} has no weights {wanted.weights!r} in torchvision; there: {there}")
    return table[wanted.weights]


def _mirrored(url: str, mirror: str | None) -> str:
    if mirror is None:
        return url
    if not url.startswith(f"{TORCHVISION}/"):
        raise DownloadError(f"{url}: not below {TORCHVISION}, so no mirror has it")
    return mirror.rstrip("/") + url.removeprefix(TORCHVISION)


def _preprocessing(transforms: Any) -> Preprocessing:
    """Of ``torchvision.transforms._presets.ImageClassification``."""
    (size,), (resize,) = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        height=size,
        width=size,
        resize=resize,
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _from_hub(wanted: Repository, cache: Path, downloader: Downloader, endpoint: str) -> Pretrained:
    snapshot = fetch_snapshot(wanted, cache, downloader, endpoint)
    return Pretrained(
        reference=wanted.at(snapshot.commit),
        checkpoint=snapshot.folder,
        origin="timm" if _is_timm(snapshot.folder / "config.json") else "huggingface",
        architecture=None,
        labels=None,
        preprocessing=None,
        sha256=sha256_of(snapshot.weights),
        url=snapshot.url,
    )


def _is_timm(config: Path) -> bool:
    """Whether timm wrote ``config``: only its files say ``pretrained_cfg``, or in older ones ``architecture``."""
    if not config.is_file():
        return False
    try:
        content = from_json(config.read_bytes())
    except ValueError:
        return False  # whoever reads the configuration says what is wrong with it
    return isinstance(content, dict) and not {"pretrained_cfg", "architecture"}.isdisjoint(content)
