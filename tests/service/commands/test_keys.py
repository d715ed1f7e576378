"""``python -m service keys``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.__main__ import cli
from service.access.keys import Limits, digest_of, parse_keys


def test_a_key_and_its_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "keys", "new", "app", "--burst", "7"],
        capture_output=True,
        text=True,
        check=True,
    )
    key, line = done.stdout.splitlines()
    (found,) = parse_keys(line, Limits())
    assert (found.name, found.digest, found.limits) == ("app", digest_of(key), Limits(burst=7))
    assert done.stderr == ""


def test_lines_are_added_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = [CliRunner().invoke(cli, ["keys", "new", "app", "--file", str(path)]).stdout.strip() for _ in range(2)]
    path.write_text(path.read_text().rstrip("\n"))  # as some editors leave it
    other = CliRunner().invoke(cli, ["keys", "new", "other", "--file", str(path), "--images-per-s", "2.5"])
    found = parse_keys(path.read_text(), Limits())
    assert [key.digest for key in found] == [digest_of(key) for key in (*made, other.stdout.strip())]
    assert [key.name for key in found] == ["app", "app", "other"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"app wrong", b"\xff", None])
def test_a_file_that_would_be_wrong_is_left_as_it_is(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "none" / "keys" if content is None else tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    done = CliRunner().invoke(cli, ["keys", "new", "app", "--file", str(path)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert str(path) in done.stderr
    assert content is None or path.read_bytes() == content


def test_a_name_that_cannot_stand_in_a_line_is_refused() -> None:
    done = CliRunner().invoke(cli, ["keys", "new", "two words"])
    assert (done.exit_code, "letters, digits" in done.stderr) == (2, True)
