"""``/v2/repository``: models taken out and loaded while the service runs, for whoever holds the admin key.

Triton's model repository extension of the Open Inference Protocol
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from model_store.names import check_name
from model_store.store import ModelStore
from service.errors import BadRequest, BodyTooLarge, LoadFailed, ServiceError, UnknownModel
from service.http.admin import ADMIN_ERRORS, check_key
from service.http.answers import Answer, json_answer
from service.http.bodies import read_body
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.models.selection import named
from service.runtime import Runtime

_MAX_BODY_BYTES: Final = 64 * 2**10

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class IndexRequest(_Body):
    ready: bool = Field(False, description="Only what can be asked now.")


class LoadRequest(_Body):
    parameters: dict[str, Any] = Field({}, description="None is taken: the store says what is loaded, and how.")


class UnloadParameters(_Body):
    unload_dependents: bool = Field(False, description="No model depends on another here, so it changes nothing.")


class UnloadRequest(_Body):
    parameters: UnloadParameters = UnloadParameters()


class IndexEntry(BaseModel):
    """A version in the store or in service; `reason` says why it is `UNAVAILABLE`."""

    name: str
    version: str
    state: State
    reason: str


class Index(RootModel[list[IndexEntry]]):
    """One entry a version."""


B = TypeVar("B", bound=_Body)


class _Repository:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._passes: set[asyncio.Task[bool]] = set()

    async def index(self, call: Call) -> Answer:
        wanted = await self._request(call, IndexRequest)
        names = list(self._runtime.lifecycle.status)
        return json_answer([row for name in names for row in self._rows(name, ready=wanted.ready)])

    async def load(self, call: Call) -> Answer:
        wanted = await self._request(call, LoadRequest)
        if wanted.parameters:
            raise BadRequest("load takes no parameters: the store and the settings say what is loaded")
        name = call.path["name"]
        if self._runtime.mirror is not None:
            await self._runtime.mirror.refresh()
        if not await self._can_load(name):
            raise UnknownModel(f"there is no model {name[:64]!r} to load")
        call.model = name
        await self._ask(name, unloaded=False)
        registry, status = self._runtime.registry, self._runtime.lifecycle.status.get(name)
        if registry.get(name) is None or status is None or status.failed or status.trouble:
            reasons = [] if status is None else [f"version {v}: {f.reason}" for v, f in status.failed.items()]
            reasons += [status.trouble] if status is not None and status.trouble else []
            raise LoadFailed(f"failed to load {name!r}: {'; '.join(reasons) or 'the store cannot be read'}")
        return json_answer(list(self._rows(name)))

    async def unload(self, call: Call) -> Answer:
        await self._request(call, UnloadRequest)
        name = call.path["name"]
        if name not in self._runtime.lifecycle.status:
            raise UnknownModel(f"there is no model {name[:64]!r} to unload")
        call.model = name
        await self._ask(name, unloaded=True)
        return json_answer(list(self._rows(name)))

    async def _request(self, call: Call, kind: type[B]) -> B:
        """The body, where the sender may ask at all."""
        check_key(call, self._runtime)
        self._runtime.check_ready()
        call.query(Query)
        body = await read_body(call, _MAX_BODY_BYTES, self._runtime.settings.connections.body_idle_s)
        try:
            return kind.model_validate_json(body or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise BadRequest(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from error

    async def _can_load(self, name: str) -> bool:
        settings = self._runtime.settings.store
        wanted = named(settings)
        try:
            check_name(name)
            versions = await asyncio.to_thread(ModelStore(settings.folder).versions, name)
        except (ValueError, OSError):
            return False
        return bool(versions) and (not wanted or name in wanted)

    async def _ask(self, name: str, *, unloaded: bool) -> None:
        """Ask all workers, and see to it that this one has done it; that goes on where the deadline passes."""
        await asyncio.to_thread(lambda: self._runtime.control.mark(name, unloaded=unloaded))
        task = asyncio.create_task(self._runtime.lifecycle.refresh({name}))
        self._passes.add(task)
        task.add_done_callback(self._passes.discard)
        await asyncio.shield(task)

    def _rows(self, name: str, *, ready: bool = False) -> Iterator[dict[str, str]]:
        """A row for each version of ``name``, oldest first."""
        lifecycle, model = self._runtime.lifecycle, self._runtime.registry.get(name)
        status = lifecycle.status.get(name)
        if status is None:
            return
        draining = {version for model, version in lifecycle.draining if model == name}
        served = set() if model is None else set(model.versions)
        in_store = [] if status.view is None else list(status.view.versions)
        for version in sorted({*in_store, *served, *draining}, key=int):
            state: State = "UNAVAILABLE"
            reason = ""
            if version in served:
                state = "READY"
            elif version in status.loading:
                state = "LOADING"
            elif version in draining:
                state = "UNLOADING"
            elif version in status.failed:
                reason = status.failed[version].reason
            else:
                reason = "unloaded" if status.unloaded else "not among the versions that are to be served"
            if state == "READY" or not ready:
                yield {"name": name, "version": version, "state": state, "reason": reason}


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    repository = _Repository(runtime)
    rows = {200: {"application/json": Index}}
    example = [{"name": "cifar10-resnet16", "version": "3", "state": "READY", "reason": ""}]
    examples = {"a model that is served": example}
    closed: tuple[type[ServiceError], ...] = (BadRequest, *ADMIN_ERRORS, BodyTooLarge)
    index = Operation(
        "The versions of all models",
        "repository",
        "Needs the admin key. In the state of the worker that answers.",
        body={"application/json": IndexRequest},
        answers=rows,
        errors=closed,
        examples=examples,
        access="admin",
    )
    load = Operation(
        "Load a model",
        "repository",
        "Needs the admin key. Reads the store now, and serves the model again where it was unloaded. The other workers "
        "follow within a second.",
        body={"application/json": LoadRequest},
        answers=rows,
        errors=(*closed, UnknownModel, LoadFailed),
        examples=examples,
        access="admin",
    )
    unload = Operation(
        "Take a model out",
        "repository",
        "Needs the admin key. All its versions are gone, in all workers and in those that replace one, until it is "
        "loaded again or the service starts anew; what was accepted is answered.",
        body={"application/json": UnloadRequest},
        answers=rows,
        errors=(*closed, UnknownModel),
        examples={"a model that finishes": [{**example[0], "state": "UNLOADING"}]},
        access="admin",
    )
    return [
        Route("POST", "/v2/repository/index", repository.index, index),
        Route("POST", "/v2/repository/models/{name}/load", repository.load, load),
        Route("POST", "/v2/repository/models/{name}/unload", repository.unload, unload),
    ]
