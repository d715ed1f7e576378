"""The architectures that can be exported, as ``list`` and ``inspect`` tell of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from export.networks.architecture import AnySpec, DenseNetSpec, HighwaySpec
from export.networks.costs import cost
from export.networks.published import PUBLISHED, Published
from export.networks.specs import SPECS

HEAD: Final = ("name", "input", "parameters", "multiply-adds", "embedding", "published")


def architectures() -> list[dict[str, Any]]:
    """All of them, for ``--json``."""
    return [_as_json(name, spec) for name, spec in SPECS.items()]


def _as_json(name: str, spec: AnySpec) -> dict[str, Any]:
    parameters, multiply_adds = cost(spec, classes(spec))
    return {
        "name": name,
        "input": spec.image_size,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "embedding": spec.embedding_size,
    }


def architecture_rows() -> Iterator[Sequence[str]]:
    """A row for every known architecture, with what it costs and what is published of it."""
    for name, spec in SPECS.items():
        parameters, multiply_adds = cost(spec, classes(spec))
        yield (
            name,
            f"{spec.image_size}x{spec.image_size}",
            f"{parameters:,}",
            f"{multiply_adds / 1e9:.3f} G",
            str(spec.embedding_size),
            _published(PUBLISHED.get(name)),
        )


def classes(spec: AnySpec) -> int:
    """Of the data set that the network is for: CIFAR-10's or ImageNet's."""
    return 10 if spec.cifar else 1000


def describe(spec: AnySpec) -> str:
    """``spec`` in a few words."""
    depths = "-".join(map(str, spec.depths))
    if isinstance(spec, DenseNetSpec):
        return f"DenseNet-BC, growth {spec.growth}, dense blocks of {depths} layers"
    if isinstance(spec, HighwaySpec):
        return f"highway network, stages of {depths} layers"
    words = {"none": "plain, no shortcuts", "A": "shortcuts A", "B": "shortcuts B", "C": "shortcuts C"}
    parts = [f"{spec.block} blocks {depths}", words[spec.shortcut], f"{spec.order}-activation", f"{spec.stem} stem"]
    if spec.block == "bottleneck":
        parts.append(f"stride in the {spec.stride_in}")
    if spec.groups > 1:
        parts.append(f"{spec.groups} groups of {spec.group_width}")
    elif spec.group_width != 64:
        parts.append(f"{spec.group_width / 64:g} times as wide inside")
    if spec.attention != "none":
        parts.append({"se": "squeeze and excitation", "eca": "efficient channel attention"}[spec.attention])
    parts += ["average-pool shortcuts"] * spec.pool_shortcut + ["blur-pool"] * spec.blur_pool
    return ", ".join(parts)


def _published(found: Published | None) -> str:
    if found is None:
        return ""
    millions = found.parameters and found.parameters + ("" if "," in found.parameters else " M")
    figures = [millions, found.multiply_adds and f"{found.multiply_adds} G"]
    note = f"; {found.note}" if found.note else ""
    return f"{', '.join(figure for figure in figures if figure)} ({found.source}{note})"
