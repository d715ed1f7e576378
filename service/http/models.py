"""``/v1/models``: what is served, and on what."""

from __future__ import annotations

from typing import Any

from service.http.answers import Answer, json_answer
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.pipeline import Pipeline
from service.runtime import Runtime


class _Models:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def show_all(self, call: Call) -> Answer:
        call.query(Query)
        models = self._runtime.models
        described = [
            _describe(model, model is models[0]) | {"profile": profile.date if profile else None}
            for model, profile in zip(models, self._runtime.profiles, strict=True)
        ]
        return json_answer({"models": described})


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    models = _Models(runtime)
    show_all = Operation("The models served", "models", answers={200: {"application/json": {"type": "object"}}})
    return [Route("GET", "/v1/models", models.show_all, show_all)]


def _describe(pipeline: Pipeline, default: bool) -> dict[str, Any]:
    manifest, session = pipeline.stored.manifest, pipeline.session
    return {
        "name": manifest.name,
        "version": manifest.version,
        "default": default,
        "architecture": manifest.architecture.name,
        "classes": manifest.outputs.classes,
        "labels": pipeline.labels,
        "input": {"height": manifest.preprocessing.height, "width": manifest.preprocessing.width},
        "provider": session.provider,
        "precision": session.variant.precision,
        "gated": session.variant.gated,
        "passed_over": session.passed_over,
        "sha256": session.variant.sha256,
    }
