"""Known vulnerabilities of what is locked: ``python -m requirements.audit``, by pip-audit.

pip-audit ends with success where its service knows none of the packages, as a mirror without advisories does. That is
no audit, so it is told apart: status 0 for none found, 1 for some, 3 for an audit that could not be done.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import click

from requirements.locked import FOLDER

FOUND: Final = 1
NOT_DONE: Final = 3

Report = dict[str, Any]


def ask(lock: Path) -> Report:
    """pip-audit's own report on ``lock``; ``OSError`` says why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - all words are ours  # nosec B603
    try:
        report: Report = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise OSError(last) from error
    return report


def judge(report: Report) -> tuple[int, list[str]]:
    """The exit status that ``report`` deserves, and what there is to say."""
    packages = report["dependencies"]
    skipped = [p["name"] for p in packages if "skip_reason" in p]
    lines = [
        f"{p['name']} {p['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version'}"
        for p in packages
        for v in p.get("vulns", [])
    ]
    if len(skipped) == len(packages):
        return NOT_DONE, ["no audit: the service of advisories knows none of the packages"]
    if skipped:
        lines.append(f"not audited, unknown to the service of advisories: {', '.join(skipped)}")
    status = FOUND if any(p.get("vulns") for p in packages) else 0
    return status, [*lines, f"{len(packages) - len(skipped)} packages audited"]


def audit(locks: Sequence[Path], ask: Callable[[Path], Report] = ask) -> int:
    """Say what is known of each lock file; the worst status."""

    def judged(lock: Path) -> tuple[int, list[str]]:
        try:
            return judge(ask(lock))
        except OSError as error:
            return NOT_DONE, [f"no audit: {error}"]

    worst = 0
    with ThreadPoolExecutor() as pool:  # they wait for the service of advisories, most of the time
        for lock, (status, lines) in zip(locks, pool.map(judged, locks), strict=True):
            for line in lines:
                click.echo(f"{lock.name}: {line}")
            worst = FOUND if FOUND in (worst, status) else max(worst, status)
    return worst


@click.command()
@click.argument("locks", nargs=-1, type=click.Path(exists=True, path_type=Path))
def main(locks: tuple[Path, ...]) -> None:
    """Look for known vulnerabilities in LOCKS, by default in all lock files."""
    sys.exit(audit(locks or sorted(FOLDER.glob("*.lock"))))


if __name__ == "__main__":
    main()
