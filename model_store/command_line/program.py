"""Programs with commands: found by name, errors of one line, one meaning of each exit status, interrupts."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, NoReturn

import click

from model_store.errors import Explained

SOME_FAILED: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130
STATUSES: Final = (
    "Exit status: 0 all well; 1 it ran, but some of it failed or missed its goal; 2 wrong usage, or it could not be "
    "done; 130 interrupted. All commands: docs/command-line.md."
)


class Interrupted(click.Abort):
    """Ended by a signal; the message says what became of the work."""


@contextmanager
def when_interrupted(outcome: str) -> Iterator[None]:
    """Around a command: what its interruption leaves behind, in a few words."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(outcome) from error


class Program(click.Group):
    """Every error is one line on stderr and status 2; ended by SIGINT or SIGTERM, the status is 130.

    lazy        -- name by name, MODULE:ATTRIBUTE of commands that are imported only when asked for:
                   no command waits for what another one needs.
    program     -- what it is called in its own words; by default as it was typed.
    install     -- what to type where a command's packages are not installed.
    interrupted -- what an interruption leaves behind, of commands that do not say it themselves.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, str] = MappingProxyType({}),
        program: str | None = None,
        install: str = "",
        interrupted: str = "",
        **options: Any,
    ) -> None:
        options.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **options)
        self._lazy = lazy
        self._program = program
        self._install = install
        self._interrupted = interrupted

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            return _Missing(cmd_name, f"{cmd_name} needs the package {error.name}: {self._install}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}; {suggestion(args[0], names)}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        write_statuses(formatter)

    def main(self, *args: Any, **options: Any) -> NoReturn:
        if self._program is not None:
            options["prog_name"] = self._program
        # A shell starts what it puts into the background deaf to interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Terminated is as good as interrupted: nothing half-written stays behind.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            status = super().main(*args, **options | {"standalone_mode": False})
        except click.Abort as error:
            _fail("; ".join(filter(None, ("interrupted", str(error) or self._interrupted))), INTERRUPTED)
        except click.UsageError as error:
            hint = f" ({error.ctx.command_path} -h says more)" if error.ctx else ""
            _fail(error.format_message() + hint)
        except click.ClickException as error:
            _fail(error.format_message())
        except (Explained, OSError) as error:
            _fail(str(error))
        sys.exit(status if isinstance(status, int) else 0)


class _Missing(click.Command):
    """Stands for a command that cannot be imported here."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, help=reason)

    def parse_args(self, ctx: click.Context, args: list[str]) -> NoReturn:
        raise click.ClickException(str(self.help))


def suggestion(word: str, known: list[str]) -> str:
    """The one of ``known`` that ``word`` is most like, or all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def write_statuses(formatter: click.HelpFormatter) -> None:
    """What the exit status says, for the end of a help."""
    formatter.write_paragraph()
    formatter.write_text(STATUSES)


def _fail(message: str, status: int = FAILED) -> NoReturn:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(status)
