"""What the service answers, typed; whatever else comes is a ``BadAnswer``."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of an answer. Fields that this client does not know are left out: a newer service may send more."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Model(Part):
    """The model that answered."""

    name: str
    version: str


class Problem(Part):
    """What is wrong with an image: ``code`` for programs, ``message`` for people."""

    code: str
    message: str


class Prediction(Part):
    label: str
    index: int
    probability: float


class Scores(Part):
    """How unlike the training images an image is; ``out_of_distribution`` is None for a model without calibration."""

    max_logit: float
    energy: float
    out_of_distribution: bool | None = None


class Timings(Part):
    """Seconds that the parts of the way took."""

    read: float | None = None
    decode: float | None = None
    queue: float | None = None
    infer: float | None = None


class Size(Part):
    """Pixels."""

    width: int
    height: int


class Heatmap(Part):
    """The exact class activation map of a class: the mean of ``grid`` plus ``bias`` is ``logit``.

    ``box`` is the part of the upright image that the network saw: left, upper, right, lower, in pixels.
    """

    label: str
    index: int
    logit: float
    bias: float
    height: int
    width: int
    grid: list[list[float]]
    box: tuple[float, float, float, float]
    image: Size


class Result(Part):
    """One image's result; where it has an ``error`` the rest is None."""

    model: Model | None = None
    error: Problem | None = None


class Classification(Result):
    """``predictions``: the best classes, the best first; ``abstained``: none reached the least probability."""

    predictions: list[Prediction] | None = None
    abstained: bool | None = None
    embedding: list[float] | None = None
    heatmap: Heatmap | None = None
    scores: Scores | None = None
    timings: Timings | None = None


class Embedding(Result):
    embedding: list[float] | None = None


class Explanation(Result):
    heatmap: Heatmap | None = None
    predictions: list[Prediction] | None = None


R = TypeVar("R", bound=Result)


class Answer(Part, Generic[R]):
    """The body of an answer: a result an image, in the order they were sent."""

    model: Model
    results: list[R]


class ErrorAnswer(Part):
    """The body of an error."""

    error: Problem
    request_id: str = ""
