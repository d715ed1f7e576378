from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.jobs.claims import Claim

_CLAIMANT = """
import sys
from pathlib import Path
from service.jobs.claims import Claim
claim = Claim.take(Path(sys.argv[1]))
print("taken" if claim else "refused", flush=True)
sys.stdin.readline()
"""


def claimant(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CLAIMANT, str(folder)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first = Claim.take(tmp_path)
    assert first is not None
    assert Claim.take(tmp_path) is None
    first.release()
    first.release()
    second = Claim.take(tmp_path)
    assert second is not None
    with second:
        assert Claim.take(tmp_path) is None
    third = Claim.take(tmp_path)
    assert third is not None
    third.release()


def test_a_folder_that_is_gone_cannot_be_claimed(tmp_path: Path) -> None:
    assert Claim.take(tmp_path / "none") is None


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    first = claimant(tmp_path)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "taken\n"
        second = claimant(tmp_path)
        assert second.communicate("\n", timeout=60)[0] == "refused\n"
        assert Claim.take(tmp_path) is None
    finally:
        first.kill()
        first.communicate()
    claim = Claim.take(tmp_path)
    assert claim is not None
    claim.release()
