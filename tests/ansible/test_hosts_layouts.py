"""The real applier on the layouts of distributions that can't boot here, by old and new interpreters."""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from applier.on_controller import wire
from applier.on_controller.errors import DeliveryError

from tests.ansible.fake_root import Layout, raised, say_first
from tools.artefact.build import build
from tools.artefact.tags import OwnTag

# Wherever a developer keeps interpreters; the test machine has each from 3.6 to 3.13.
PYTHONS = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


def python(minor: int) -> Path:
    """The folder of an interpreter of this version; this test's own where the machine has none of it."""
    return next(iter(sorted(PYTHONS.glob(f"3.{minor}.*"))), Path(sys.base_prefix))


# RHEL and its kin build CPython without these (cr0hn/aiohttp-cache pull 26, nabla-c0d3/sslyze pull 457).
NO_HASHES = ("_md5", "_sha1", "_sha2", "_sha256", "_sha3", "_sha512")
PKI, SUSE = "/etc/pki/ca-trust/source/anchors", "/etc/pki/trust/anchors"
LAYOUTS = {
    # The test machine's 3.6 has no OpenSSL that it could hash with; RHEL 8's module python38 stands in for that.
    "rhel-8": Layout(
        python(6), 239, PKI, "update-ca-trust", selinux=True, found_at="/usr/libexec/platform-python"
    ),
    "rhel-8 with python38": Layout(python(8), 239, PKI, "update-ca-trust", selinux=True, lacks=NO_HASHES),
    "rhel-9": Layout(python(9), 252, PKI, "update-ca-trust", selinux=True, umask=0o077, lacks=NO_HASHES),
    "rhel-10": Layout(python(12), 257, PKI, "update-ca-trust", selinux=True, lacks=NO_HASHES),
    "amazon-linux-2023": Layout(python(9), 252, PKI, "update-ca-trust", lacks=NO_HASHES),
    "suse-15": Layout(python(6), 249, SUSE, umask=0o027),
    "ubuntu-20.04": Layout(python(8), 245),
    "ubuntu-22.04": Layout(python(10), 249),
    "ubuntu-24.04": Layout(python(12), 255),
    "a host without python": Layout(None, 252),
    "a host with python 3.7": Layout(python(7), 241),
    "arch": Layout(
        python(13), 259, "/etc/ca-certificates/trust-source/anchors", "trust", no_login="/usr/bin/nologin"
    ),
}
SINCE = {"ProtectProc": 247, "ProtectClock": 245, "ProtectKernelLogs": 244, "RestrictSUIDSGID": 242}


@pytest.mark.hosts
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_deployed_to_left_alone_and_cleaned(name: str) -> None:
    """Its own trust store, labels, user and unit options; the second run changes nothing; the end is empty."""
    layout = LAYOUTS[name]
    authority = trustme.CA().cert_pem.bytes().decode()
    with raised(layout) as host:
        first = host.run(ai_custom_ca=authority)
        assert (first["failed"], first["changed"]) == (False, True), first["message"]
        assert host.run(ai_custom_ca=authority)["changed"] is False

        rotated = host.run(ai_custom_ca=authority, key="hs_test_fake_root_key_1")
        assert (rotated["failed"], rotated["actions"]) == (False, ["reload ai-client.service"]), rotated

        (certificate,) = (host.root / layout.trust.lstrip("/")).glob("ai-client-*.crt")
        assert certificate.stat().st_mode & 0o777 == 0o644
        # A Debian's own program is the real one, which links what it took up.
        is_real = list((host.root / "etc/ssl/certs").glob("ai-client-*.pem"))
        assert len(host.told(layout.program).splitlines() or is_real) == 1
        assert ("/opt/ai-client" in host.told("restorecon")) is layout.selinux
        assert f":/nonexistent:{layout.no_login}\n" in (host.root / "etc/passwd").read_text()
        unit = (host.root / "etc/systemd/system/ai-client.service").read_text()
        for option, version in SINCE.items():
            assert (f"\n{option}=" in unit) is (version <= layout.systemd), option
        launcher = (host.root / "opt/ai-client/bin/ai-client").read_text()
        has_tree = layout.python == python(12) and python(12).name.startswith("3.12")
        assert ("/current/python/bin/python3 " in launcher) is not has_tree
        for path in (host.root / "opt/ai-client").rglob("*"):
            assert path.is_symlink() or path.stat().st_mode & 0o444 == 0o444, path

        gone = host.run("decommission")
        assert (gone["failed"], gone["message"]) == (False, "")
        left = list((host.root / "etc").rglob("*ai-client*"))
        assert (left, list((host.root / "opt").iterdir())) == ([], [])
        assert "ai-client" not in (host.root / "etc/passwd").read_text()


@pytest.mark.hosts
def test_a_host_without_python_is_looked_at_by_the_artefacts() -> None:
    """The plan names interpreter and digest, and leaves nothing; a stack that wants the host's own is refused."""
    with raised(Layout(None, 252)) as host:
        looked = host.run(check=True)
        assert (looked["failed"], looked["changed"]) == (False, True), looked["message"]
        own = json.loads((host.artefacts / "index.json").read_text())["trees"]["own-x86_64"]["sha256"]
        note = f"no Python on this host: looked at by that of the artefact (own-x86_64, {own[:12]})"
        assert note in looked["notes"]
        shown = "".join(change["after"] for change in looked["changes"])
        assert "exec /opt/ai-client/current/python/bin/python3 " in shown
        assert not (host.root / "opt/ai-client").exists()
        assert list((host.root / "var/tmp").iterdir()) == []
        with pytest.raises(
            DeliveryError, match="this host: has no Python; install python3 on it, or set ai_python"
        ):
            host.run(ai_python="host")
        with pytest.raises(DeliveryError, match="has no Python, and no release with one"):
            host.run("decommission")


@pytest.mark.hosts
def test_nothing_is_started_where_a_hardened_host_forbids_it() -> None:
    """A /var/tmp that is mounted noexec (ansible/ansible issue 78390): another folder, and none is left there."""
    with raised(Layout(None, 252)) as host:
        place = host.root / "var/tmp"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", place], check=True)
        try:
            looked = host.run(check=True)
            assert (looked["failed"], looked["changed"]) == (False, True), looked["message"]
            assert list(place.iterdir()) == []
        finally:
            subprocess.run(["umount", place], check=True)
        assert list((host.root / "opt").iterdir()) == []


@pytest.mark.hosts
def test_an_interpreter_that_is_not_the_artefacts_is_not_started() -> None:
    """Cut short or changed on the way: its digest is looked at before anything of it runs."""
    with raised(Layout(None, 252)) as host:
        digest = "0" * 64
        status, out, _ = host.send(wire.bring_and_start(size=4, digest=digest), b"treeand more")
        assert (status, out) == (1, "")
        assert list((host.root / "var/tmp").iterdir()) == []


def _flags(root: Path, text: str) -> None:
    """Makes the layout's interpreter say something else of itself, before the program runs."""
    say_first(root / "usr/bin/python3", text)


@pytest.mark.hosts
def test_a_build_without_the_gil_gets_the_artefacts_interpreter_or_is_refused() -> None:
    """As Python 3.13t and 3.14t say of themselves: their extension modules are others."""
    with raised(LAYOUTS["ubuntu-24.04"]) as host:
        _flags(host.root, "import sys; sys.abiflags = 't'")
        refused = host.run(check=True, ai_python="host")
        assert (refused["failed"], refused["changed"]) == (True, False)
        assert "this host's Python (cp312t-x86_64): is a free-threaded build" in refused["message"]
        assert "set ai_python: auto" in refused["message"]
        first = host.run()
        assert (first["failed"], first["changed"]) == (False, True), first["message"]
        assert "/current/python/bin/python3 " in (host.root / "opt/ai-client/bin/ai-client").read_text()


@pytest.mark.hosts
def test_another_c_library_is_refused_before_anything_is_laid_down() -> None:
    """musl, as its systems' Python says it: nothing is in the confstr that glibc names itself in."""
    with raised(LAYOUTS["ubuntu-24.04"]) as host:
        _flags(host.root, "import os; os.confstr = lambda name: None")
        for check in (True, False):
            refused = host.run(check=check)
            assert refused["failed"]
            assert (
                "this host: has another C library than glibc (musl?); use a system with glibc"
                in refused["message"]
            )
        assert not (host.root / "opt/ai-client").exists()
        assert not (host.root / "etc/ai-client").exists()


@pytest.mark.hosts
def test_a_name_that_is_not_ascii_is_what_the_request_says_whatever_the_locale() -> None:
    """A login without a locale, as sudo leaves one: Python 3.6 takes it for ASCII (ansible/ansible issue 66080)."""
    cache = "/srv/Zwischenspeicher für KI"
    with raised(LAYOUTS["suse-15"]) as host:
        first = host.run(ai_cache_dir=cache)
        assert (first["failed"], first["changed"]) == (False, True), first["message"]
        assert (host.root / cache[1:]).is_dir()
        assert host.run(ai_cache_dir=cache)["changed"] is False


@pytest.mark.hosts
def test_a_usr_that_nobody_can_write_is_left_alone() -> None:
    """As on transactional hosts: trust store, user, units and release lie elsewhere."""
    authority = trustme.CA().cert_pem.bytes().decode()
    with raised(LAYOUTS["suse-15"]) as host:
        usr = host.root / "usr"
        subprocess.run(["mount", "--bind", usr, usr], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", usr], check=True)
            first = host.run(ai_custom_ca=authority)
            assert (first["failed"], first["changed"]) == (False, True), first["message"]
            assert host.run("decommission")["failed"] is False
        finally:
            subprocess.run(["umount", usr], check=True)


@pytest.mark.hosts
def test_programs_that_a_minimal_image_lacks_are_named_by_the_preview() -> None:
    """No tar and no gzip, as in Amazon's (amazonlinux/container-images issue 29, quickwit-oss/quickwit pull 5385)."""
    packages = {
        "tar": "tar",
        "gzip": "gzip",
        "useradd": "passwd (Debian), shadow (SUSE, Arch) or shadow-utils (RHEL)",
        "restorecon": "policycoreutils",
        "update-ca-trust": "ca-certificates",
    }
    authority = trustme.CA().cert_pem.bytes().decode()
    with raised(LAYOUTS["rhel-9"]) as host:
        places = [host.root / folder / name for name in packages for folder in ("usr/bin", "usr/sbin")]
        for place in places:
            place.unlink(missing_ok=True)
        for check in (True, False):
            refused = host.run(check=check, ai_custom_ca=authority)
            assert refused["failed"]
            for name, package in packages.items():
                remedy = f"the program {name}: is missing on this host; install {package}"
                assert remedy in refused["message"]
        assert not (host.root / "opt/ai-client").exists()
        assert "ai-client" not in (host.root / "etc/passwd").read_text()


@pytest.mark.hosts
@pytest.mark.parametrize(
    ("systemd", "chosen", "said"),
    [
        (238, {}, "is of version 238, and the service's sandbox needs 239 or newer; upgrade"),
        (
            245,
            {"ai_key_from": "credential", "ai_credential_dir": "/etc/credstore"},
            "LoadCredential= needs 247",
        ),
        (
            249,
            {"ai_key_from": "credential"},
            "LoadCredentialEncrypted= needs 250 or newer; set ai_key_from: file",
        ),
    ],
)
def test_a_systemd_that_cannot_do_it_is_refused_in_the_preview(
    systemd: int, chosen: dict[str, str], said: str
) -> None:
    """An option that the service can't do without is never left out in silence."""
    with raised(replace(LAYOUTS["ubuntu-24.04"], systemd=systemd)) as host:
        refused = host.run(check=True, **chosen)
        assert refused["failed"]
        assert said in refused["message"]
        assert not (host.root / "opt/ai-client").exists()


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.parametrize(
    "bundle", ["etc/pki/tls/certs/ca-bundle.crt", "var/lib/ca-certificates/ca-bundle.pem"]
)
def test_the_own_interpreter_trusts_what_the_host_trusts(bundle: str) -> None:
    """Where the distribution keeps its certificates elsewhere than Debian, whose OpenSSL it brings."""
    tag = OwnTag(platform.machine())
    packed = build(out=None, tags=[tag]) / f"{tag}.tar.gz"
    with raised(LAYOUTS["rhel-9"]) as host:
        shutil.rmtree(host.root / "usr/lib/ssl")
        (host.root / bundle).parent.mkdir(parents=True, exist_ok=True)
        (host.root / bundle).write_bytes(trustme.CA().cert_pem.bytes())
        subprocess.run(["tar", "-C", host.root / "opt", "-xzf", packed], check=True)
        asked = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
        argv = ["chroot", host.root, "/opt/python/bin/python3", "-I", "-S", "-c", asked]
        clean = {"PATH": "/usr/sbin:/usr/bin"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=clean)
        assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_what_goes_to_a_host_is_python_3_6() -> None:
    """Without annotations, without newer syntax: checked for the oldest interpreter on whatever machine this runs."""
    for name, text in wire.modules().items():
        tree = ast.parse(text, filename=name, feature_version=(3, 6))
        for node in ast.walk(tree):
            assert not isinstance(node, ast.NamedExpr | ast.Match), name
            annotations = [node.annotation] if isinstance(node, ast.AnnAssign | ast.arg) else []
            assert all(ast.unparse(each) == "None" for each in annotations if each), name
            assert not (isinstance(node, ast.Attribute) and node.attr in TOO_NEW), (name, node.lineno)


TOO_NEW = {"removeprefix", "removesuffix", "file_digest", "pidfd_open", "is_relative_to", "to_thread"}
