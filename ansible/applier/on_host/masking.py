"""Takes out of a text what looks like a secret."""

import hashlib
import re

_KEY = re.compile(r"\b(hs_(?:live|test)_|sk-)[A-Za-z0-9_-]{4,}")
# Prefixes by which vendors mark their keys, each with what has to follow; alike on the control side and in the client.
VENDORS = (
    r"(?<![A-Za-z0-9])(?:"
    r"sk[-_](?=[\w.-]{8})|[rp]k_(?:live|test)_(?=\w{8})|gh[opsur]_(?=\w{20})|github_pat_(?=\w{20})"
    r"|glpat-(?=[\w-]{16})|xox[abeoprs]-(?=[\w-]{10})|npm_(?=\w{36})|pypi-(?=[\w-]{40})|hf_(?=\w{30})"
    r"|dop_v1_(?=\w{40})|pul-(?=[0-9a-f]{40})|AGE-SECRET-KEY-(?=\w{20})|A[KS]IA(?=[A-Z0-9]{16})"
    r"|AIza(?=[\w-]{30})|eyJ(?=[\w.-]{16})"
    r")"
)
_VENDOR_KEY = re.compile(r"(?P<prefix>" + VENDORS + r")[\w.~+/-]+=*")
_ASSIGNED = re.compile(
    r"(?im)^(?P<name>[^\S\n]*[\w.-]*(?:api[_-]?key|secret|password|passwd|token)[\w.-]*[^\S\n]*[=:][^\S\n]*)(?P<value>\S[^\n]*)$"
)
_URL_LOGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
_PEM_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# A digest of a token tells nothing about it, and a number of tokens is a limit.
_HARMLESS = re.compile(r"token_sha256\b.*|[\w.-]*tokens?[\w.-]*[\s=:]+\d{1,12}", re.IGNORECASE)


def mask(text: str) -> str:
    """The text with keys, passwords, logins in addresses and private keys replaced by `[masked]`."""
    text = _PEM_KEY.sub("[masked private key]", text)
    text = _URL_LOGIN.sub(r"\g<scheme>[masked]@", text)
    text = _KEY.sub(r"\1[masked]", text)
    text = _VENDOR_KEY.sub(r"\g<prefix>[masked]", text)
    return _ASSIGNED.sub(_mask_assignment, text)


def _mask_assignment(match: "re.Match[str]") -> str:
    if _HARMLESS.fullmatch(match[0].strip()):
        return match[0]
    return f"{match['name']}[masked]"


def fingerprint(secret: str) -> str:
    """Names a key without telling it: the first 12 hex digits of its SHA-256, as the client's audit log does."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12]
