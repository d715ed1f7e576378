"""Made-up choices, figures, keys and profiles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.tuning.candidates import Trial
from service.tuning.profile import Choice, Figures, Key, Profile


def a_choice(**changes: Any) -> Choice:
    values = {
        "provider": "cpu",
        "precision": "fp32",
        "slots": 2,
        "max_batch": 8,
        "decode_threads": 0,
        "spread_lone_image": True,
    }
    return Choice(**(values | changes))


def some_figures(images_per_second: float = 100.0, p99_ms: float = 20.0, clients: int = 4) -> Figures:
    return Figures(clients=clients, images_per_second=images_per_second, p50_ms=p99_ms / 2, p99_ms=p99_ms)


def a_trial(*figures: Figures, stage: str = "slots", **changes: Any) -> Trial:
    return Trial(stage, a_choice(**changes), figures, None if figures else "it would not start")


def a_key(**changes: Any) -> Key:
    values = {
        "cpu": "A Processor 9000",
        "cores": 2,
        "int8_dot": True,
        "bf16": False,
        "gpu": None,
        "onnxruntime": "1.31.0",
        "openvino": "1.8.0",
        "pillow": "12.0",
        "resnet_serving": "0.1.0",
        "model": "tiny",
        "version": "1",
        "sha256": {"fp32": "0" * 64},
        "fixed": {},
    }
    return Key(**(values | changes))


def a_profile(key: Key | None = None, choice: Choice | None = None, **changes: Any) -> Profile:
    values = {
        "created": datetime(2026, 2, 3, tzinfo=UTC),
        "key": key or a_key(),
        "choice": choice or a_choice(),
        "figures": some_figures(),
        "goal_p99_ms": 50.0,
        "image_source": "made up",
    }
    return Profile(**(values | changes))
