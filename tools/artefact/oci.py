"""Writes an OCI image of the service, without a daemon: the tree that brings its own interpreter, and nothing else.

The image is a folder in OCI's image layout (specification 1.1), which `skopeo` and `crane` push to a registry as it is.
The same artefact gives the same image, byte for byte; the last line on stdout is its digest.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.artefact.build import build
from tools.artefact.errors import ArtefactError
from tools.artefact.store import INDEX
from tools.artefact.tags import OWN_TAGS, OwnTag

# As OCI names processors.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
HOME = "opt/ai-client"
USER = 65532
# An image has no trust store of a distribution; lay another bundle there, or name one with SSL_CERT_FILE.
_TRUSTED = f"/{HOME}/lib/certifi/cacert.pem"
CONFIG = "/etc/ai-client/ai-client.conf"
_PYTHON = f"/{HOME}/python"
# There is no shell in the image: the C library's loader starts the interpreter.
ENTRYPOINT = (
    *(f"{_PYTHON}/lib/ld.so", "--inhibit-cache", "--library-path", f"{_PYTHON}/lib"),
    *("--argv0", f"{_PYTHON}/bin/python3", f"{_PYTHON}/bin/python", "-I", "-S", "-B", f"/{HOME}/main.py"),
)
_TYPE = "application/vnd.oci.image"
_EPOCH = "1970-01-01T00:00:00Z"
_FILES = {
    "etc/passwd": b"ai-client:x:65532:65532::/nonexistent:/sbin/nologin\n",
    "etc/group": b"ai-client:x:65532:\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
}
_FOLDERS = {"etc": 0o755, "etc/ai-client": 0o755, "opt": 0o755, HOME: 0o755, "tmp": 0o1777}
# The service's own; a volume laid over one keeps what the next container needs.
_OWN_FOLDERS = ("run/ai-client", "var/cache/ai-client", "var/lib/ai-client", "var/log/ai-client")


def write_image(artefact: Path, out: Path) -> str:
    """Writes the image of every own tree of an artefact into a new folder; returns the digest of its index.

    Raises:
        ArtefactError: the artefact has no such tree, or the folder is there already.
    """
    index = json.loads((artefact / INDEX).read_bytes())
    trees = {tag: index["trees"][str(tag)] for tag in OWN_TAGS if str(tag) in index["trees"]}
    if not trees:
        raise ArtefactError(
            f"{artefact} has no tree with an interpreter; build it by tools/artefact/build --own"
        )
    if out.exists():
        raise ArtefactError(f"{out} is there already; name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".oci-partial-", dir=out.parent))
    try:
        (stage / "blobs" / "sha256").mkdir(parents=True)
        manifests = [_manifest(stage, tag, artefact / tree["file"], index) for tag, tree in trees.items()]
        described = _put_json(
            stage, {"schemaVersion": 2, "mediaType": f"{_TYPE}.index.v1+json", "manifests": manifests}
        )
        named = described | {"annotations": {"org.opencontainers.image.ref.name": str(index["version"])}}
        (stage / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
        (stage / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
        stage.chmod(0o755)
        stage.rename(out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return str(described["digest"])


def _manifest(stage: Path, tag: OwnTag, packed: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a processor's image and returns how the index names it."""
    layer = _layer(gzip.decompress(packed.read_bytes()))
    platform = {"architecture": ARCHITECTURES[tag.machine], "os": "linux"}
    config = {
        **platform,
        "created": _EPOCH,
        "config": {
            "User": f"{USER}:{USER}",
            "Env": ["LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", f"SSL_CERT_FILE={_TRUSTED}"],
            "Entrypoint": list(ENTRYPOINT),
            "Cmd": ["serve", "--config", CONFIG],
            "Labels": {"org.opencontainers.image.version": str(index["version"])},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": _EPOCH, "created_by": "tools/artefact/oci"}],
    }
    described = _put_json(stage, config, kind="config")
    packed_layer = _put(stage, gzip.compress(layer, 6, mtime=0), f"{_TYPE}.layer.v1.tar+gzip")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": described,
        "layers": [packed_layer],
    }
    return _put_json(stage, manifest, kind="manifest") | {"platform": platform}


def _layer(tree: bytes) -> bytes:
    """The image's one layer: a tree below /opt/ai-client, and the few files and folders around it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, mode in _FOLDERS.items():
            _add(out, name, b"", mode=mode)
        for name in sorted({part for path in _OWN_FOLDERS for part in _parts(path)}):
            _add(out, name, b"", mode=0o755, owner=USER if name in _OWN_FOLDERS else 0)
        for name, content in _FILES.items():
            _add(out, name, content, mode=0o644)
        with tarfile.open(fileobj=io.BytesIO(tree)) as packed:
            for member in packed:
                file = packed.extractfile(member) if member.isfile() else None
                _add(
                    out,
                    f"{HOME}/{member.name}",
                    file.read() if file else b"",
                    mode=member.mode,
                    is_file=bool(file),
                )
    return buffer.getvalue()


def _parts(path: str) -> list[str]:
    return [path[:end] for end, char in enumerate(path) if char == "/"] + [path]


def _add(
    out: tarfile.TarFile, name: str, content: bytes, *, mode: int, owner: int = 0, is_file: bool | None = None
) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = mode, owner, owner
    if bool(content) if is_file is None else is_file:
        info.size = len(content)
        out.addfile(info, io.BytesIO(content))
    else:
        info.type = tarfile.DIRTYPE
        out.addfile(info)


def _put_json(stage: Path, content: Mapping[str, Any], *, kind: str = "index") -> dict[str, Any]:
    return _put(stage, _json(content), f"{_TYPE}.{kind}.v1+json")


def _put(stage: Path, content: bytes, media_type: str) -> dict[str, Any]:
    """Writes a blob under its digest and describes it."""
    digest = hashlib.sha256(content).hexdigest()
    (stage / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tools/artefact/oci", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the image, which is not there yet")
    parser.add_argument("--artefact", type=Path, help="folder of a build (default: one of own trees)")
    options = parser.parse_args(argv)
    os.umask(0o022)
    try:
        print(write_image(options.artefact or build(out=None, tags=OWN_TAGS), options.out.absolute()))
    except (ArtefactError, OSError) as error:
        print(f"oci: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
