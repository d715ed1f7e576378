"""Looking for a variant that the gate lets through: all layers first, then the worst ones kept in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import onnx
from rich.console import Console

from export.graphs.contract import check_graph
from export.graphs.feature_nodes import Layer
from export.images.image_sets import ImageSet
from export.variants.gate import Comparison, Logits, Thresholds, Verdict, compare, cpu_logits, judge
from export.variants.gate_providers import open_logits
from export.variants.half import halved, too_large
from export.variants.quantize import Calibrated, quantized
from export.variants.sensitivity import LayerHarm, layer_harms
from model_store.manifest import Manifest
from model_store.reports import GateProvider

# Layers kept in fp32, one attempt after the other, where the caller leaves it to us.
FALLBACKS: Final = (1, 2, 4)


@dataclass(frozen=True)
class Rules:
    """The gate's thresholds, whether it is off, and how many layers fall back to fp32 (None: a few, if needed)."""

    thresholds: Thresholds
    off: bool = False
    fallback: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A converted graph, the layers and nodes it keeps in fp32, and what the gate says of it.

    ``model`` is None for bf16, which is the fp32 file run otherwise. ``harms`` are all layers by the harm they do,
    the worst first; empty where nobody had to look.
    """

    model: onnx.ModelProto | None
    float_layers: tuple[Layer, ...]
    float_nodes: frozenset[str]
    comparison: Comparison
    verdict: Verdict
    harms: tuple[LayerHarm, ...]


class Candidates:
    """The candidates of one network: ``calibrated``, to be compared on ``provider`` with its own fp32 ``file``.

    validation -- the gate's images.
    probe      -- a few images that tell the worst layers.
    """

    def __init__(
        self,
        manifest: Manifest,
        file: Path,
        precision: Literal["int8", "fp16"],
        calibrated: Calibrated,
        validation: ImageSet,
        probe: ImageSet,
        console: Console,
        provider: GateProvider = "cpu",
    ) -> None:
        self._manifest = manifest
        self._precision = precision
        self._provider = provider
        self._baseline: Logits = cpu_logits(file)
        self._convert = {"int8": quantized, "fp16": halved}[precision]
        self._validation = validation
        self._probe = probe
        self._console = console
        self.too_large = too_large(calibrated) if precision == "fp16" else frozenset[str]()
        choice = tuple(layer for layer in calibrated.layers if self.too_large.isdisjoint(layer.nodes))
        self._calibrated = replace(calibrated, layers=choice)
        self._harms: tuple[LayerHarm, ...] = ()

    def best(self, labels: Sequence[str], rules: Rules) -> Candidate:
        """The first candidate that is not refused, else the last one."""
        *early, last = self._attempts(rules)
        for count in early:
            candidate = self._judge(count, labels, rules)
            if not candidate.verdict.reasons:
                return candidate
        candidate = self._judge(last, labels, rules)
        return replace(candidate, harms=self._worst_layers()) if candidate.verdict.reasons else candidate

    def _attempts(self, rules: Rules) -> Iterator[int]:
        """How many layers to keep in fp32; one must be left to convert."""
        most = len(self._calibrated.layers) - 1
        if rules.fallback is not None:
            yield min(rules.fallback, most)
            return
        yield 0
        if not rules.off:
            yield from (count for count in FALLBACKS if count <= most)

    def _judge(self, count: int, labels: Sequence[str], rules: Rules) -> Candidate:
        """The candidate with the ``count`` worst layers in fp32."""
        layers = tuple(harm.layer for harm in self._worst_layers()[:count]) if count else ()
        kept = frozenset(chain.from_iterable(layer.nodes for layer in layers))
        model = self._make(kept)
        check_graph(model, self._manifest.preprocessing, self._manifest.outputs)
        variant = open_logits(model.SerializeToString(), self._provider, self._precision)
        comparison, verdict = _gate(
            self._baseline, variant, self._provider, self._validation, labels, rules, self._console
        )
        return Candidate(model, layers, kept | self.too_large, comparison, verdict, self._harms)

    def _make(self, float_nodes: frozenset[str]) -> onnx.ModelProto:
        return self._convert(self._calibrated, float_nodes | self.too_large)

    def _worst_layers(self) -> tuple[LayerHarm, ...]:
        if not self._harms:
            images = list(self._probe.read())
            self._say(f"looking for the worst of {len(self._calibrated.layers)} layers on {len(images)} images")
            self._harms = tuple(layer_harms(self._calibrated, self._make, self._baseline, images, self._console))
            self._say(f"the worst: {', '.join(harm.layer.name for harm in self._harms[:4])}")
        return self._harms

    def _say(self, text: str) -> None:
        _say(self._console, text)


def in_bf16(file: Path, validation: ImageSet, labels: Sequence[str], rules: Rules, console: Console) -> Candidate:
    """The fp32 ``file`` as OpenVINO runs it in bf16: nothing is converted, and no layer can be kept in fp32."""
    variant = open_logits(file, "openvino", "bf16")
    comparison, verdict = _gate(cpu_logits(file), variant, "openvino", validation, labels, rules, console)
    return Candidate(None, (), frozenset(), comparison, verdict, ())


def _gate(
    baseline: Logits,
    variant: Logits,
    provider: GateProvider,
    images: ImageSet,
    labels: Sequence[str],
    rules: Rules,
    console: Console,
) -> tuple[Comparison, Verdict]:
    where = "" if provider == "cpu" else f", by {provider}"
    _say(console, f"comparing with fp32 on {images.count} images of {images.name}{where}")
    comparison = compare(images, baseline, variant, console)
    verdict = judge(comparison, labels, rules.thresholds, rules.off, provider)
    for reason in verdict.reasons:
        _say(console, f"the gate refuses: {reason}")
    return comparison, verdict


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
