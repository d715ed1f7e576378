"""``python -m export verify``: measure a stored model again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from export.checkpoints.origins import NAMES
from export.commands.gate_options import max_accuracy_drop_option, min_agreement_option
from export.commands.options import ModelReference, store_option
from export.variants.gate import Thresholds
from export.verify import Original, verify
from model_store.command_line.options import json_option, print_json
from model_store.command_line.program import SOME_FAILED
from model_store.locations import open_store


@click.command("verify")
@click.argument("model", type=ModelReference(), metavar="MODEL[@VERSION]")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR_OR_ZIP",
    help="Images; in a folder a label, accuracy is measured.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The checkpoint that MODEL was exported from: fp32 is compared with PyTorch again.",
)
@click.option("--origin", type=click.Choice(NAMES), help="As the export was told; recognised by itself.")
@click.option("--weights", metavar="KEY", help="As the export was told: another state dict of the checkpoint's.")
@max_accuracy_drop_option
@min_agreement_option
@store_option
@json_option
def verify_command(
    model: tuple[str, str | None],
    images: Path,
    checkpoint: Path | None,
    origin: str | None,
    weights: str | None,
    max_accuracy_drop: float,
    min_agreement: float,
    store: str,
    as_json: bool,
) -> None:
    """Check a stored model's files and measure its variants again; status 1 where something is not as it should be.

    \b
    Example:
      python -m export verify cifar10 --images cifar10-test.zip
    """
    stored = open_store(store).resolve(*model)
    thresholds = Thresholds(max_accuracy_drop / 100, min_agreement / 100)
    name, version = stored.manifest.name, stored.manifest.version
    original = Original(checkpoint, origin, weights) if checkpoint else None
    findings = []
    if not as_json:
        click.echo(f"{'model':<10}{name} version {version}")
    for finding in verify(stored, images, original, thresholds, Console(stderr=True)):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.subject:<10}{'' if finding.passed else 'FAILED: '}{finding.text}")
    passed = all(finding.passed for finding in findings)
    if as_json:
        found = [asdict(finding) for finding in findings]
        print_json({"model": name, "version": version, "passed": passed, "findings": found})
    sys.exit(0 if passed else SOME_FAILED)
