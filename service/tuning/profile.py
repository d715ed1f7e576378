"""A profile: the settings that were best on one machine, what they reached, and what they were measured with.

It lies in ``STORE/NAME/profiles``, a file for each version, machine and what the
operator fixed, and is no part of the version, which never changes. It is read as strictly as a manifest;
one that is broken or of other versions is passed over, never an error.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.durable import sync
from model_store.manifest import ModelName, Precision, Sha256, Version
from model_store.store import PROFILES_FOLDER
from model_store.stored_model import StoredModel
from service.settings import Provider, StoreSettings

MAX_BYTES: Final = 64 * 2**10

_Words = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Count = Annotated[int, Field(ge=1, le=256)]


def one_line(text: str) -> str:
    """``text`` as a profile may hold it: printable, in a line, not long."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Choice(_Part):
    """The settings that are tuned, each by its name among them."""

    provider: Provider
    precision: Precision
    slots: _Count
    max_batch: _Count
    decode_threads: int = Field(ge=0, le=256)
    spread_lone_image: bool


class Figures(_Part):
    """What ``clients`` requests at a time saw, in this process, without HTTP."""

    clients: int = Field(ge=1)
    images_per_second: float = Field(gt=0)
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)


class Key(_Part):
    """What a measurement depends on. ``cores`` are one worker's; a version is None where the package is not there.

    ``fixed`` are the variables that the operator had set, with their values, of those that shape a measurement.
    """

    cpu: _Words
    cores: int = Field(ge=1)
    int8_dot: bool
    bf16: bool
    gpu: _Words | None
    onnxruntime: _Words
    openvino: _Words | None
    pillow: _Words
    resnet_serving: _Words
    model: ModelName
    version: Version
    sha256: dict[Precision, Sha256]
    fixed: dict[_Words, _Words]

    @property
    def file_name(self) -> str:
        """One a version, machine and fixed settings: the next measurement of these takes the place of the last."""
        machine = json.dumps([self.cpu, self.cores, self.int8_dot, self.bf16, self.gpu, sorted(self.fixed.items())])
        return f"{self.version}-{hashlib.sha256(machine.encode()).hexdigest()[:12]}.json"

    def differences(self, here: Key) -> Iterator[str]:
        """What is not the same ``here``, the most telling first."""
        for name, words in _WORDS.items():
            then, now = getattr(self, name), getattr(here, name)
            if then != now:
                yield f"measured with {words.format(then or 'none')}, this is {words.format(now or 'none')}"
        if (self.int8_dot, self.bf16) != (here.int8_dot, here.bf16):
            yield "measured on a CPU with other instructions"
        for precision in sorted(self.sha256.keys() | here.sha256.keys()):
            if self.sha256.get(precision) != here.sha256.get(precision):
                yield f"measured with another {precision} file"
        for name in sorted(self.fixed.keys() | here.fixed.keys()):
            then, now = self.fixed.get(name), here.fixed.get(name)
            if then is None:
                yield f"measured without {name}, which is {now}"
            elif then != now:
                yield f"measured with {name}={then}, which is {now or 'not set'}"


_WORDS: Final = {
    "model": "the model {}",
    "version": "version {}",
    "cpu": "the CPU {}",
    "cores": "{} cores a worker",
    "gpu": "the GPU {}",
    "onnxruntime": "onnxruntime {}",
    "openvino": "OpenVINO plugin {}",
    "pillow": "Pillow {}",
    "resnet_serving": "resnet-serving {}",
}


class Profile(_Part):
    """A profile's file, whole."""

    schema_version: Literal[1] = 1
    created: datetime
    key: Key
    choice: Choice
    figures: Figures
    goal_p99_ms: float = Field(gt=0)
    image_source: _Words

    @property
    def date(self) -> str:
        return f"{self.created:%Y-%m-%d}"

    @property
    def meets_goal(self) -> bool:
        return self.figures.p99_ms <= self.goal_p99_ms


@dataclass(frozen=True)
class Found:
    """The profile to use, if there is one, and a line for each that is passed over and matters."""

    profile: Profile | None
    ignored: tuple[str, ...] = ()


def profiles_folder(store: StoreSettings, stored: StoredModel) -> Path | None:
    """Where the profiles of ``stored`` lie; None where the settings want none."""
    if store.profiles == "off":
        return None
    if store.profiles == "auto":
        return stored.folder.parent / PROFILES_FOLDER
    return store.profiles / stored.manifest.name


def find(folder: Path, here: Key) -> Found:
    """The profile in ``folder`` that was measured with what is ``here``; where none was, what the nearest lacks."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.match(f"{here.version}-*.json"))
    except FileNotFoundError:
        return Found(None)
    except OSError as error:
        return Found(None, (f"profiles ignored: {folder}: {error.strerror or error}",))
    broken: list[str] = []
    others: list[tuple[int, Profile]] = []
    for path in paths:
        try:
            profile = load(path)
        except ValueError as error:
            broken.append(f"profile {path.name} ignored: {error}")
            continue
        different = list(profile.key.differences(here))
        if not different:
            return Found(profile, tuple(broken))
        others.append((len(different), profile))
    if others:
        _, nearest = min(others, key=lambda other: other[0])
        broken.append(f"profile of {nearest.date} ignored: {next(nearest.key.differences(here))}")
    return Found(None, tuple(broken))


def load(path: Path) -> Profile:
    """Read ``path`` strictly; ``ValueError`` says in a line what is wrong."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ValueError(f"no plain file of at most {MAX_BYTES} bytes")
        return Profile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100] or "profile"
        raise ValueError(f"{where!r}: {first['msg']}") from error


def check_writable(folder: Path) -> None:
    """``OSError`` where ``save`` could not write; better known before than after the measurement."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def save(folder: Path, profile: Profile) -> Path:
    """Write ``profile`` into ``folder``, whole or not at all, in the place of the last one like it."""
    text = json.dumps(profile.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".staging-", encoding="utf-8", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            temporary.chmod(0o644)
            sync(temporary)
            written = temporary.replace(folder / profile.key.file_name)
            sync(folder)
            return written
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
