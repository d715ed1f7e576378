"""How a command refuses: status 2, nothing on stdout, one line on stderr."""

from __future__ import annotations

from click.testing import Result


def the_mistake(result: Result) -> str:
    """The line that says what is wrong."""
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line
