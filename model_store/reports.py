"""The manifest's reports: what was measured of a variant before it was published.

Read as strictly as the rest: unknown fields are an error, and a gate's report
that claims more than its own figures is refused.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from model_store.files import File, Part

ROUNDING: Final = 1e-9  # of shares, which are quotients of whole numbers

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
GateRule = Literal["accuracy", "agreement", "off"]
GateProvider = Literal["cpu", "openvino", "cuda"]
Share = Annotated[float, Field(ge=0, le=1)]


class Accuracy(Part):
    """Top-1 accuracy of PyTorch and of the exported file on the same labelled images."""

    pytorch: Share
    exported: Share
    by_class: dict[str, Share]


class Parity(Part):
    """The exported file against PyTorch in fp32, on the same pixels.

    Errors are of the logits; relative ones are to the largest logit of the image.
    """

    images: int = Field(gt=0)
    image_source: str
    batch_sizes: list[int]
    top1_agreement: Share
    max_absolute_error: float = Field(ge=0)
    max_relative_error: float = Field(ge=0)
    passed: bool
    accuracy: Accuracy | None = None


class Quantization(Part):
    """How an int8 variant was made: the calibration, and the graph's nodes that were kept float by choice."""

    method: CalibrationMethod
    calibration_images: int = Field(gt=0)
    calibration_source: str
    float_nodes: list[str]


class Gate(Part):
    """A variant against fp32 on the same pixels: the variant on ``provider``, fp32 on ONNX Runtime's CPU provider.

    rule -- what was judged: ``accuracy`` on labelled images, ``agreement`` of the top classes where there are
    no labels, ``off``: nothing, and such a variant is for benchmarks. ``passed`` is whether the rule was kept;
    with ``off`` it is never true. ``max_accuracy_drop`` and ``min_agreement`` are the thresholds, as shares.
    ``accuracy`` is the variant's, ``baseline_accuracy`` fp32's. The error is of the logits. Reports from before
    there was a choice say no ``provider``: they are the CPU provider's.
    """

    rule: GateRule
    passed: bool
    provider: GateProvider = "cpu"
    images: int = Field(gt=0)
    image_source: str
    top1_agreement: Share
    accuracy: Share | None = None
    baseline_accuracy: Share | None = None
    max_accuracy_drop: Share
    min_agreement: Share
    max_absolute_error: float = Field(ge=0)
    by_class: dict[str, Share] = Field(default_factory=dict)
    baseline_by_class: dict[str, Share] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _holds(self) -> Self:
        """A report that says more than its figures is refused, whoever wrote it."""
        if (self.accuracy is None) != (self.baseline_accuracy is None):
            raise ValueError("accuracy and baseline_accuracy go together")
        if not self.passed:
            return self
        if self.rule == "off":
            raise ValueError("a gate that was off cannot have been passed")
        if self.rule == "agreement" and self.top1_agreement < self.min_agreement - ROUNDING:
            raise ValueError("passed, but the agreement is below its threshold")
        if self.rule == "accuracy":
            if self.accuracy is None or self.baseline_accuracy is None:
                raise ValueError("rule accuracy needs both accuracies")
            if self.baseline_accuracy - self.accuracy > self.max_accuracy_drop + ROUNDING:
                raise ValueError("passed, but the accuracy dropped by more than its threshold")
        return self


class Calibration(Part):
    """How far the model's confidence can be believed, fitted on labelled images that it was not trained on.

    Probabilities are softmax(logits / ``temperature``) (Guo et al., "On Calibration of Modern Neural Networks", 2017,
    https://arxiv.org/abs/1706.04599), which changes no answer, only how sure it is. The errors are expected
    calibration errors over ``bins`` of equal width, before and after. ``energy`` and ``max_logit`` are thresholds:
    ``coverage`` of the images have an energy score logsumexp(logits) (Liu et al., 2020,
    https://arxiv.org/abs/2010.03759), or a largest logit, of at least so much; what has less looks like none of them.
    All logits are fp32's, not divided by the temperature.

    images   -- so many fitted the temperature and the thresholds.
    held_out -- so many others, of the same source, that the errors were measured on; 0: on the same ones.
    report   -- the page for people, beside the manifest.
    """

    temperature: float = Field(gt=0, le=1000)
    images: int = Field(gt=0)
    held_out: int = Field(default=0, ge=0)
    image_source: str
    bins: int = Field(gt=0, le=1000)
    error_before: Share
    error_after: Share
    coverage: Share
    energy: float
    max_logit: float
    report: File | None = None
