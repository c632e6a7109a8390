"""Everything that is measured, one after the other, each ended after its time: `make bench`."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_END_S = 120


def main() -> int:
    """Runs every benchmark; exit status 1 where one failed, after all have run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--hosts", type=int, default=50, help="hosts to deploy to")
    parser.add_argument("--many", type=int, default=200, help="hosts of the bench with dead and slow ones")
    given = parser.parse_args()
    hosts, many = str(given.hosts), str(given.many)
    venv = subprocess.run(["tools/venv", "bench"], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    litellm = f"{venv.stdout.strip()}/bin/python"
    library = ("--share", "0.3", "--rounds", "1", "--litellm-python", litellm)
    benches: tuple[tuple[str, Sequence[str], float], ...] = (
        ("limiter", (), 300),
        ("cache", (), 300),
        ("ledger", (), 300),
        ("library", library, 900),
        ("coordination_cost", (), 300),
        ("coordination", (), 1200),
        ("coordination_scale", (), 900),
        ("gateway", ("--seconds", "2", "--soak", "1000000", "--peers-python", litellm), 2400),
        ("preview", (), 900),
        ("registry", (), 3600),
        ("deploy", ("--hosts", hosts, "--preview"), 3600),
        ("many", ("--hosts", many), 5400),
    )
    failed = [name for name, words, limit_s in benches if not run(name, words, limit_s=limit_s)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, words: Sequence[str], *, limit_s: float) -> bool:
    """Runs one benchmark; whether it ended well. It may clean up after it was told to end."""
    print(f"\n== {name}", flush=True)
    with subprocess.Popen([sys.executable, "-m", f"tests.bench.{name}", *words], cwd=PROJECT) as bench:
        try:
            return bench.wait(limit_s) == 0
        except subprocess.TimeoutExpired:
            print(f"{name} took more than {limit_s:g} s, and was ended", file=sys.stderr)
            bench.terminate()
        try:
            bench.wait(_END_S)
        except subprocess.TimeoutExpired:
            bench.kill()
        return False


if __name__ == "__main__":
    sys.exit(main())
