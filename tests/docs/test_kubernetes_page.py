"""The manifests for Kubernetes: valid by its own schemas, whole in themselves, and what they start answers."""

from __future__ import annotations

import asyncio
import io
import json
import platform
import signal
import subprocess
import tarfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from ai_client.gateway.app.callers import HostCheck
from ai_client.settings import Settings, loads
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.service_rig import TEST_KEY, TOKEN, TOKEN_SHA256, free_port
from tests.docs.pages import PROJECT
from tests.tools.test_artefact_oci import blob
from tools.artefact.build import build
from tools.artefact.oci import ENTRYPOINT, write_image
from tools.artefact.tags import OwnTag

FOLDER = PROJECT / "docs/examples/kubernetes"
FILES = ("daemonset.yaml", "sidecar.yaml")
# Containers that restart beside the program's are known since 1.29.
VERSIONS = ("1.29", "1.33", "1.37")
Manifest = dict[str, Any]


def manifests(name: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")) if each]


def one(name: str, kind: str) -> Manifest:
    (found,) = (each for each in manifests(name) if each["kind"] == kind)
    return found


def pod(name: str) -> Manifest:
    """The pod of the one manifest that makes pods."""
    (found,) = (each for each in manifests(name) if "template" in each.get("spec", {}))
    spec: Manifest = found["spec"]["template"]["spec"]
    return spec


def gateway(name: str) -> Manifest:
    """The gateway's container."""
    spec = pod(name)
    (found,) = (each for each in (*spec["initContainers"], *spec["containers"]) if each["name"] == "gateway")
    container: Manifest = found
    return container


def settings(name: str) -> Settings:
    """The configuration, as the service reads it."""
    return loads(one(name, "ConfigMap")["data"]["ai-client.conf"], path=name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_every_manifest_is_valid_by_kubernetes_own_schema(name: str, version: str) -> None:
    """Strictly: a key that Kubernetes does not know is an error."""
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_key_would_be_found() -> None:
    wrong = deepcopy(one("daemonset.yaml", "DaemonSet"))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_whole_in_itself(name: str) -> None:
    """What a container mounts is a volume, what is written is writable, and its ports are the configuration's."""
    spec, container, read = pod(name), gateway(name), settings(name)
    claims = [
        claim["metadata"]["name"]
        for each in manifests(name)
        for claim in each.get("spec", {}).get("volumeClaimTemplates", ())
    ]
    volumes = {volume["name"] for volume in spec["volumes"]} | set(claims)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} <= volumes
    own = (read.caching.cache_dir, read.logging.log_dir, read.gateway.socket.parent)
    for written in (*own, "/var/lib/ai-client"):
        assert not mounts[str(written)].get("readOnly", False), written
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert str(read.coordination.password_file.parent) in mounts
    assert read.coordination.endpoint
    assert read.coordination.endpoint.startswith("rediss://")
    ports = {port["containerPort"] for port in container["ports"]}
    assert read.monitoring.metrics_port in ports
    assert spec["terminationGracePeriodSeconds"] > read.gateway.drain_s
    named = {variable["name"] for variable in container["env"]}
    assert named == {"STATE_DIRECTORY", "AI_CLIENT_COORDINATION_HOST"}


def test_callers_may_use_every_name_of_the_service() -> None:
    """And no other: a page in a browser must not reach it by a name of its own."""
    service = one("daemonset.yaml", "Service")
    name, space = service["metadata"]["name"], service["metadata"]["namespace"]
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    check = HostCheck(settings("daemonset.yaml").gateway)
    for known in (name, f"{name}.{space}", f"{name}.{space}.svc", f"{name}.{space}.svc.cluster.local"):
        assert check.refusal(host=f"{known}:8800".encode(), origin=None) is None
    assert check.refusal(host=b"rebound.example:8800", origin=None) is not None


def test_the_state_is_owned_by_the_images_own_interpreter() -> None:
    """There is no shell and no chown in the image."""
    (first,) = pod("daemonset.yaml")["initContainers"]
    assert (*first["command"][:-1],) == ENTRYPOINT[: len(first["command"]) - 1]
    assert first["command"][-1] == "-c"
    assert first["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    compile(first["args"][0], "own-the-state", "exec")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's only layer, unpacked."""
    folder = tmp_path_factory.mktemp("pod")
    image = folder / "image"
    write_image(build(out=None, tags=[OwnTag(platform.machine())]), image)
    (top,) = json.loads((image / "index.json").read_text())["manifests"]
    (named,) = json.loads(blob(image, top))["manifests"]
    (layer,) = json.loads(blob(image, named))["layers"]
    unpacked = folder / "root"
    unpacked.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(blob(image, layer)), mode="r:gz") as tar:
        tar.extractall(unpacked, filter="fully_trusted")  # noqa: S202 - made above
    return unpacked


# What a kubelet does: a root that is read-only, volumes that anybody may write, and that belong to the pod's group, the
# state given away first, then the user.
_KUBELET = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,ro,bind "$ROOT"
for folder in $MOUNTS; do mount -t tmpfs -o mode=2777,gid=$GROUP tmpfs "$ROOT$folder"; done
mount -t tmpfs -o "$STATE" tmpfs "$ROOT/var/lib/ai-client"
[ $# = 0 ] || chroot "$ROOT" "$@"
export STATE_DIRECTORY=/var/lib/ai-client AI_CLIENT_COORDINATION_HOST=node-1
export SSL_CERT_FILE=/opt/ai-client/lib/certifi/cacert.pem
exec chroot --userspec=$PERSON --groups=$GROUP "$ROOT" $ENTRYPOINT $ARGS
"""


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.parametrize(
    ("person", "group", "state"),
    [
        pytest.param("65532:65532", "65532", "mode=0755", id="as it stands"),
        # OpenShift's: a user that the image does not know, in the group root (mizdebsk/koschei issue 282 and others).
        pytest.param("1000680000:0", "1000680000", "mode=2777,gid=1000680000", id="a random user"),
    ],
)
async def test_the_pod_of_the_daemonset_answers(
    root: Path, ports: tuple[int, int], person: str, group: str, state: str
) -> None:
    """Image, arguments, volumes and configuration as they stand there, on a root that nobody can write."""
    container, (first,) = gateway("daemonset.yaml"), pod("daemonset.yaml")["initContainers"]
    text = one("daemonset.yaml", "ConfigMap")["data"]["ai-client.conf"]
    async with Simulator(SimulatorOptions(keys=frozenset({TEST_KEY}))) as provider:
        for old, new in (
            ("https://api.holysheep.ai/v1", provider.base_url),
            ("port = 8800", f"port = {ports[0]}"),
            ("metrics_port = 9090", f"metrics_port = {ports[1]}"),
            ("0" * 64, TOKEN_SHA256),
        ):
            assert old in text
            text = text.replace(old, new)
        (root / "etc/ai-client/ai-client.conf").write_text(text)
        secrets = root / "run/secrets/ai-client"
        secrets.mkdir(parents=True, exist_ok=True)
        (secrets / "key").write_text(TEST_KEY)
        (secrets / "coordination").write_text("a-password-of-the-tests")
        written = [
            m["mountPath"]
            for m in container["volumeMounts"]
            if not m.get("readOnly") and m["name"] != "state"
        ]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "ROOT": str(root),
            "MOUNTS": " ".join(written),
            "PERSON": person,
            "GROUP": group,
            "STATE": state,
            "ENTRYPOINT": " ".join(ENTRYPOINT),
            "ARGS": " ".join(container["args"]),
        }
        gives_state = [*first["command"], *first["args"]] if person.startswith("65532") else []
        argv = ["unshare", "--mount", "sh", "-c", _KUBELET, "kubelet", *gives_state]
        process = await asyncio.create_subprocess_exec(*argv, env=environment, stderr=subprocess.PIPE)
        try:
            answer = await ask(ports[0], process)
            assert answer.status_code == 200, answer.text
            async with httpx.AsyncClient() as probe:
                assert (await probe.get(f"http://127.0.0.1:{ports[1]}/")).status_code == 200
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                _, said = await process.communicate()
        assert process.returncode == 0, said.decode()


async def ask(port: int, process: asyncio.subprocess.Process) -> httpx.Response:
    """As a pod does, by the service's name, as soon as it accepts."""
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    headers = {"host": "ai-client.ai-client.svc:8800", "authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=20) as client, asyncio.timeout(30):
        while True:
            try:
                return await client.post(
                    f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers
                )
            except httpx.ConnectError:
                if process.returncode is not None:
                    assert process.stderr is not None
                    pytest.fail((await process.stderr.read()).decode())
                await asyncio.sleep(0.02)
