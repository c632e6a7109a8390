"""Access tokens for what a host or pod is, in the place of a key that somebody keeps: Google's and Microsoft's.

A token is good for about an hour. It is fetched in a thread, kept in memory alone, and renewed before it ends.

Sources: Google, "Authenticate workloads to APIs using service accounts" (metadata server); Microsoft, "How managed
identities work", "App Service REST endpoint reference", "OAuth 2.0 client credentials flow" (federated credential).
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ai_client.platform import json_log
from ai_client.settings import KeyMissingError, LoadedKey

_log = logging.getLogger(__name__)

#: Until the next try, where no new token could be had.
RETRY_S = 2.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
GOOGLE, AZURE = KINDS = ("google", "azure")
_TIMEOUT_S = 5.0
_MOST_BYTES = 1 << 20
_LONGEST_REASON = 200
# Both providers hand out a new token well before the old one ends.
_MARGIN_S = 300.0
_AZURE_RESOURCE = "https://cognitiveservices.azure.com"
_REMEDIES = {
    GOOGLE: "run it on Google Cloud with a service account attached, or set GCE_METADATA_HOST",
    AZURE: "attach a managed identity, or let the pod's service account be federated with one",
}

_since_boot_s = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class _Question:
    """A request for a token; `body` makes it a POST. A metadata server is never asked through a proxy."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    is_local: bool = True


@dataclass(frozen=True, slots=True)
class _Token:
    key: LoadedKey = field(repr=False)
    renew_at_s: float
    ends_at_s: float


@dataclass(slots=True)
class Tokens:
    """The tokens of this process, by their kind. Its repr shows none."""

    #: In seconds, of a clock that nobody sets and that goes on while the machine sleeps: a token ends after a time.
    clock: Callable[[], float] = _since_boot_s
    #: Seconds to wait before each further try of the first token: a pod starts before its metadata server answers.
    pauses_s: tuple[float, ...] = PAUSES_S
    wait: Callable[[float], None] = time.sleep
    _held: dict[str, _Token] = field(default_factory=dict, repr=False)

    def token(self, kind: str, environment: Mapping[str, str], *, proxy_url: str = "") -> LoadedKey:
        """A token that is good for a while: the one that is held, or a new one.

        One that has not ended yet goes on where no new one can be had. Raises KeyMissingError.
        """
        now_s = self.clock()
        held = self._held.get(kind)
        if held is not None and now_s < held.renew_at_s:
            return held.key
        try:
            pauses_s = () if held else self.pauses_s
            answer = self._answer(_question(kind, environment), proxy_url, pauses_s)
            fresh = _token(kind, answer, now_s=now_s)
        except (OSError, ValueError) as exc:
            reason = _failure(kind, exc)
            if held is None or now_s >= held.ends_at_s:
                raise KeyMissingError(reason) from exc
            _log.warning("token_not_renewed", extra=json_log.fields({"reason": reason}))
            fresh = replace(held, renew_at_s=now_s + RETRY_S)
        self._held[kind] = fresh
        return fresh.key

    def _answer(self, question: _Question, proxy_url: str, pauses_s: tuple[float, ...]) -> Any:
        """Raises OSError or ValueError of the last try."""
        for pause_s in pauses_s:
            try:
                return _asked(question, proxy_url)
            except urllib.error.HTTPError as exc:
                if exc.code < 500:
                    raise
            except OSError:
                pass
            self.wait(pause_s)
        return _asked(question, proxy_url)

    def held(self, kind: str) -> LoadedKey | None:
        """The token that is held, without asking anybody."""
        held = self._held.get(kind)
        return None if held is None else held.key

    def renew_in_s(self) -> float | None:
        """Seconds until the next one is to be renewed, 0 or less where one is due; None where there is none."""
        return min((token.renew_at_s - self.clock() for token in self._held.values()), default=None)


def _question(kind: str, environment: Mapping[str, str]) -> _Question:
    if kind == GOOGLE:
        host = environment.get("GCE_METADATA_HOST") or "metadata.google.internal"
        path = "computeMetadata/v1/instance/service-accounts/default/token"
        return _Question(f"http://{host}/{path}", {"Metadata-Flavor": "Google"})
    if environment.get("AZURE_FEDERATED_TOKEN_FILE"):
        return _of_federation(environment)
    resource = quote(_AZURE_RESOURCE, safe="")
    chosen = environment.get("AZURE_CLIENT_ID", "")
    client = f"&client_id={quote(chosen, safe='')}" if chosen else ""
    endpoint = environment.get("IDENTITY_ENDPOINT")
    if endpoint:
        url = f"{endpoint}?api-version=2019-08-01&resource={resource}{client}"
        return _Question(url, {"X-IDENTITY-HEADER": environment.get("IDENTITY_HEADER", "")})
    host = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or "http://169.254.169.254"
    path = f"metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}{client}"
    return _Question(f"{host.rstrip('/')}/{path}", {"Metadata": "true"})


def _of_federation(environment: Mapping[str, str]) -> _Question:
    """A pod's token for one of its managed identity. Raises ValueError or OSError."""
    missing = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not environment.get(name)]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not set beside AZURE_FEDERATED_TOKEN_FILE")
    proof = Path(environment["AZURE_FEDERATED_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    authority = environment.get("AZURE_AUTHORITY_HOST") or "https://login.microsoftonline.com"
    form = {
        "grant_type": "client_credentials",
        "client_id": environment["AZURE_CLIENT_ID"],
        "scope": f"{_AZURE_RESOURCE}/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": proof,
    }
    url = f"{authority.rstrip('/')}/{quote(environment['AZURE_TENANT_ID'], safe='')}/oauth2/v2.0/token"
    return _Question(url, {}, urlencode(form).encode(), is_local=False)


def _asked(question: _Question, proxy_url: str) -> Any:
    proxies = {} if question.is_local or not proxy_url else {"http": proxy_url, "https": proxy_url}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    request = urllib.request.Request(  # noqa: S310  (http or https, by the providers' own variables)
        question.url, data=question.body, headers=dict(question.headers)
    )
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        return json.loads(answer.read(_MOST_BYTES))


def _token(kind: str, answer: Any, *, now_s: float) -> _Token:
    """Raises ValueError."""
    try:
        text, lifetime_s = str(answer["access_token"]), float(answer["expires_in"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError("the answer contains no token") from exc
    renew_at_s = now_s + max(lifetime_s - _MARGIN_S, lifetime_s / 2)
    return _Token(LoadedKey(text, source=f"{kind}'s identity"), renew_at_s, now_s + lifetime_s)


def _failure(kind: str, exc: Exception) -> str:
    """Never what was answered, which may hold a token."""
    if isinstance(exc, urllib.error.HTTPError):
        reason = f"answered {exc.code}"
    elif isinstance(exc, json.JSONDecodeError | UnicodeDecodeError):
        reason = "did not answer in JSON"
    else:
        reason = str(getattr(exc, "reason", "") or getattr(exc, "strerror", "") or exc)[:_LONGEST_REASON]
    return f"key_from = {kind}: no token ({reason}); {_REMEDIES[kind]}"
