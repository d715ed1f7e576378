"""``/v1/models``: what is served, on what, and what the store has besides."""

from __future__ import annotations

from service.errors import UnknownModel
from service.http import model_bodies as bodies
from service.http import model_examples
from service.http.answers import Answer, json_answer
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.models.lifecycle import Status
from service.models.registry import CANARY
from service.runtime import Runtime


class _Models:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def show_all(self, call: Call) -> Answer:
        call.query(Query)
        self._runtime.check_ready()
        registry, status = self._runtime.registry, self._runtime.lifecycle.status
        served = [
            bodies.version_body(one, default=number == 0, aliases=model.called(one.version))
            for number, one in enumerate(registry.served)
            if (model := registry.get(one.name)) is not None
        ]
        found = bodies.ModelsBody(
            models=served,
            loading=[bodies.NamedVersion(name=n, version=v) for n, s in status.items() for v in sorted(s.loading)],
            failed=[
                bodies.NamedFailure(name=name, version=version, reason=failure.reason)
                for name, one in status.items()
                for version, failure in one.failed.items()
            ],
        )
        return json_answer(found.model_dump(mode="json"))

    async def show(self, call: Call) -> Answer:
        call.query(Query)
        name, status = self._known(call)
        registry = self._runtime.registry
        model = registry.get(name)
        versions = {} if model is None else model.versions
        first = next(iter(registry.served), None)
        found = bodies.ModelBody(
            name=name,
            default=registry.default == name,
            unloaded=status.unloaded,
            aliases={} if model is None else dict(model.aliases),
            versions=[
                bodies.version_body(one, default=one is first, aliases=[] if model is None else model.called(version))
                for version, one in versions.items()
            ],
            loading=sorted(status.loading, key=int),
            failed=[bodies.FailureBody(version=v, reason=failure.reason) for v, failure in status.failed.items()],
            store=[] if status.view is None else list(status.view.versions),
            problem=status.trouble or None,
        )
        return json_answer(found.model_dump(mode="json"))

    async def shadow(self, call: Call) -> Answer:
        call.query(Query)
        name, _ = self._known(call)
        model = self._runtime.registry.get(name)
        canary = None if model is None else model.find(CANARY)
        if model is None or canary is None:
            raise UnknownModel(f"model {name!r} has no canary")
        settings, comparison = self._runtime.settings.canary, self._runtime.shadows.report(name)
        found = bodies.shadow_body(model.stable, canary, settings, comparison)
        return json_answer(found.model_dump(mode="json"))

    def _known(self, call: Call) -> tuple[str, Status]:
        """The model in the path, and what is known of it."""
        self._runtime.check_ready()
        name = call.path["name"]
        status = self._runtime.lifecycle.status.get(name)
        if status is None:
            there = ", ".join(self._runtime.lifecycle.status) or "none"
            raise UnknownModel(f"no model {name[:64]!r} is here; there: {there}")
        call.model = name
        return name, status


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    models = _Models(runtime)
    of_this_worker = "As the worker that answers has it; the others come to the same within `RESNET_WATCH_S`."
    show_all = Operation(
        "The models served",
        "models",
        f"One entry a version that is served, the one that answers by default first. {of_this_worker}",
        answers={200: {"application/json": bodies.ModelsBody}},
        examples={"one model served, a version failed": model_examples.MODELS_EXAMPLE},
    )
    show = Operation(
        "One model, with all its versions",
        "models",
        f"Served, loading and failed versions, aliases, and what the store has. {of_this_worker}",
        answers={200: {"application/json": bodies.ModelBody}},
        errors=(UnknownModel,),
        examples={"a version failed": model_examples.MODEL_EXAMPLE},
    )
    shadow = Operation(
        "How a model's canary compares with its stable version",
        "models",
        "What `RESNET_CANARY_MODE=shadow` has seen in the worker that answers, since either version was another.",
        answers={200: {"application/json": bodies.ShadowBody}},
        errors=(UnknownModel,),
        examples={"a canary in the shadow": model_examples.SHADOW_EXAMPLE},
    )
    return [
        Route("GET", "/v1/models", models.show_all, show_all),
        Route("GET", "/v1/models/{name}", models.show, show),
        Route("GET", "/v1/models/{name}/shadow", models.shadow, shadow),
    ]
