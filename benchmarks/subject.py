"""Which model a program measures, and with which settings: options of the command line to ``RESNET_`` settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import Images, load_images
from benchmarks.report import Report, common_options, shorten
from service.config import variable


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose the model, how it runs, and what is sent to it."""
    chosen = parser.add_argument_group("what is measured")
    chosen.add_argument("--store", type=Path, help="model store; by default the embedded one")
    chosen.add_argument("--model", help="NAME or NAME@VERSION in it; by default its first")
    chosen.add_argument("--precision", help="as RESNET_PRECISION: fp32, int8, ...")
    chosen.add_argument("--provider", help="as RESNET_PROVIDER: openvino, cpu, cuda")
    chosen.add_argument("--images", type=Path, help="folder or zip of images; by default photos or made ones")
    chosen.add_argument(
        "--set", action="append", default=[], metavar="RESNET_NAME=VALUE", help="any other setting of the service"
    )


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """The ``RESNET_`` settings that the options mean."""
    given = {
        "model_store": None if options.store is None else str(options.store.absolute()),
        "models": options.model,
        "precision": options.precision,
        "provider": options.provider,
    }
    settings = {variable(field): value for field, value in given.items() if value is not None}
    try:
        return settings | assigned(options.set)
    except ValueError as error:
        raise SystemExit(f"--set {error}") from error


def assigned(texts: Iterable[str]) -> dict[str, str]:
    """What ``RESNET_NAME=VALUE`` each say; ``ValueError`` where one is no such text."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.startswith("RESNET_")):
            raise ValueError(f"{text}: write RESNET_NAME=VALUE")
        found[name] = value
    return found


@dataclass(frozen=True)
class Begun:
    """What a program that measures parts by themselves begins with: its options, and what they mean."""

    options: argparse.Namespace
    settings: dict[str, str]
    images: Images
    report: Report


def begin(program: str, doc: str | None, *, seconds: float, rounds: int, smoke_s: float) -> Begun:
    """``program``'s options read, its images loaded; in a smoke run each measurement takes ``smoke_s``."""
    parser = common_options(program, doc, seconds=seconds, rounds=rounds)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = doc
    add_model_options(parser)
    options = shorten(parser.parse_args())
    if options.smoke:
        options.seconds = smoke_s
    settings = settings_of(options)
    images = load_images(options.images)
    report = Report(program, options.smoke)
    report.subject = {
        "images": images.origin,
        "settings": " ".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
    }
    return Begun(options, settings, images, report)
