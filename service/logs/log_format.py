"""How the service's log lines look: JSON for programs, text for people. Whatever is in a message, a line stays one.

BentoML's own lines stay as they are.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import orjson

from service.logs.log_writer import Descriptor, LineQueue

LogFormat = Literal["auto", "json", "text"]

_COLOURS: Final = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}
_DIM: Final = "2"
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]|[\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """``text`` with what would end a line, steer a terminal or turn the direction of reading written as escapes."""
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What is in a record besides its message, by name (``extra={"fields": ...}``)."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, worker (its process id), message, the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "worker": record.process,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if trace := _trace(self, record):
            line["exception"] = trace
        try:
            return orjson.dumps(line).decode()
        except orjson.JSONEncodeError:  # names of files may hold bytes that are no characters
            return orjson.dumps({name: plain(str(value)) for name, value in line.items()}).decode()


class TextFormatter(logging.Formatter):
    """``time level logger message name=value ...``; a traceback follows, indented."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        time = _time(record).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        level = self._paint(f"{record.levelname:7}", _COLOURS.get(record.levelno))
        fields = [f"{self._paint(f'{name}=', _DIM)}{_shown(value)}" for name, value in fields_of(record).items()]
        line = f"{self._paint(time, _DIM)} {level} {record.name}: {plain(record.getMessage())}"
        traceback = _trace(self, record).splitlines()
        return "\n".join([" ".join([line, *fields]), *(f"    {plain(part)}" for part in traceback)])

    def _paint(self, text: str, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured and colour else text


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _shown(value: object) -> str:
    text = plain(str(value))
    return f'"{text}"' if " " in text or not text else text


def formatter(wanted: LogFormat, stream: TextIO) -> logging.Formatter:
    """``auto``: text in colours for whoever sits before it, else JSON."""
    terminal = stream.isatty()
    if wanted == "json" or (wanted == "auto" and not terminal):
        return JsonFormatter()
    return TextFormatter(coloured=terminal)


def install(wanted: LogFormat) -> None:
    """Print what the service's own loggers say, from INFO on, on stderr; BentoML's root handler prints it no more."""
    handler = LineQueue(Descriptor(sys.stderr.fileno()))
    handler.setFormatter(formatter(wanted, sys.stderr))
    ours = logging.getLogger("service")
    ours.handlers = [handler]
    ours.propagate = False
    ours.setLevel(logging.INFO)
