"""The work of `deploy_work` as a play of Ansible's own modules, tuned: loops, pipelining, no facts."""

from pathlib import Path
from typing import Any

from tests.bench.deploy_work import CLAIM, CURRENT, PACKED, UNITS, USER, Entry, Work

Task = dict[str, Any]


def play(work: Work) -> list[dict[str, Any]]:
    """A playbook, as data: JSON is YAML."""
    restart = {
        "name": "Restart the service",
        "ansible.builtin.command": "systemctl restart ai-client.service",
    }
    # A service that was just started anew has read its configuration.
    reload = {"name": "Reload the service", "ansible.builtin.command": "systemctl reload ai-client.service"}
    return [
        {
            "name": "Deploy",
            "hosts": "all",
            "gather_facts": False,
            "become": True,
            "tasks": [*_ground(work), *_files(work), *_service(work)],
            "handlers": [restart, reload | {"when": "not (anew is changed or unpacked is changed)"}],
        }
    ]


def _ground(work: Work) -> list[Task]:
    user = {"name": USER, "system": True, "create_home": False, "home": "/nonexistent"}
    return [
        {"name": "User", "ansible.builtin.user": user | {"shell": "/usr/sbin/nologin"}},
        {
            "name": "Folders",
            "ansible.builtin.file": _item("path", state="directory"),
            "loop": [_row(entry) for entry in work.directories],
        },
        {
            "name": "Packed release",
            "ansible.builtin.copy": {"src": work.packed, "dest": PACKED, "mode": "0644"},
        },
        {
            "name": "Release",
            "ansible.builtin.shell": {"cmd": work.unpack, "creates": work.release},
            "register": "unpacked",
            "notify": "Restart the service",
        },
        {
            "name": "Claim",
            "ansible.builtin.copy": {"src": "{{ bench_claim }}", "dest": CLAIM, "mode": "0600"},
        },
    ]


def _files(work: Work) -> list[Task]:
    kinds = (("restart", "anew", "Restart the service"), ("reload", "read", "Reload the service"))
    copies = [
        {
            "name": f"Files that need a {effect}",
            "ansible.builtin.copy": _item("dest", src="{{ item.source }}"),
            "loop": [_row(entry) for entry, kind in work.files if kind == effect],
            "register": register,
            "notify": handler,
        }
        for effect, register, handler in kinds
    ]
    target = f"releases/{Path(work.release).name}"
    link = {"path": CURRENT, "src": target, "state": "link", "force": True}
    return [*copies, {"name": "Current release", "ansible.builtin.file": link}]


def _service(work: Work) -> list[Task]:
    unit = {"name": "{{ item }}", "state": "started", "enabled": True}
    anew = {"daemon_reload": "{{ anew is changed and item == '" + UNITS[0] + "' }}"}
    return [
        {"name": "Units", "ansible.builtin.systemd_service": unit | anew, "loop": list(UNITS)},
        {"name": "Handlers", "ansible.builtin.meta": "flush_handlers"},
        {"name": "Health", "ansible.builtin.raw": work.health, "changed_when": False},
    ]


def _item(where: str, **more: str) -> dict[str, str]:
    rights = {name: "{{ item." + name + " }}" for name in ("owner", "group", "mode")}
    return {where: "{{ item.path }}"} | rights | more


def _row(entry: Entry) -> dict[str, str]:
    rights = {"path": entry.path, "owner": entry.owner, "group": entry.group, "mode": entry.mode}
    return rights | {"source": entry.source}
