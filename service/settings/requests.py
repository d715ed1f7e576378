"""What requests and jobs may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from service.settings.values import (
    Folder,
    Group,
    ImageFormat,
    absolute,
    split,
)


class LimitSettings(Group):
    """What a request may cost."""

    max_queue: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="Images a worker holds at most, from acceptance to answer; beyond it requests get 429. "
        "So do those that would wait for more than half of `RESNET_DEADLINE_S`, at the rate of the last answers.",
    )
    deadline_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds from a request's first byte to its answer; beyond it 504, or 408 where its body was not "
        "all there.",
    )
    max_body_bytes: int = Field(10 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_held_bytes: int = Field(
        640 * 2**20,
        ge=1024,
        description="Bytes of request bodies a worker holds at most, from their arrival to the answer; beyond it "
        "requests get 429.",
    )
    max_images: int = Field(
        64,
        ge=1,
        le=4096,
        description="Most images in one request, in whatever form; never more than `RESNET_MAX_QUEUE`.",
    )

    @field_validator("max_held_bytes")
    @classmethod
    def _holds_a_body(cls, most: int, others: ValidationInfo) -> int:
        body = others.data.get("max_body_bytes")  # absent where it is wrong itself
        if body and most < body:
            raise ValueError(f"{most} is less than RESNET_MAX_BODY_BYTES, {body}")
        return most

    @property
    def images_per_request(self) -> int:
        """More than the queue holds could never be let in."""
        return min(self.max_images, self.max_queue)


class DecodeSettings(Group):
    """Which images are taken, and how many are decoded at once."""

    image_formats: Annotated[tuple[ImageFormat, ...], BeforeValidator(split)] = Field(
        ("jpeg", "png", "webp"),
        min_length=1,
        description="Formats taken, of jpeg, png, webp, bmp, gif (first frame) and tiff (first page).",
    )
    max_pixels: int = Field(
        2**24,
        ge=1024,
        description="Largest image, width times height; the default is that of 4096x4096, and a telephone's photo of "
        "12 million passes.",
    )
    max_jpeg_scans: int = Field(
        100,
        ge=1,
        description="Most scans of a progressive JPEG, which usually has ten: each is a pass over the whole image, so "
        "a small file of thousands takes seconds.",
    )
    decode_cpu_s: float = Field(
        2.0,
        ge=0.01,
        le=3600,
        description="Most seconds of processor time that an image may take to decode; beyond it 422, for that image "
        "alone. Only images that may be costly are decoded in a process of their own.",
    )
    decode_memory_bytes: int = Field(
        300_000_000, ge=2**24, description="Most memory that an image may take to decode; beyond it 422, as above."
    )
    decode_threads: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = Field(
        "auto",
        description="Threads that decode ahead of the slots. 0: each slot decodes what it infers. `auto`: 0 on CPUs, a "
        "worker's cores with an accelerator.",
    )

    def threads(self, cores: int, on_cpu: bool) -> int:
        """What ``decode_threads`` means for a worker with ``cores``: never more than it may be set to."""
        if self.decode_threads != "auto":
            return self.decode_threads
        return 0 if on_cpu else min(256, cores)


class JobSettings(Group):
    """Long work under /v1/jobs."""

    jobs_dir: Annotated[Folder, AfterValidator(absolute)] | None = Field(
        None,
        description="Folder that keeps jobs: those in it go on after a restart. By default one inside the run folder, "
        "which goes with the service. It holds clients' images, so none but the service's user may read it.",
    )
    jobs_max: int = Field(
        64, ge=0, le=10_000, description="Most jobs held, those that ended included; beyond it 429. 0: no jobs at all."
    )
    jobs_max_bytes: int = Field(
        4 * 2**30,
        ge=2**20,
        description="Most bytes of all jobs on disk. New jobs get 429 beyond three quarters of it; the rest is left to "
        "the results of those that were taken, of which one fails that would need more.",
    )
    jobs_max_body_bytes: int = Field(256 * 2**20, ge=1024, description="Largest request body of a job, in bytes.")
    jobs_max_unpacked_bytes: int = Field(
        2 * 2**30, ge=1024, description="Most bytes that a job's zip archive may unpack to, all entries together."
    )
    jobs_max_images: int = Field(10_000, ge=1, le=1_000_000, description="Most images in one job.")
    jobs_upload_s: float = Field(
        600.0, gt=0, le=86_400, description="Seconds that a job's body may take to come; beyond it 408."
    )
    jobs_ttl_s: float = Field(
        86_400.0, gt=0, le=31_536_000, description="Seconds that a job is kept after it ended; then it is removed."
    )
    jobs_width: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto",
        description="Images of a job that a worker has in work at once, which is what requests may have to wait for. "
        "`auto`: two for every slot on CPUs, two full batches with an accelerator.",
    )

    @property
    def inputs_max_bytes(self) -> int:
        """Bytes on disk beyond which nothing more is taken in."""
        return self.jobs_max_bytes * 3 // 4

    @property
    def body_max_bytes(self) -> int:
        """More could never be taken in."""
        return min(self.jobs_max_body_bytes, self.inputs_max_bytes)
