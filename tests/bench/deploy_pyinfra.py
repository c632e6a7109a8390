"""The work of `deploy_work` as a pyinfra deploy: run by pyinfra, which reads it from the file that BENCH_WORK names."""

import json
import os
from pathlib import Path

from pyinfra.context import host
from pyinfra.operations import files, server, systemd

work = json.loads(Path(os.environ["BENCH_WORK"]).read_text(encoding="utf-8"))

group = server.group(group=work["user"], system=True)
server.user(  # noqa: S604 - the login shell of the user
    user=work["user"],
    group=work["user"],
    system=True,
    home="/nonexistent",
    shell="/usr/sbin/nologin",
    ensure_home=False,
)
for entry in work["directories"]:
    files.directory(path=entry["path"], user=entry["owner"], group=entry["group"], mode=entry["mode"])
files.put(src=work["claims"][host.name], dest=work["claim"], user="root", group="root", mode="0600")
packed = files.put(src=work["packed"], dest=work["packed_path"], user="root", group="root", mode="0644")
unpacked = server.shell(commands=work["unpack"], _if=packed.did_change)
laid = {"reload": [], "restart": []}
for entry, effect in work["files"]:
    put = files.put(
        src=entry["source"],
        dest=entry["path"],
        user=entry["owner"],
        group=entry["group"],
        mode=entry["mode"],
    )
    laid[effect].append(put)
link = files.link(path=work["current"], target="releases/" + Path(work["release"]).name)


def needs_restart() -> bool:
    """Whether the service has to start anew."""
    return any(operation.did_change() for operation in (packed, link, *laid["restart"]))


def needs_reload() -> bool:
    """Whether the service only has to read its configuration anew."""
    return not needs_restart() and any(operation.did_change() for operation in laid["reload"])


systemd.daemon_reload(_if=needs_restart)
for unit in work["units"]:
    systemd.service(service=unit, running=True, enabled=True)
server.shell(commands="systemctl restart ai-client.service", _if=needs_restart)
server.shell(commands="systemctl reload ai-client.service", _if=needs_reload)
server.shell(commands=work["health"])
