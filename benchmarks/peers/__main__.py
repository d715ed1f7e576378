"""``python -m benchmarks.peers run`` measures; ``install`` only makes the environments; ``list`` names the peers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import DEFAULT_FOLDER, ensure
from benchmarks.peers.run import main as run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("command", choices=["run", "install", "list"])
    parser.add_argument("--envs", type=Path, default=DEFAULT_FOLDER, help="install: where (%(default)s)")
    if sys.argv[1:2] == ["run"]:
        run(sys.argv[2:])
        return
    options = parser.parse_args()
    for name, peer in PEERS.items():
        where = f", {ensure(peer.environment, options.envs)}" if options.command == "install" else ""
        print(f"{name}: {peer.name} (requirements/{peer.environment}.txt{where})")


if __name__ == "__main__":
    main()
