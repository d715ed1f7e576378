"""wrk in the place of our own closed loop, where it is installed: a second opinion on fast models.

https://github.com/wg/wrk; on Debian, ``apt-get install wrk``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# wrk formats every request once; a turn costs it an index.
_SCRIPT: Final = """
local requests, turn = {}, 0
function init(paths)
  for number = 1, #paths do
    local file = assert(io.open(paths[number], "rb"))
    requests[number] = wrk.format("POST", nil, {["Content-Type"] = "image/jpeg"}, file:read("*a"))
    file:close()
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
"""
_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class WrkRun:
    """What wrk says: requests a second, answers that were neither 2xx nor 3xx, latencies in milliseconds."""

    per_second: float
    failed: int
    p50_ms: float
    p99_ms: float


def installed() -> bool:
    return shutil.which("wrk") is not None


def closed_loop(url: str, bodies: Sequence[bytes], clients: int, seconds: int) -> WrkRun:
    """``clients`` connections of one thread that send ``bodies`` in turn."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT)
        paths = [Path(folder) / str(number) for number in range(len(bodies))]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script), url]
        done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=True)
    return read(done.stdout)


def read(printed: str) -> WrkRun:
    """What wrk printed."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if rate is None:
        raise ValueError(f"wrk printed no rate: {printed}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    return WrkRun(float(rate[1]), int(failed[1]) if failed else 0, _latency(printed, 50), _latency(printed, 99))


def _latency(printed: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\b", printed, re.MULTILINE)
    if found is None:
        raise ValueError(f"wrk printed no latency of {percent} %: {printed}")
    return float(found[1]) * _UNITS[found[2]]
