"""The base of the tree, what masks secrets in its texts, and the errors of the client itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

_SECRETS = re.compile(
    r"(?P<prefix>\b(?:hs_live_|hs_test_|sk-|pk-|rk_|ghp_|AKIA)|\b[Bb]earer\s+|\b[Bb]asic\s+)[A-Za-z0-9._~+/=\-]{4,}"
)
#: Prefixes by which vendors mark their keys, each with what has to follow; alike on the control side and on hosts.
VENDORS: Final = (
    r"(?<![A-Za-z0-9])(?:"
    r"sk[-_](?=[\w.-]{8})|[rp]k_(?:live|test)_(?=\w{8})|gh[opsur]_(?=\w{20})|github_pat_(?=\w{20})"
    r"|glpat-(?=[\w-]{16})|xox[abeoprs]-(?=[\w-]{10})|npm_(?=\w{36})|pypi-(?=[\w-]{40})|hf_(?=\w{30})"
    r"|dop_v1_(?=\w{40})|pul-(?=[0-9a-f]{40})|AGE-SECRET-KEY-(?=\w{20})|A[KS]IA(?=[A-Z0-9]{16})"
    r"|AIza(?=[\w-]{30})|eyJ(?=[\w.-]{16})"
    r")"
)
_VENDOR_KEY = re.compile(rf"(?P<prefix>{VENDORS})[\w.~+/-]+=*")
# It begins where a word does: looked for from each of its letters, a long word would take the square of its length.
_URL_PASSWORD = re.compile(
    r"(?<![a-z0-9+.\-])(?P<head>[a-z0-9+.\-]++://[^/\s:@]*+:)[^@/\s]++(?=@)", re.IGNORECASE
)


def redact(text: str) -> str:
    """`text` with everything that looks like a key, a bearer token or a URL's password masked.

    What stays of a key is its prefix (`hs_test_…`), which says which kind it is.
    """
    text = _VENDOR_KEY.sub(r"\g<prefix>…", _SECRETS.sub(r"\g<prefix>…", text))
    return _URL_PASSWORD.sub(r"\g<head>…", text)


class AIClientError(Exception):
    """Base of all errors. `culprit`, `reason` and `remedy` are text for people; subclasses add facts."""

    #: What the gateway answers with, and the OpenAI error `type` and `code`.
    http_status: ClassVar[int] = 500
    error_type: ClassVar[str] = "api_error"
    code: ClassVar[str] = "internal_error"
    default_remedy: ClassVar[str] = "Report this with the request id."
    #: False where the upstream says that the same request is not to come again.
    may_go_again: bool = True
    #: Of the upstream's own error, what programs read: Azure's `innererror`, Groq's `failed_generation` …
    upstream_members: Mapping[str, Any] | None = None

    def __init__(self, culprit: str, reason: str, *, remedy: str | None = None, request_id: str = "") -> None:
        self.culprit = redact(culprit)
        self.reason = redact(reason)
        self.remedy = redact(remedy or self.default_remedy)
        self.request_id = request_id
        super().__init__(self.culprit, self.reason, self.remedy)

    def __str__(self) -> str:
        return f"{self.culprit}: {self.reason}. {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only constructors can't be called from args alone, as pickle would.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[AIClientError], args: tuple[str, ...], facts: dict[str, object]) -> AIClientError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigurationError(AIClientError):
    """A setting is wrong. Remedy: correct the named key; a running service keeps its old settings."""

    code = "invalid_configuration"
    default_remedy = "Correct the setting and start again."

    def __init__(  # each fact is optional: not every setting comes from a file
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        file: str = "",
        line: int = 0,
        section: str = "",
        key: str = "",
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy)
        self.file = file
        self.line = line
        self.section = section
        self.key = key


class ClientClosedError(AIClientError):
    """The client was closed. Remedy: make a new client, or close it after the last call.

    `is_handed_over`: it admits nothing more because another process does; nothing of the request is under way.
    """

    http_status = 503
    code = "client_closed"
    default_remedy = "Make a new client, or close this one after its last call."
    is_handed_over = False

    @classmethod
    def handed_over(cls) -> ClientClosedError:
        """What those get who would have to be admitted here and are to ask the other process."""
        error = cls("client", "has handed over to another process")
        error.is_handed_over = True
        return error


class ClientInUseError(AIClientError):
    """The client belongs to another event loop that is running, or to the process that this one was forked from.

    Remedy: make one client for each event loop and each process.
    """

    code = "client_in_use"
    default_remedy = "Make one client for each event loop (thread) and, after a fork, one in the child."
