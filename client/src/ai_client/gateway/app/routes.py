"""Which API a path is, and which paths are passed through because the operator says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ai_client.contract.apis import APIS, PASS_THROUGH, Api, Family
from ai_client.gateway.app.failures import Failure, invalid, not_allowed

PREFIX = "/v1/"
# Of what providers give: resp_…, file-…, a model's name with slashes and colons.
_ID = r"(?P<id>[A-Za-z0-9_][A-Za-z0-9._:/@+-]{0,255})"
_SHORT_ID = r"(?P<id>[A-Za-z0-9_][A-Za-z0-9._:-]{0,255})"
# What a server may read as another path than it looks like.
_ODD = re.compile(r"(^|/)\.{1,2}(/|$)|//|%2[ef]|%5c|\\|[^\x21-\x7e]", re.IGNORECASE)
# Of a path that is not known, so many are looked at.
_MOST_SEGMENTS = 8
_RULE = re.compile(r"(?:(?P<method>[A-Z]+) )?(?P<path>/v1/[A-Za-z0-9._/-]+)(?P<open>\*?)")


@dataclass(frozen=True, slots=True)
class Found:
    """The API of a request, and the id of what it asks for."""

    api: Api
    #: Under the upstream's base URL.
    path: str
    stored_id: str = ""


@dataclass(frozen=True, slots=True)
class PassRule:
    """One path, or all that begin with it, of one method or of all."""

    method: str | None
    path: str
    is_open: bool

    @classmethod
    def read(cls, text: str) -> PassRule:
        """`/v1/conversations`, `/v1/vector_stores/*` or `GET /v1/batches*`. Raises ValueError."""
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"`{text.strip()}` is no path such as /v1/conversations or `GET /v1/batches*`")
        return cls(match["method"], match["path"], bool(match["open"]))

    def fits(self, method: str, path: str) -> bool:
        """Whether a request may pass by it."""
        if self.method not in (None, method):
            return False
        return path.startswith(self.path) if self.is_open else path == self.path


def _pattern(api: Api) -> re.Pattern[str]:
    name = _ID if api.route == "models/{id}" else _SHORT_ID
    return re.compile(re.escape(PREFIX + api.route).replace(r"\{id\}", name))


_FIXED = {
    (api.method, PREFIX + api.route): api for api in APIS.values() if api.method and "{" not in api.route
}
_WITH_ID = [(api, _pattern(api)) for api in APIS.values() if "{" in api.route]


class Routes:
    """The APIs of the table, and the rules of one configuration."""

    def __init__(self, rules: Sequence[PassRule] = ()) -> None:
        self._rules = tuple(rules)

    def find(self, method: str, path: str) -> Found | Failure:
        """The API that a request asks of, or why there is none."""
        api = _FIXED.get((method, path))
        if api is not None:
            return Found(api, api.route)
        is_odd = _ODD.search(path) is not None
        known = (
            []
            if is_odd
            else [(each, match) for each, pattern in _WITH_ID if (match := pattern.fullmatch(path))]
        )
        for each, match in known:
            if each.method == method and not _is_fixed(path):
                return Found(
                    each, path.removeprefix(PREFIX), match["id"] if each.route != "models/{id}" else ""
                )
        if not is_odd and any(rule.fits(method, path) for rule in self._rules):
            return Found(APIS[PASS_THROUGH], path.removeprefix(PREFIX))
        if known or _is_fixed(path):
            allow = [fixed for fixed, other in _FIXED if other == path]
            if not allow:
                allow = [each.method for each, _ in known]
            passed = [rule.method for rule in self._rules if rule.method and rule.fits(rule.method, path)]
            return not_allowed(method, path, allow=(*allow, *passed))
        return _unknown(path)


def family_of(path: str) -> Family:
    """Whose errors a caller of the path understands."""
    if "/v1/messages" in path:
        return Family.ANTHROPIC
    return Family.RESPONSES if "/v1/responses" in path else Family.OPENAI


def _unknown(path: str) -> Failure:
    meant = _meant(path)
    message = "There is no such path here. The operator may let it through: [gateway] pass_through."
    if meant:
        message = (
            f"There is no such path here; {meant} is meant. Correct the program's base URL: for OpenAI's API it ends "
            "in /v1, for Anthropic's it has no path."
        )
    return invalid(message, code="unknown_url", status=404)


def _meant(path: str) -> str | None:
    """The path of ours that a wrong base URL was put before, or a slash behind."""
    segments = [each for each in path.split("/") if each][-_MOST_SEGMENTS:]
    candidates = [PREFIX + "/".join(segments[start:]) for start in range(len(segments))]
    return next((each for each in candidates if _is_fixed(each)), None)


def _is_fixed(path: str) -> bool:
    return any(known == path for _, known in _FIXED)
