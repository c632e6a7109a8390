"""Prints the program that lies on a host as the forced command of an ssh key that can only look."""

from pathlib import Path

from applier.on_controller import wire


def main() -> None:
    """The applier, as it is sent to hosts, and the program around it."""
    around = Path(__file__).with_name("host_program.py").read_text(encoding="utf-8")
    print(f"#!/usr/bin/python3 -IS\nPROGRAM = {wire.program_text()!r}\n\n{around}", end="")


if __name__ == "__main__":
    main()
