"""Tries a key at the provider before it is laid down: one that the provider refuses never replaces one that works."""

from typing import Any, NamedTuple

from . import places, release
from .host import Host
from .items import File
from .masking import fingerprint
from .plan import Plan
from .request import Request
from .tree import Tree

ACCEPTED = "accepted"
# As the client's health check says it, of this release and of all before.
_REFUSED = "refuses the key"
# What a configuration says of an upstream that a release needs to ask it, and of all of them together.
_OF_ANY_UPSTREAM = ("base_url", "dialect", "api_version", "key_prefix")
_FOR_ALL = ("security", "caching", "logging")
_CONFIG = f"{places.HOME}/{places.PARTIAL_PREFIX}try.conf"


class Trial(NamedTuple):
    """What became of one key: `name` says which, `refused` how the provider refused it; empty where it did not."""

    name: str
    fingerprint: str
    refused: str
    outcome: str


def try_keys(tree: Tree, host: Host, *, request: Request, plan: Plan) -> tuple[Trial, ...]:
    """Asks each provider for its models, which costs nothing, with each key that is to be laid down.

    A host without a release has nothing to ask with, and no key that could be lost.
    """
    installed = release.current(tree)
    if not installed:
        return ()
    tried = _tried(request)
    new = [(tried[item.path], item) for item in plan.items if isinstance(item, File) and item.path in tried]
    trials = []
    for (name, upstream), item in new:
        config = _config(tree, request)
        if upstream:
            config = config_of(upstream, config)
        if config:
            key = item.content.decode().strip()
            report = report_with(tree, host, installed=installed, config=config, key=key)
            trials.append(judge_key(name, fingerprint(key), report))
    return tuple(trials)


def _tried(request: Request) -> dict[str, tuple[str, str]]:
    """Which key each file holds, in words, and of which upstream; of the default one ""."""
    tried = {}
    if request.tries_keys:
        tried = {request.key_path: ("the key", ""), request.key_next_path: ("the next key", "")}
    if request.tries_upstream_keys:
        for path in request.key_files:
            name = path.rpartition("/")[2]
            # An upstream's name may end so, too.
            if name in request.upstream_keys:
                tried[path] = (f"the key of upstream {name}", name)
            else:
                name = name.rpartition(".")[0]
                tried[path] = (f"the next key of upstream {name}", name)
    return tried


def config_of(upstream: str, config: bytes) -> bytes:
    """The configuration with one of the other upstreams in the place of `[api]`, and what says how any is reached.

    Any release can be asked with it. Empty where the file has no such upstream, or where no key of a file signs there.
    """
    sections = _sections(config.decode(errors="replace"))
    said = _values(sections.get(f"upstream {upstream}", []))
    if "base_url" not in said or said.get("needs_key") == "false" or said.get("key_from", "file") != "file":
        return b""
    text = ["[api]", *(f"{name} = {said[name]}" for name in _OF_ANY_UPSTREAM if name in said)]
    for name in _FOR_ALL:
        text += [f"[{name}]", *sections.get(name, [])]
    return "".join(f"{line}\n" for line in text).encode()


def _values(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _sections(text: str) -> dict[str, list[str]]:
    """The lines of each section, as the client reads the file."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            lines = sections.setdefault(" ".join(line[1:-1].split()), [])
        elif line and not line.startswith(("#", ";")):
            lines.append(line)
    return sections


def _config(tree: Tree, request: Request) -> bytes:
    """The configuration that the key is for."""
    return request.config.encode() or tree.read(request.config_path) or b""


def report_with(tree: Tree, host: Host, *, installed: str, config: bytes, key: str = "") -> dict[str, Any]:
    """What a release says of a configuration, beside the running service; with the host's key where none is given."""
    tree.write(_CONFIG, config, gid=0, mode=0o600)
    try:
        return host.report_with(installed, config_path=_CONFIG, key=key)
    finally:
        tree.remove(_CONFIG)


def judge_key(name: str, key_fingerprint: str, report: dict[str, Any]) -> Trial:
    """What a report tells of the key: a provider that can't be asked gives no verdict."""
    upstream = report["checks"].get("upstream", {"ok": False, "detail": "was not asked"})
    detail = str(upstream.get("detail", "")).partition(";")[0]
    if upstream.get("ok"):
        return Trial(name, key_fingerprint, "", ACCEPTED)
    if detail.startswith(_REFUSED):
        return Trial(name, key_fingerprint, detail, detail)
    return Trial(name, key_fingerprint, "", f"no verdict: {detail}")


def refusal(trials: tuple[Trial, ...]) -> str:
    """Why nothing is laid down; empty where no key was refused."""
    for trial in trials:
        if trial.refused:
            return (
                f"{trial.name} {trial.fingerprint}: the provider {trial.refused}; nothing was changed on this host, "
                "and the earlier keys stay; set one that the provider accepts"
            )
    return ""
