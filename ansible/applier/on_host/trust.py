"""Splits a bundle of certificates: the host's store takes one certificate a file."""

import base64
import binascii
import hashlib
import re

from . import places
from .errors import ApplyError

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


def split_bundle(bundle: str, *, folder: str) -> dict[str, bytes]:
    """The certificates of a PEM bundle by the path that each has in the host's store, a folder."""
    files = {}
    for body in _CERTIFICATE.findall(bundle):
        try:
            content = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error as error:
            raise _unusable("holds a certificate that is not base64") from error
        name = f"{folder}/{places.TRUST_PREFIX}{hashlib.sha256(content).hexdigest()[:16]}.crt"
        lines = base64.b64encode(content).decode()
        text = "\n".join(lines[start : start + 64] for start in range(0, len(lines), 64))
        files[name] = f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode()
    if bundle.strip() and len(files) < bundle.count("-----BEGIN CERTIFICATE-----"):
        raise _unusable("holds a certificate twice or broken")
    if bundle.strip() and not files:
        raise _unusable("holds no certificate")
    if "PRIVATE KEY-----" in bundle:
        raise _unusable("holds a private key")
    return files


def is_named_by_content(path: str, content: bytes | None) -> bool:
    """Whether a file of the host's store has the name that its certificate gets from us."""
    try:
        folder = path.rpartition("/")[0]
        return path in split_bundle((content or b"").decode(errors="replace"), folder=folder)
    except ApplyError:
        return False


def _unusable(reason: str) -> ApplyError:
    return ApplyError("ai_custom_ca", reason, "give certificates in PEM form, each once, and nothing else")
