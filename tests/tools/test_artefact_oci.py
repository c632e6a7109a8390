"""The OCI image: what its layout says of its bytes, and that what is in it starts."""

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.tools.artefact_checkout import ROOT
from tools.artefact.build import build
from tools.artefact.oci import ARCHITECTURES, write_image
from tools.artefact.tags import OwnTag

pytestmark = pytest.mark.slow

TAG = OwnTag(platform.machine())


@pytest.fixture(scope="module")
def artefact() -> Path:
    return build(out=None, tags=[TAG])


@pytest.fixture(scope="module")
def image(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("oci") / "image"
    done = subprocess.run(
        [ROOT / "tools/artefact/oci", out, "--artefact", artefact],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    (top,) = json.loads((out / "index.json").read_text())["manifests"]
    assert done.stdout.strip() == top["digest"]
    return out


def blob(image: Path, described: dict) -> bytes:
    """A blob, held against its description."""
    content = (image / "blobs" / "sha256" / described["digest"].removeprefix("sha256:")).read_bytes()
    assert len(content) == described["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == described["digest"]
    return content


def parts(image: Path) -> tuple[dict, bytes]:
    """Configuration and unpacked layer of this machine's image."""
    (top,) = json.loads((image / "index.json").read_text())["manifests"]
    (named,) = json.loads(blob(image, top))["manifests"]
    assert named["platform"] == {"architecture": ARCHITECTURES[TAG.machine], "os": "linux"}
    manifest = json.loads(blob(image, named))
    (layer,) = manifest["layers"]
    return json.loads(blob(image, manifest["config"])), gzip.decompress(blob(image, layer))


def test_every_blob_is_what_its_digest_says(image: Path) -> None:
    """From the index to the layer; nothing else lies there."""
    config, layer = parts(image)
    assert json.loads((image / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"]["User"] == "65532:65532"
    assert len(list((image / "blobs/sha256").iterdir())) == 4


def test_the_same_artefact_gives_the_same_image(image: Path, artefact: Path, tmp_path: Path) -> None:
    """No time, no name of this machine: whoever builds it can compare digests."""
    digest = write_image(artefact, tmp_path / "again")
    assert (tmp_path / "again/index.json").read_bytes() == (image / "index.json").read_bytes()
    assert digest in (image / "index.json").read_text()


@pytest.mark.hosts
def test_the_service_starts_from_what_is_in_the_image(image: Path, tmp_path: Path) -> None:
    """Its entry point, in a root file system that is the layer and nothing more: no shell, no library of a host."""
    config, layer = parts(image)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        tar.extractall(tmp_path, filter="fully_trusted")  # noqa: S202 - made above
    tmp_path.chmod(0o755)
    argv = ["chroot", "--userspec=65532:65532", str(tmp_path), *config["config"]["Entrypoint"], "--version"]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/sbin:/usr/bin"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ai-client ")
    assert not (tmp_path / "bin").exists()
    (trusted,) = [word for word in config["config"]["Env"] if word.startswith("SSL_CERT_FILE=")]
    assert "BEGIN CERTIFICATE" in (tmp_path / trusted.partition("=/")[2]).read_text()
    assert (tmp_path / "var/cache/ai-client").stat().st_uid == 65532


def test_an_artefact_without_an_interpreter_makes_no_image(tmp_path: Path) -> None:
    """The error says how to build one, and nothing is left."""
    (tmp_path / "index.json").write_text(json.dumps({"version": "1", "trees": {}}))
    command = [ROOT / "tools/artefact/oci", tmp_path / "image", "--artefact", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "build it by tools/artefact/build --own" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
