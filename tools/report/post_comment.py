"""Posts a comment to a pull request, or updates the one that it posted before: `tools/post-comment comment.md`.

The comment's first line is its marker: of the comments that this identity wrote, the first one that begins with the
same line is updated. Works with GitHub (GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN) and with GitLab
(CI_API_V4_URL, CI_PROJECT_ID, FLEET_COMMENT_TOKEN), whose jobs set these. The token is sent to that address alone, and
never shown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = re.compile(r"<!-- fleet-plan: [A-Za-z0-9_.-]{1,100} -->")
PAGE_SIZE, MOST_PAGES = 100, 100
TIMEOUT_S, WAITS_S = 30, (1.0, 4.0, 10.0)


class PostError(Exception):
    """The comment could not be posted: what, why, and what to do; whether it may go better in a moment."""

    def __init__(self, reason: str, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.is_passing = is_passing


@dataclass(frozen=True)
class Place:
    """Where comments are listed and posted, how a request is authorized, and who writes here.

    Attributes:
        comments: address of the request's comments.
        one: address of one comment, with `{id}`.
        update_method: how it is updated.
        header: name and value of the header that authorizes.
        author: login that our comments have.
        longest: most characters that a comment may have.
    """

    comments: str
    one: str
    update_method: str
    header: tuple[str, str]
    author: str
    longest: int


def main(argv: list[str], environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Exit status 0 where the comment is there, 1 where not."""
    parser = argparse.ArgumentParser(prog="tools/post-comment", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("comment", help="file with the comment")
    parser.add_argument(
        "--number", required=True, type=int, help="number of the pull request, merge request or issue"
    )
    options = parser.parse_args(argv)
    try:
        body = Path(options.comment).read_text(encoding="utf-8")
        place = _place(environ, number=options.number, sleep=sleep)
        print(f"post_comment: {post(body, place, sleep=sleep)}", file=sys.stderr)
    except (PostError, OSError) as error:
        print(f"post_comment: {error}", file=sys.stderr)
        return 1
    return 0


def post(body: str, place: Place, *, sleep: Callable[[float], None]) -> str:
    """Posts or updates the comment, and says which."""
    marker = body.split("\n", 1)[0].strip()
    if not MARKER.fullmatch(marker):
        raise PostError("the comment does not begin with a marker; make it with tools/plan-comment")
    if len(body) > place.longest:
        raise PostError(
            f"the comment has {len(body)} characters, {place.longest} are allowed; make it with --limit"
        )
    mine = find(_comments(place, sleep=sleep), marker=marker, author=place.author)
    if mine is None:
        _request("POST", place.comments, place, sleep=sleep, body={"body": body})
        return "posted"
    _request(place.update_method, place.one.format(id=mine), place, sleep=sleep, body={"body": body})
    return f"updated comment {mine}"


def find(comments: Iterator[Mapping[str, Any]], *, marker: str, author: str) -> int | None:
    """Number of the first comment that begins with the marker and is the author's; others may quote it."""
    for comment in comments:
        writer = comment.get("user") or comment.get("author") or {}
        first = str(comment.get("body") or "").split("\n", 1)[0].strip()
        if first == marker and author in (writer.get("login"), writer.get("username")):
            return int(comment["id"])
    return None


def _place(environ: Mapping[str, str], *, number: int, sleep: Callable[[float], None]) -> Place:
    if api := environ.get("CI_API_V4_URL"):
        header = ("PRIVATE-TOKEN", _needed(environ, "FLEET_COMMENT_TOKEN"))
        notes = f"{api}/projects/{_needed(environ, 'CI_PROJECT_ID')}/merge_requests/{number}/notes"
        unnamed = Place(notes, f"{notes}/{{id}}", "PUT", header, "", 1_000_000)
        author = str(_request("GET", f"{api}/user", unnamed, sleep=sleep)["username"])
        return Place(notes, f"{notes}/{{id}}", "PUT", header, author, 1_000_000)
    api = _needed(environ, "GITHUB_API_URL")
    issues = f"{api}/repos/{_needed(environ, 'GITHUB_REPOSITORY')}/issues"
    header = ("Authorization", f"Bearer {_needed(environ, 'GITHUB_TOKEN')}")
    author = environ.get("FLEET_COMMENT_AUTHOR", "github-actions[bot]")
    return Place(f"{issues}/{number}/comments", f"{issues}/comments/{{id}}", "PATCH", header, author, 65_536)


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise PostError(f"{name} is not set; set it in the step's environment")
    return value


def _comments(place: Place, *, sleep: Callable[[float], None]) -> Iterator[Mapping[str, Any]]:
    for page in range(1, MOST_PAGES + 1):
        listed = _request("GET", f"{place.comments}?per_page={PAGE_SIZE}&page={page}", place, sleep=sleep)
        yield from listed
        if len(listed) < PAGE_SIZE:
            return


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token to another address."""

    def redirect_request(self, *_: object) -> None:
        """Makes an error of it."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _request(
    method: str,
    url: str,
    place: Place,
    *,
    sleep: Callable[[float], None],
    body: Mapping[str, str] | None = None,
) -> Any:
    """One request. Tried again where server or network are at fault, unless that could post a comment twice."""
    for wait_s in WAITS_S if method != "POST" else ():
        try:
            return _request_once(method, url, place, body=body)
        except PostError as error:
            if not error.is_passing:
                raise
        sleep(wait_s)
    return _request_once(method, url, place, body=body)


def _request_once(method: str, url: str, place: Place, *, body: Mapping[str, str] | None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        place.header[0]: place.header[1],
    }
    request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310 - CI's own address
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode(errors="replace")
        reason = f"{method} {url}: {error.code}: {said}; see the permissions of the job"
        raise PostError(reason, is_passing=error.code >= 500) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise PostError(f"{method} {url}: {error}; see the network of the job", is_passing=True) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
