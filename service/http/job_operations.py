"""What the routes of jobs take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from service.errors import (
    BadRequest,
    BodyTooLarge,
    JobFailed,
    JobNotDone,
    MissingOutput,
    SlowClient,
    StorageFull,
    TooManyImages,
    TooManyJobs,
    UnknownJob,
    UnknownModel,
    UnsupportedEncoding,
)
from service.http.classify import ClassifyQuery
from service.http.images import IMAGES_BODY, JSON
from service.http.operation import Operation
from service.http.routing import Query
from service.http.schemas import BINARY, Absent, ErrorBody, ModelReference, Part
from service.jobs.record import State

NDJSON: Final = "application/x-ndjson"


class JobQuery(ClassifyQuery):
    task: Literal["classify", "embed", "explain"] = Field(
        "classify", description="The route under `/v1` whose results the job gives; the other options are that route's."
    )
    normalize: bool = Field(False, description="Of `embed`: whether each embedding is brought to a length of 1.")


class ResultQuery(Query):
    partial: bool = Field(False, description="Answer the lines that there are, whatever the job's state.")


class JobLinks(Part):
    """Paths on this service."""

    self: str
    result: str


class JobBody(Part):
    """A job, and how far it is: `done` of its `images` have a result, of which `failed` are errors."""

    id: str = Field(
        pattern="^[0-9a-f]{32}$",
        description="Who knows it may read and remove the job; where keys are asked for, with one of the same name.",
    )
    state: State
    task: Literal["classify", "embed", "explain"]
    model: ModelReference
    images: int = Field(ge=1)
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    created: datetime
    expires: datetime | None = Field(description="When it is removed; null until it has ended.")
    error: Absent[ErrorBody]
    links: JobLinks


_ID: Final = "9f0c1b7e52d84a6fb3d10c7a9e4f2b68"


def _example(**changes: Any) -> dict[str, Any]:
    return {
        "id": _ID,
        "state": "queued",
        "task": "classify",
        "model": {"name": "cifar10-resnet16", "version": "3"},
        "images": 3,
        "done": 0,
        "failed": 0,
        "created": "2026-01-31T12:00:00.250000+00:00",
        "expires": None,
        "links": {"self": f"/v1/jobs/{_ID}", "result": f"/v1/jobs/{_ID}/result"},
        **changes,
    }


_LINES: Final = (
    '{"name":"cats/1.jpg","index":0,"predictions":[{"label":"cat","index":3,"probability":0.9512}]}\n'
    '{"name":"notes.txt","index":1,"error":{"code":"not_an_image","message":"the data is no image; '
    'taken are jpeg, png, webp"}}\n'
)

CREATE: Final = Operation(
    "Have many images answered later",
    "jobs",
    "The images of a zip archive, of a form, of JSON, or a single one. They are kept on disk and computed behind the "
    "requests that wait for an answer. The `Location` header is the job's.",
    query=JobQuery,
    body={"application/zip": BINARY, **IMAGES_BODY},
    answers={202: {JSON: JobBody}},
    errors=(
        BadRequest,
        UnknownModel,
        SlowClient,
        BodyTooLarge,
        UnsupportedEncoding,
        TooManyImages,
        MissingOutput,
        TooManyJobs,
        StorageFull,
    ),
    examples={"a new job": _example()},
)
SHOW: Final = Operation(
    "A job and how far it is",
    "jobs",
    query=Query,
    answers={200: {JSON: JobBody}},
    errors=(UnknownJob,),
    examples={
        "done": _example(state="done", done=3, failed=1, expires="2026-02-01T12:00:04.500000+00:00"),
        "failed": _example(
            state="failed",
            done=1,
            expires="2026-02-01T12:00:04.500000+00:00",
            error={"code": "unknown_model", "message": "no model 'cifar10-resnet16' version '2' is served"},
        ),
    },
)
RESULT: Final = Operation(
    "A job's results",
    "jobs",
    "A line of JSON an image, in the order they were sent: `name` (of a file; null where there is none), `index` from "
    "0, and what the task's route has in `results` for it, or its `error`.",
    query=ResultQuery,
    answers={200: {NDJSON: {"type": "string"}}},
    errors=(UnknownJob, JobNotDone, JobFailed),
    examples={"two images": _LINES},
)
REMOVE: Final = Operation(
    "Cancel and remove a job",
    "jobs",
    "It and its results are gone at once, whether it was done or not.",
    query=Query,
    answers={204: {}},
    errors=(UnknownJob,),
)
