"""``/v1/jobs``: many images at once, answered later."""

from __future__ import annotations

import asyncio
import math
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from service.errors import BadRequest, BodyTooLarge, JobFailed, JobNotDone
from service.http import classify, embed, explain
from service.http.answers import Answer, FileAnswer, json_answer
from service.http.bodies import content_length
from service.http.images import JSON, ModelQuery
from service.http.job_operations import CREATE, NDJSON, REMOVE, RESULT, SHOW, JobQuery, ResultQuery
from service.http.routing import Call, Query, Route
from service.http.uploads import receive_images
from service.inference.pipeline import Pipeline
from service.inference.readings import Reading
from service.jobs.record import Job
from service.jobs.results import whole_lines
from service.jobs.runner import Runner
from service.jobs.scheduler import Scheduler
from service.jobs.store import RESULTS, JobStore, Upload, no_such_job
from service.runtime import Runtime

PATH: Final = "/v1/jobs"

_UNSERVED_S: Final = 60.0
"""How long a job waits at least for a worker that serves its model; workers load a new version one after the other."""
_UNSERVED_LOOKS: Final = 3
"""As above, in looks of the workers into the store."""


class _Task(NamedTuple):
    """A route whose answers a job gives: its query, of that what an image's result depends on, and how it is made."""

    query: type[ModelQuery]
    options: frozenset[str]
    reading: Callable[[Any, Pipeline], Reading]


_TASKS: Final = {
    "classify": _Task(
        classify.ClassifyQuery, frozenset({"top_k", "include", "class_", "min_probability"}), classify.reading
    ),
    "embed": _Task(embed.EmbedQuery, frozenset({"normalize"}), embed.reading),
    "explain": _Task(explain.ExplainQuery, frozenset({"class_"}), explain.reading),
}


class Jobs:
    """One worker's part in the jobs: it takes them in, runs some, and answers for all."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.jobs
        run_dir = runtime.settings.server.run_dir
        self._temporary: Path | None = None
        root = self._settings.jobs_dir or (run_dir and run_dir / "jobs")
        if root is None:  # no folder is shared: one of this process's own, made when the first job comes
            root = self._temporary = Path(tempfile.gettempdir()) / f"resnet-jobs-{secrets.token_hex(16)}"
        self.store = JobStore(root, self._settings)
        self._scheduler: Scheduler | None = None

    def start(self) -> None:
        """Look for work, now and whenever there is some."""
        if self._settings.jobs_max:
            metrics, settings = self._runtime.metrics, self._runtime.settings
            unserved_s = max(_UNSERVED_S, _UNSERVED_LOOKS * settings.store.watch_s)
            runner = Runner(self.store, self, settings.limits.max_body_bytes, metrics, unserved_s)
            self._scheduler = Scheduler(self.store, runner, lambda: self._runtime.unready is None, metrics)

    async def stop(self) -> None:
        """Leave the job at work to its next worker; before the runtime stops."""
        if self._scheduler is not None:
            await self._scheduler.stop()
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    async def perform(self, job: Job, image: bytes) -> dict[str, Any]:
        """What the task's route answers for ``image``."""
        task = _TASKS[job.task]
        with self._runtime.use(*job.model) as pipeline:
            reading = task.reading(task.query.model_validate(job.options), pipeline)
            found: dict[str, Any] = await pipeline.run(image, reading.read, math.inf, reading.outputs)
        if "timings" in found:
            found["timings"] = {"read": 0.0, **found["timings"]}  # no request was waited for
        return found

    def width(self, job: Job) -> int:
        """How many images of ``job`` may be in work at once; ``UnknownModel`` where its model is not served here."""
        with self._runtime.use(*job.model) as pipeline:
            if self._settings.jobs_width != "auto":
                return self._settings.jobs_width
            session = pipeline.session
            return 2 * (session.slots if session.on_cpu else self._runtime.settings.inference.max_batch)

    def routes(self) -> list[Route]:
        """The routes of this module; none where no job may be held."""
        if not self._settings.jobs_max:
            return []
        return [
            Route("POST", PATH, self.create, CREATE, self._settings.jobs_upload_s),
            Route("GET", f"{PATH}/{{id}}", self.show, SHOW),
            Route("DELETE", f"{PATH}/{{id}}", self.remove, REMOVE),
            Route("GET", f"{PATH}/{{id}}/result", self.result, RESULT),
        ]

    async def create(self, call: Call) -> Answer:
        query = call.query(JobQuery)
        task, options = _TASKS[query.task], _options(query)
        with self._runtime.use_for(call, query.model, query.version) as pipeline:
            manifest = pipeline.stored.manifest
            task.reading(task.query.model_validate(options), pipeline)  # what cannot be had is refused now
        most = self._settings.body_max_bytes
        length = content_length(call.headers) or most
        if length > most:
            raise BodyTooLarge(f"the body is too large; at most {most} bytes are taken in a job")
        upload = Upload(self.store)
        try:
            await asyncio.to_thread(upload.begin, length)
            contents = await receive_images(
                call,
                upload.input,
                self._settings,
                self._runtime.settings.limits.max_body_bytes,
                self._runtime.settings.connections.body_idle_s,
                self._runtime.metrics.received,
            )
            job = Job(
                id=upload.id,
                task=query.task,
                options=options,
                model=(manifest.name, manifest.version),
                images=len(contents.images),
                created=self.store.now(),
                owner=None if call.holder is None else call.holder.name,
            )
            await asyncio.to_thread(upload.accept, job, contents)
        finally:
            await asyncio.to_thread(upload.close)
        if self._scheduler is not None:
            self._scheduler.notify()
        location = (b"location", f"{PATH}/{job.id}".encode())
        return Answer(202, orjson.dumps(self._shown(job)), ((b"content-type", JSON.encode()), location))

    async def show(self, call: Call) -> Answer:
        call.query(Query)
        return json_answer(self._shown(await self._find(call)))

    async def result(self, call: Call) -> Answer:
        query = call.query(ResultQuery)
        job = await self._find(call)
        if not query.partial:
            if job.failure is not None:
                raise JobFailed(f"the job failed: {job.failure.message}; ?partial=true gives the lines there are")
            if job.state != "done":
                raise JobNotDone(f"{job.done} of {job.images} images are done; ?partial=true gives their lines")
        file, size = await asyncio.to_thread(whole_lines, self.store.folder(job.id) / RESULTS)
        if not size:  # none yet, or removed since
            await asyncio.to_thread(self.store.find, job.id)
        headers = ((b"content-type", NDJSON.encode()),)
        return FileAnswer(200, b"", headers, file, size, call.receive, head=call.method == "HEAD")

    async def remove(self, call: Call) -> Answer:
        call.query(Query)
        job = await self._find(call)
        await asyncio.to_thread(self.store.remove, job.id)
        return Answer(204, b"", ())

    async def _find(self, call: Call) -> Job:
        """The job that is asked for; ``UnknownJob`` also where it is not the sender's, who learns no more."""
        job = await asyncio.to_thread(self.store.find, call.path["id"])
        if call.holder is not None and job.owner != call.holder.name:
            raise no_such_job()
        return job

    def _shown(self, job: Job) -> dict[str, Any]:
        expires = self.store.expires(job)
        return {
            "id": job.id,
            "state": job.state,
            "task": job.task,
            "model": {"name": job.model[0], "version": job.model[1]},
            "images": job.images,
            "done": job.done,
            "failed": job.failed,
            "created": job.created,
            "expires": expires,
            **({} if job.failure is None else {"error": job.failure.model_dump()}),
            "links": {"self": f"{PATH}/{job.id}", "result": f"{PATH}/{job.id}/result"},
        }


def _options(query: JobQuery) -> dict[str, Any]:
    """What the job's task is asked with, as JSON; ``BadRequest`` for an option that is another task's."""
    given = query.model_fields_set - {"task", "model", "version"}
    if foreign := sorted(given - _TASKS[query.task].options):
        raise BadRequest(f"{foreign[0].rstrip('_')}: is no option of the task {query.task}")
    return query.model_dump(mode="json", by_alias=True, include=given)
