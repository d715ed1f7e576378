"""The command line from its words to its exit status, against a service made of a function."""

from __future__ import annotations

import csv
import functools
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from service.client.command import run
from service.client.command.main import main
from service.client.concurrent import AsyncClient
from service.client.retry import Retry
from tests.service.client.conftest import HEATMAP, PNG, SHIP, Handler, Script, answer, as_lines, labels, refusal

Run = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """``command(service, *words)`` in a folder with three images; nothing is waited for."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_text(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERVER_URL", raising=False)
    monkeypatch.setattr(run, "Retry", functools.partial(Retry, first_pause_s=0))

    def invoke(service: Handler, *words: str, **more: object) -> Result:
        on_it = functools.partial(AsyncClient, transport=httpx.MockTransport(service))
        monkeypatch.setattr(run, "AsyncClient", on_it)
        return CliRunner().invoke(main, words, **more)  # type: ignore[arg-type]

    return invoke


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predict(command: Run) -> None:
    done = command(labels, "predict", "c.jpg", "a.jpg", "b.jpg")
    assert done.exit_code == 0
    assert [(row["file"], row["label"]) for row in rows(done.stdout)] == [
        ("c.jpg", "c"),
        ("a.jpg", "a"),
        ("b.jpg", "b"),
    ]
    assert done.stderr == ""


def test_options_go_into_the_query(command: Run) -> None:
    service = Script(answer({"predictions": [SHIP]}))
    words = "predict a.jpg --model m --version 2 --top-k 3 --min-probability 0.5 --url http://there.test -H X-Key:k"
    assert command(service, *words.split()).exit_code == 0
    (request,) = service.requests
    assert request.url.host == "there.test"
    assert dict(request.url.params) == {"model": "m", "version": "2", "top_k": "3", "min_probability": "0.5"}
    assert request.headers["x-key"] == "k"


@pytest.mark.parametrize("words", ["--model m@2", "--model m@2 --version 2", "--model m --version 2"])
def test_a_model_and_its_version(command: Run, words: str) -> None:
    service = Script(labels)
    assert command(service, "predict", "a.jpg", *words.split()).exit_code == 0
    assert dict(service.requests[0].url.params) == {"model": "m", "version": "2", "top_k": "1"}


def test_two_versions_are_one_too_many(command: Run) -> None:
    done = command(Script(labels), "predict", "a.jpg", "--model", "m@2", "--version", "3")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --model m@2 and --version 3 differ")


def test_the_url_may_be_a_variable(command: Run) -> None:
    service = Script(labels)
    command(service, "predict", "a.jpg", env={"SERVER_URL": "http://elsewhere.test"})
    assert service.requests[0].url.host == "elsewhere.test"


def test_standard_input(command: Run) -> None:
    done = command(labels, "predict", "-", "a.jpg", input=b"piped")
    assert [(row["file"], row["label"]) for row in rows(done.stdout)] == [("-", "piped"), ("a.jpg", "a")]


@pytest.mark.parametrize("suffix", ["csv", "json", "ndjson", "jsonl", "parquet", "pq", "txt"])
def test_the_outputs_suffix_chooses_the_format(command: Run, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    done = command(labels, "predict", ".", "--output", str(output))
    assert (done.exit_code, done.stdout) == (0, "")
    found = {
        "csv": lambda: [row["label"] for row in rows(output.read_text())],
        "json": lambda: [one["predictions"][0]["label"] for one in json.loads(output.read_text())],
        "ndjson": lambda: [one["predictions"][0]["label"] for one in as_lines(output.read_text())],
        "parquet": lambda: pyarrow.parquet.read_table(output).column("label").to_pylist(),
        "txt": lambda: [line.split()[2] for line in output.read_text().splitlines()[1:]],
    }
    assert found[{"jsonl": "ndjson", "pq": "parquet"}.get(suffix, suffix)]() == ["a", "b", "c"]


def test_embeddings_are_lines_of_json_off_a_terminal(command: Run) -> None:
    done = command(lambda _: answer({"embedding": [1.0, 2.0]}, dimensions=2), "embed", "a.jpg")
    assert as_lines(done.stdout)[0]["embedding"] == [1.0, 2.0]


def test_some_images_fail(command: Run) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        return refusal(415, "not_an_image") if request.read() == b"b" else labels(request)

    done = command(service, "predict", ".")
    assert done.exit_code == 1
    assert [row["error"] for row in rows(done.stdout)] == ["", "not_an_image: so it is", ""]
    assert done.stderr == "1 of 3 images failed: not_an_image 1\n"


def test_overload_is_waited_out_and_told_once(command: Run) -> None:
    full = refusal(429, "overloaded", "full", retry_after="0")
    done = command(Script(full, full, full, labels), "predict", ".", "--retries", "3")
    assert done.exit_code == 0
    assert len(rows(done.stdout)) == 3
    assert done.stderr == "full (429 overloaded); trying again\n"


def test_overload_that_does_not_end_is_an_error_of_its_images(command: Run) -> None:
    done = command(Script(refusal(429, "overloaded", "full")), "predict", ".", "--retries", "1")
    assert done.exit_code == 1
    assert [row["error"] for row in rows(done.stdout)] == ["overloaded: full"] * 3


def test_no_service(command: Run) -> None:
    done = command(Script(httpx.ConnectError("refused")), "predict", ".", "--retries", "1")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.endswith("error: http://127.0.0.1:3000: no connection: refused\n")


def test_a_service_that_dies_leaves_what_there_is(command: Run, tmp_path: Path) -> None:
    service = Script(labels, httpx.ConnectError("refused"))
    done = command(service, "predict", ".", "--retries", "0", "--concurrency", "1", "-o", "out.json")
    assert done.exit_code == 2
    assert [one["file"] for one in json.loads((tmp_path / "out.json").read_text())] == ["./a.jpg"]
    assert "2 of 3 images were not asked about" in done.stderr


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="hello"),
        httpx.Response(200, json=[]),
        httpx.Response(404, html="none"),
        refusal(404, "unknown_model"),
    ],
)
def test_another_service_or_no_such_model(command: Run, response: httpx.Response) -> None:
    done = command(Script(response), "predict", ".")
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "words",
    [
        "predict",
        "predict none.jpg",
        "predict a.jpg --format parquet",
        "predict a.jpg --output out.xyz",
        "predict a.jpg --output none/out.csv",
        "predict a.jpg --url ftp://there",
        "predict a.jpg --header nonsense",
        "predict a.jpg --concurrency 0",
        "explain a.jpg --style overlay",
        "describe a.jpg",
    ],
)
def test_wrong_usage(command: Run, words: str) -> None:
    service = Script(labels)
    done = command(service, *words.split())
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert not service.requests


def test_a_message_does_not_steer_the_terminal(command: Run) -> None:
    done = command(Script(refusal(400, "bad\x1b[2J", "two\nlines\x07")), "predict", ".")
    assert done.stderr == "error: two\ufffdlines\ufffd (400 bad\ufffd[2J)\n"


def test_without_pyarrow(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "old.parquet").write_text("kept")
    done = command(labels, "predict", "a.jpg", "-o", "old.parquet")
    assert done.exit_code == 2
    assert done.stderr == "error: Parquet needs pyarrow: pip install pyarrow\n"
    assert (tmp_path / "old.parquet").read_text() == "kept"


def explained(request: httpx.Request) -> httpx.Response:
    if request.headers["accept"] == "image/png":
        return httpx.Response(200, content=PNG, headers={"content-type": "image/png"})
    return answer({"heatmap": HEATMAP, "predictions": [SHIP]})


def test_explain(command: Run) -> None:
    done = command(explained, "explain", "a.jpg", "--class", "ship")
    assert done.exit_code == 0
    assert as_lines(done.stdout)[0]["heatmap"]["grid"] == [[1.0, 4.0]]


def test_explain_saves_pictures(command: Run, tmp_path: Path) -> None:
    service = Script(explained)
    done = command(service, "explain", ".", "--save", "maps", "--style", "overlay", "--opacity", "0.3")
    assert done.exit_code == 0
    assert [(row["label"], row["saved"]) for row in rows(done.stdout)] == [
        ("ship", f"maps/{name}.png") for name in "abc"
    ]
    assert all((tmp_path / "maps" / f"{name}.png").read_bytes() == PNG for name in "abc")
    drawn = [request for request in service.requests if request.headers["accept"] == "image/png"]
    assert [dict(request.url.params) for request in drawn] == [{"class": "8", "style": "overlay", "opacity": "0.3"}] * 3


def test_a_picture_that_cannot_be_saved(command: Run, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "b.png").mkdir()
    done = command(explained, "explain", ".", "--save", "maps")
    assert done.exit_code == 1
    assert [row["error"].partition(":")[0] for row in rows(done.stdout)] == ["", "not_saved", ""]


def test_help_names_the_commands() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert all(word in done.output for word in ("predict", "embed", "explain", "Exit status"))
