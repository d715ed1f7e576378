"""``quantize`` as one types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export import __main__ as program
from export.commands import quantize as module
from export.variants.variant import VariantRequest
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel
from tests.export import colours
from tests.export.mistakes import the_mistake


def run(*words: object) -> Result:
    return CliRunner().invoke(program.cli, ["quantize", *(str(word) for word in words)])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[VariantRequest]:
    """The requests that the command makes; nothing is converted."""
    requests: list[VariantRequest] = []

    def keep(request: VariantRequest, console: object) -> StoredModel:
        requests.append(request)
        return colours.publish(tmp_path / f"store-{len(requests)}")

    monkeypatch.setattr(module, "make_variants", keep)
    return requests


def test_defaults(asked: list[VariantRequest]) -> None:
    assert run("colours", "--calibrate", "train.zip").exit_code == 0
    assert asked == [VariantRequest(model="colours", store=str(EMBEDDED_MODELS), calibrate=Path("train.zip"))]


def test_every_option(asked: list[VariantRequest]) -> None:
    words = "colours@2 --calibrate a --validate b --precision fp16 --method entropy --calibration-images 7 --store s"
    words += " --provider cuda --max-accuracy-drop 1.5 --min-agreement 90 --gate off --fallback 3 --report r.html"
    result = run(*words.split())
    assert result.exit_code == 0, result.output
    (request,) = asked
    assert (request.model, request.store) == ("colours@2", "s")
    assert (request.calibrate, request.validate, request.report) == (Path("a"), Path("b"), Path("r.html"))
    assert (request.precisions, request.method, request.calibration_images) == (("fp16",), "entropy", 7)
    assert request.provider == "cuda"
    assert (request.rules.off, request.rules.fallback) == (True, 3)
    thresholds = request.rules.thresholds
    assert (thresholds.max_accuracy_drop, thresholds.min_agreement) == pytest.approx((0.015, 0.9))


def test_as_json(asked: list[VariantRequest]) -> None:
    found = json.loads(run("colours", "--calibrate", "a", "--store", "s", "--json").stdout)
    assert (found["model"], found["version"], found["folder"]) == ("colours", "1", "s/colours/1")
    assert [variant["precision"] for variant in found["variants"]] == ["fp32"]


def test_several_precisions_once_each(asked: list[VariantRequest]) -> None:
    words = ["--precision", "bf16", "--precision", "int8", "--precision", "bf16"]
    assert run("colours", "--calibrate", "a", *words).exit_code == 0
    assert asked[0].precisions == ("bf16", "int8")


@pytest.mark.parametrize(("text", "fallback"), [("auto", None), ("0", 0), ("5", 5)])
def test_fallback(asked: list[VariantRequest], text: str, fallback: int | None) -> None:
    assert run("colours", "--calibrate", "a", "--fallback", text).exit_code == 0
    assert asked[0].rules.fallback == fallback


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "model"),
        (("colours",), "--calibrate"),
        (("colours", "--calibrate", "absent.zip"), "neither a folder nor a zip"),
        (("none", "--calibrate", "absent.zip"), "no model 'none'"),
        (("colours", "--calibrate", "a", "--precision", "int4"), "--precision"),
        (
            ("colours", "--precision", "int8", "--precision", "bf16", "--validate", "a"),
            "int8 needs images to calibrate",
        ),
        (("colours", "--calibrate", "a", "--provider", "npu"), "--provider"),
        (("colours", "--calibrate", "a", "--provider", "cuda"), "cuda: this onnxruntime has no CUDA provider"),
        (("colours", "--precision=int8", "--precision=fp16", "--report", "r.html"), "--report is for one --precision"),
        (("colours", "--calibrate", "a", "--method", "guess"), "--method"),
        (("colours", "--calibrate", "a", "--calibration-images", "0"), "--calibration-images"),
        (("colours", "--calibrate", "a", "--max-accuracy-drop", "-1"), "--max-accuracy-drop"),
        (("colours", "--calibrate", "a", "--min-agreement", "101"), "--min-agreement"),
        (("colours", "--calibrate", "a", "--fallback", "some"), "--fallback"),
        (("colours", "--calibrate", "a", "--fallback", "-1"), "--fallback"),
        (("colours", "--calibrate", "a", "--gate", "ajar"), "--gate"),
        (("colours", "--calibrate", "a", "--report", "absent/r.html"), "no such folder"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    colours.publish(tmp_path)
    result = run(*words, "--store", tmp_path)
    line = the_mistake(result)
    assert message.lower() in line.lower()


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A model in a store, images to calibrate with and labelled ones."""
    monkeypatch.chdir(tmp_path)
    colours.publish(tmp_path / "store")
    train = colours.write(tmp_path / "train", colours.CALIBRATION, labels=False)
    test = colours.write(tmp_path / "test")
    return ["colours", "--store", tmp_path / "store", "--calibrate", train, "--validate", test, "--method", "minmax"]


def test_what_was_published_is_told(words: list[object], tmp_path: Path) -> None:
    result = run(*words, "--max-accuracy-drop", 10)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["model"] == "colours version 2 (tiny)"
    assert lines["calibration"] == "minmax, 24 images of train"
    assert lines["gate"] == "passed, by accuracy"
    assert lines["run"] == "on      cpu"
    assert lines["accuracy"].endswith("(fp32 100.00%)")
    assert lines["agreement"].endswith("of 60 images of test")
    assert Path(lines["report"]).is_file()
    assert "calibrating by minmax on 24 images" in result.stderr
    assert "comparing with fp32 on 60 images" in result.stderr
    assert ModelStore(tmp_path / "store").versions("colours") == ["1", "2"]


def test_a_refusal_is_one_line_that_names_the_report(words: list[object], tmp_path: Path) -> None:
    result = run(*words, "--max-accuracy-drop", 0, "--fallback", 0)
    assert result.exit_code == 2
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: int8 is refused: its accuracy, ")
    assert line.endswith("report: colours-int8-report.html")
    assert "Worst layers" in (tmp_path / "colours-int8-report.html").read_text()
    assert ModelStore(tmp_path / "store").versions("colours") == ["1"]


def test_an_ungated_variant_is_told_as_such(words: list[object]) -> None:
    result = run(*words, "--max-accuracy-drop", 0, "--gate", "off", "--fallback", 1)
    assert result.exit_code == 0, result.output
    assert "off: ungated, served only where asked for by name" in result.stdout
    assert "kept fp32   " in result.stdout


def test_help_has_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "python -m export quantize cifar10 --calibrate train.zip --validate test.zip" in result.stdout
