from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.logs.log_format import JsonFormatter, TextFormatter, formatter

HOSTILE = 'a\r\n{"level":"info"}\x1b[2J\u2028\u202e\x00\ud800'


def a_record(message: str = "ready after 1.0 s", **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("service.x", logging.INFO, __file__, 1, message, None, None)
    record.fields = fields
    return record


def failed(message: str) -> logging.LogRecord:
    record = a_record()
    try:
        raise ValueError(message)
    except ValueError:
        record.exc_info = sys.exc_info()
    return record


def test_a_json_line() -> None:
    line = json.loads(JsonFormatter().format(a_record(status=200, id="a")))
    assert line.pop("time").endswith("Z")
    assert isinstance(line.pop("worker"), int)
    assert line == {"level": "info", "logger": "service.x", "message": "ready after 1.0 s", "status": 200, "id": "a"}


@pytest.mark.parametrize("one", [JsonFormatter(), TextFormatter(coloured=False), TextFormatter(coloured=True)])
@given(text=st.text(st.characters(), max_size=20) | st.just(HOSTILE))
def test_whatever_is_in_a_message_the_line_stays_one(one: logging.Formatter, text: str) -> None:
    line = one.format(a_record(text, route=text))
    assert len(line.split("\n")) == 1
    assert "\r" not in line
    if isinstance(one, JsonFormatter):
        assert set(json.loads(line)) == {"time", "level", "logger", "worker", "message", "route"}
    else:
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line.replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_a_traceback_is_a_field_or_indented() -> None:
    line = json.loads(JsonFormatter().format(failed(HOSTILE)))
    assert "ValueError" in line["exception"]
    first, *rest = TextFormatter(coloured=False).format(failed(HOSTILE)).split("\n")
    assert first.endswith("ready after 1.0 s")
    assert rest
    assert all(part.startswith("    ") and part.isprintable() for part in rest)


def test_text() -> None:
    assert (
        TextFormatter(coloured=False)
        .format(a_record(id="a b", empty=""))
        .endswith(' INFO    service.x: ready after 1.0 s id="a b" empty=""')
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_is_text_for_people() -> None:
    assert isinstance(formatter("auto", io.StringIO()), JsonFormatter)
    assert "\x1b[" in formatter("auto", Terminal()).format(a_record())
    assert isinstance(formatter("json", Terminal()), JsonFormatter)
    assert "\x1b[" not in formatter("text", io.StringIO()).format(a_record())
