"""Takes out of a text what looks like a secret, by its form or by the name beside it.

The last line of defence for texts that people read: plans, comments, reports. What is known to be secret is never put
into them in the first place. Rather too much is masked than too little; masking a masked text changes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from math import log2

from infra.key_forms import PREFIX, REST, SHORTEST, VENDORS

MASKED = "[masked]"

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20})-----.*?(?:-----END (?P=kind)-----|\Z)",
    re.DOTALL,
)
# The inside of a private key, where a diff shows it without the line that says what it is.
_BASE64_LINES = re.compile(
    r"^[ +-]?(?=[^\n]{0,80}[a-z])(?=[^\n]{0,80}[A-Z])[A-Za-z0-9+/]{60,80}={0,2}$"
    r"(?:\n[ +-]?[A-Za-z0-9+/]{1,80}={0,2}$)*",
    re.MULTILINE,
)
# Prefixes by which vendors mark their keys.
_KEY = re.compile(rf"(?P<prefix>{PREFIX}(?={REST}{{{SHORTEST}}})|{VENDORS})[\w.~+/-]+=*")
_SCHEME = re.compile(
    r"(?P<scheme>\b(?:bearer|basic)[^\S\n]{1,8})(?=[^\s]{0,80}[0-9A-Z_=+/.-])[\w.~+/-]{6,}=*", re.IGNORECASE
)
_LOGIN = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}://)[^\s/@]{1,4096}@", re.IGNORECASE)
_HEADER = re.compile(
    r"(?P<name>\b(?:(?:proxy-)?authorization|(?:set-)?cookie)[\"']?[^\S\n]{0,8}[:=][^\S\n]{0,8}[\"']?)[^\s\"'][^\n\"']*",
    re.IGNORECASE,
)

_WORDS = (
    r"(?:pass(?:word|wd|phrase)|passwort|(?<![a-z])pwd|(?<![a-z])pass(?![a-z])|secret|token|api[ _-]?key"
    r"|private[ _-]?key|access[ _-]?key|(?<!load)credential)"
)
_SEPARATOR = r"\\?[\"']?[^\S\n]{0,40}(?:=>|:=|[=:>])[^\S\n]{0,40}"
# In quotation marks or a number of JSON, where the value ends with them; up to an element's end; else all of the line.
_QUOTED = r"(?:\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')(?=\s{0,8}(?:[,;:)}\]>&#]|\Z|\n))"
_SCALAR = r"(?:[\d.]{1,20}|true|false|null)(?=\s{0,8}[,}\]])"
_NAMED = re.compile(
    rf"(?P<name>{_WORDS}[\w.-]{{0,64}})(?P<separator>{_SEPARATOR})(?P<value>{_QUOTED}|{_SCALAR}|[^\n<]+)",
    re.IGNORECASE,
)
# `--password VALUE`, and in a .netrc `login NAME password VALUE`.
_ARGUMENT = re.compile(
    rf"(?P<name>(?<![\w-])--?[\w-]{{0,40}}{_WORDS}[\w-]{{0,40}}[^\S\n]{{1,8}}"
    r"|\blogin[^\S\n]{1,8}\S{1,80}[^\S\n]{1,8}password[^\S\n]{1,8})(?P<value>[^\s=:-]\S*)",
    re.IGNORECASE,
)
# A line of two words, as `requirepass VALUE`.
_PAIR = re.compile(
    rf"^(?P<name>[ +-]?[^\S\n]{{0,40}}(?:[\w.-]{{0,40}}{_WORDS}[\w.-]{{0,40}}|requirepass|masterauth)[^\S\n]{{1,40}})"
    r"(?P<value>[^\s=:-]\S*)(?=[^\S\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)
# `password: |` and the lines under it that are indented deeper.
_BLOCK = re.compile(
    rf"^(?P<head>[ +-]?(?P<indent>[^\S\n]{{0,80}})[^\n]{{0,80}}?{_WORDS}[\w.-]{{0,64}}[\"']?:[^\S\n]{{0,8}}"
    r"[|>][+-]?\d?[^\S\n]*)"
    r"(?P<lines>(?:\n[ +-]?(?P=indent)[^\S\n]+\S[^\n]*)+)",
    re.IGNORECASE | re.MULTILINE,
)
_LIKELY = re.compile(
    rf"(?P<name>(?:key|signature|session|salt|seed|auth|cookie|nonce|hmac)[\w.-]{{0,64}})(?P<separator>{_SEPARATOR})"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'<>&,;]+)",
    re.IGNORECASE,
)

_LINE = re.compile(r"(?m)^(?P<edge>[ +-]?[^\S\n]*)\S[^\n]*$")
_DONE = re.compile(
    rf"[\"']?(?:{PREFIX}|sk[-_]|[A-Za-z]{{3,5}}[-_]?)?"
    r"\[(?:masked|secret)[^\]\n]*\][\"',;)}\]]*"
)
_NOTHING = re.compile(
    r"[\"']?(?:true|false|none|null|nil|yes|no|on|off|[|>][+-]?\d?|)[\"']?[,;)}\]]*", re.IGNORECASE
)
_DIGEST_NAME = re.compile(r".*(?:sha\d*|digest|fingerprint|checksum)s?", re.IGNORECASE)
_DIGEST = re.compile(r"[\"']?(?:sha\d+[:-])?[0-9a-f]+[\"']?[,;)}\]]*", re.IGNORECASE)
_PLACE_NAME = re.compile(r".*[_.-]?(?:file|path|dir|directory)", re.IGNORECASE)
_PLACE = re.compile(r"[\"']?[~.]?/[\w./~-]*[\"']?[,;)}\]]*")
_TOKENS_NAME = re.compile(r"tokens?[\w.-]*", re.IGNORECASE)
_COUNT = re.compile(r"[\"']?\d{1,12}(?:\.\d{1,6})?[\"']?[,;)}\]]*")
_PUBLIC_KEY = re.compile(r"[\"']?(?:ssh-|ecdsa-|sk-ssh-)")
_LONG_CHARACTERS = 20
_RANDOM_BITS_A_CHARACTER = 3.2


def mask(text: str) -> str:
    """The text with everything masked that is secret by its form or by the name before it.

    For contents of files and for what hosts say. A sentence such as `apiKey: is empty` loses its end: for the
    program's own sentences there is `mask_forms`.
    """
    text = mask_forms(text)
    text = _BLOCK.sub(lambda match: match["head"] + _mask_lines(match["lines"]), text)
    text = _ARGUMENT.sub(lambda match: match["name"] + _masked_value(match), text)
    text = _PAIR.sub(lambda match: match["name"] + _masked_value(match), text)
    text = _NAMED.sub(lambda match: match["name"] + match["separator"] + _named(match), text)
    return _LIKELY.sub(lambda match: match["name"] + match["separator"] + _likely(match), text)


def mask_forms(text: str) -> str:
    """The text with what is secret by its own form masked: keys, private keys, logins in addresses and headers."""
    text = _PRIVATE_KEY.sub("[masked private key]", text)
    text = _BASE64_LINES.sub(lambda match: _mask_lines(match[0]), text)
    text = _LOGIN.sub(rf"\g<scheme>{MASKED}@", text)
    text = _HEADER.sub(rf"\g<name>{MASKED}", text)
    text = _SCHEME.sub(rf"\g<scheme>{MASKED}", text)
    return _KEY.sub(rf"\g<prefix>{MASKED}", text)


def _mask_lines(lines: str) -> str:
    """Each line masked after the sign and the indentation that it begins with."""
    return _LINE.sub(rf"\g<edge>{MASKED}", lines)


def _masked_value(match: re.Match[str]) -> str:
    value = match["value"]
    return value if _DONE.fullmatch(value) else MASKED


def _named(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"].rstrip()
    harmless = (
        _DONE.fullmatch(value)
        or _NOTHING.fullmatch(value)
        or (_DIGEST_NAME.fullmatch(name) and _DIGEST.fullmatch(value))
        or (_PLACE_NAME.fullmatch(name) and _PLACE.fullmatch(value))
        or (_TOKENS_NAME.fullmatch(name) and _COUNT.fullmatch(value))
    )
    if harmless:
        return match["value"]
    quote = value[0] if value[0] in "\"'" and value[-1] == value[0] else ""
    return f"{quote}{MASKED}{quote}"


def _likely(match: re.Match[str]) -> str:
    value = match["value"]
    is_named_harmless = (
        _DIGEST_NAME.fullmatch(match["name"]) or _PUBLIC_KEY.match(value) or _PLACE.fullmatch(value)
    )
    if is_named_harmless or _DONE.fullmatch(value) or not _looks_random(value.strip("\"'")):
        return value
    quote = value[0] if value[0] in "\"'" else ""
    return f"{quote}{MASKED}{quote}"


def _looks_random(value: str) -> bool:
    """Long, of several kinds of characters, and close to as many bits a character as chance gives."""
    kinds = [any(map(kind, value)) for kind in (str.islower, str.isupper, str.isdigit)]
    if len(value) < _LONG_CHARACTERS or sum(kinds) <= 1:
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * log2(share) for share in shares) >= _RANDOM_BITS_A_CHARACTER
