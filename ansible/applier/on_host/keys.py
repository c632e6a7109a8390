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
_CONFIG = f"{places.HOME}/{places.PARTIAL_PREFIX}try.conf"


class Trial(NamedTuple):
    """What became of one key: `name` says which, `refused` how the provider refused it; empty where it did not."""

    name: str
    fingerprint: str
    refused: str
    outcome: str


def try_keys(tree: Tree, host: Host, *, request: Request, plan: Plan) -> tuple[Trial, ...]:
    """Asks the provider for its models, which costs nothing, with each key that is to be laid down.

    A host without a release has nothing to ask with, and no key that could be lost.
    """
    installed = release.current(tree)
    if not request.tries_keys or not installed:
        return ()
    names = {request.key_path: "the key", request.key_next_path: "the next key"}
    new = [(names[item.path], item) for item in plan.items if isinstance(item, File) and item.path in names]
    trials = []
    for name, item in new:
        key = item.content.decode().strip()
        report = report_with(tree, host, installed=installed, config=_config(tree, request), key=key)
        trials.append(judge_key(name, fingerprint(key), report))
    return tuple(trials)


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
                "the keys before stay; set one that the provider takes"
            )
    return ""
