"""The dev stack in one command: `python -m tools.stacks.dev up` and `down`, as `make up` and `make down` run them.

Everything is set up that is missing, the stack is brought up through the real engine, and a request is answered by a
host's gateway. Progress goes to standard error, a short summary to standard output.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.report.follow import follow
from tools.report.progress import summary as counted

PROJECT = Path(__file__).resolve().parents[2]
STACK = "dev"
STATE = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ai-client-fleet"
ENV = "tools/env"


class DevError(Exception):
    """A step that failed: what, why, and what to do."""


def main(argv: list[str]) -> int:
    """Brings the dev stack up or down."""
    verbs = {"up": up, "down": down}
    if len(argv) != 1 or argv[0] not in verbs:
        print("usage: python -m tools.stacks.dev up|down", file=sys.stderr)
        return 2
    os.chdir(PROJECT)
    try:
        with alone(argv[0]):
            verbs[argv[0]]()
    except DevError as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"{argv[0]}: interrupted; run it again to finish, or 'make down' to remove everything",
            file=sys.stderr,
        )
        return 130
    return 0


@contextlib.contextmanager
def alone(verb: str) -> Iterator[None]:
    """Holds the dev stack for this process: two runs at once would fight over the same hosts."""
    if os.geteuid() != 0:
        raise DevError("local hosts need root; run it as root, or with sudo")
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (STATE / "dev.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another run"
            raise DevError(f"{holder} is at work on the dev stack; wait for it, or end it first") from None
        lock.truncate(0)
        lock.write(f"'make {verb}' (process {os.getpid()})")
        lock.flush()
        yield
        lock.truncate(0)


def up() -> None:
    """Brings the stack up and shows that it answers."""
    run(
        "1 of 4: base image of the local hosts",
        [sys.executable, "-m", "tools.hosts", "image", "--suite", "bookworm"],
    )
    run("2 of 4: Pulumi engine", ["tools/engine/build", "--plugin"])
    run("3 of 4: what the hosts install", ["tools/artefact/build"])
    say("4 of 4: roll-out")
    select_stack()
    changes = update("up", ["pulumi", "up", "--yes", "--skip-preview", "--json"])
    print(summary(changes, ask_gateway()))


def down() -> None:
    """Destroys the stack, and whatever of its hosts a crash has left."""
    run("Pulumi engine", ["tools/engine/build", "--plugin"])
    select_stack()
    try:
        update("down", ["pulumi", "destroy", "--yes", "--skip-preview", "--json"])
    except DevError as error:
        say(f"destroy did not finish ({error}); removing what is left of the hosts")
    order = json.dumps({"fleet": STACK})
    run("local hosts", [sys.executable, "-m", "tools.hosts", "purge"], stdin=order)
    capture([ENV, "--dev", "pulumi", "stack", "rm", STACK, "--yes", "--force", "--preserve-config"])
    print("The dev stack is gone.")


def select_stack() -> None:
    """Selects the stack, makes it on the first run, and clears a lock that a dead process left."""
    capture([ENV, "--dev", "pulumi", "stack", "select", STACK, "--create"])
    folder = STATE / ".pulumi" / "locks" / "organization" / "fleet" / STACK
    holders = [json.loads(path.read_text()) for path in folder.glob("*.json")] if folder.is_dir() else []
    if holders and not any(Path(f"/proc/{holder['pid']}").exists() for holder in holders):
        say("clearing the lock of a run that died")
        capture([ENV, "--dev", "pulumi", "cancel", "--yes", "--stack", STACK])


def update(verb: str, argv: list[str]) -> dict[str, int]:
    """Runs the engine, shows how far it has come, and answers how many resources of each kind changed."""
    words = [ENV, "--dev", *argv, "--non-interactive", "--stack", STACK]
    status, progress = follow(words, verb=verb, out=sys.stderr)
    if status != 0:
        raise DevError("\n".join(progress.told()) or f"the engine ended with status {status}")
    return progress.changes


def ask_gateway() -> str:
    """Sends one request to a host's gateway over its socket, as a user of that host would, and answers the reply."""
    # The simulator repeats the question up to that length.
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 2}
    request = "curl --silent --show-error --max-time 30 --unix-socket /run/ai-client/gateway.sock "
    request += "http://localhost/v1/chat/completions --header 'Content-Type: application/json' --data @-"
    argv = ["ssh", "-F", ssh_config(), "api-dev-01", request]
    answer = capture([ENV, "--dev", *argv], stdin=json.dumps(body))
    try:
        return str(json.loads(answer)["choices"][0]["message"]["content"])
    except (ValueError, LookupError):
        raise DevError(f"the gateway of api-dev-01 answered {answer[:200]!r}; see its journal") from None


def ssh_config() -> str:
    """The ssh configuration that the dynamic inventory lays down for the dev stack."""
    listed = json.loads(capture([ENV, "--dev", "ansible/inventory/fleet.py", "--list"], stack=STACK))
    return str(listed["_meta"]["hostvars"]["api-dev-01"]["ansible_ssh_common_args"].split()[1])


def summary(changes: dict[str, int], answer: str) -> str:
    """What a user reads at the end."""
    ansible = f"AI_CLIENT_FLEET_STACK={STACK} tools/env --dev ansible -i ansible/inventory/fleet.py"
    socket = "curl -s --unix-socket /run/ai-client/gateway.sock http://localhost/v1/models"
    return "\n".join(
        [
            f"The dev stack is up ({counted(changes)}). The gateway of api-dev-01 answers: {answer}",
            "",
            "Try next:",
            f"  {ansible} all -m ping",
            f"  {ansible} api-dev-01 -a '{socket}'",
            f"  {ansible} api-dev-01 -a 'curl -s http://127.0.0.1:9090/metrics'",
            "  tools/env --dev pulumi preview --stack dev --diff",
            "  make down",
        ]
    )


def run(what: str, argv: list[str], *, stdin: str = "") -> None:
    """One step of the setting up; its progress is shown as it comes, its answer is not needed."""
    say(what)
    done = subprocess.run(argv, input=stdin, stdout=subprocess.DEVNULL, text=True, check=False)
    if done.returncode != 0:
        raise DevError(f"the step '{what}' failed; its own message is above")


def capture(argv: list[str], *, stdin: str = "", stack: str | None = None) -> str:
    """Output of a command that must succeed."""
    environment = {**os.environ, **({"AI_CLIENT_FLEET_STACK": stack} if stack else {})}
    done = subprocess.run(argv, input=stdin, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DevError((done.stderr or done.stdout).strip())
    return done.stdout


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
