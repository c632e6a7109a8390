"""Looks for a secret, in every encoding it could slip out in, in files, memory of the kernel and printed text."""

import base64
import contextlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote


def needles(secret: str) -> dict[str, bytes]:
    """Encodings of a secret, by name. Base64 has three, by where in the text the secret begins."""
    raw = secret.encode()
    found = {"plain": raw, "hex": raw.hex().encode(), "url": quote(secret, safe="").encode()}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        # The first and last characters also depend on what stands beside the secret.
        found[f"base64+{shift}"] = coded[shift + 1 if shift else 0 : -1]
    return found


def in_text(text: str, secret: str) -> list[str]:
    """Names of the encodings in which a text holds the secret."""
    data = text.encode(errors="replace").lower()
    return [name for name, needle in needles(secret).items() if needle.lower() in data]


def in_files(roots: Iterable[Path], *secrets: str, allowed: Iterable[Path] = ()) -> list[str]:
    """Every file below the roots that holds one of the secrets, with the encoding; `allowed` files may.

    A file of which many hosts have the same one is read once.
    """
    wanted = [found for secret in secrets for found in needles(secret).items()]
    exempt = {path.resolve() for path in allowed}
    seen: set[tuple[int, ...]] = set()
    hits = []
    for path, look in _files(roots):
        same = (look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns)
        if same in seen or path.resolve() in exempt:
            continue
        seen.add(same)
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            hits += [f"{path}: {name}" for name, needle in wanted if needle in data]
    return hits


def _files(roots: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """What can be read to its end: no link, pipe, socket or device."""
    for root in roots:
        found = (
            [root] if root.is_file() else (Path(f, name) for f, _, names in os.walk(root) for name in names)
        )
        for path in found:
            with contextlib.suppress(OSError):
                look = path.lstat()
                if stat.S_ISREG(look.st_mode):
                    yield path, look


class Watch:
    """Samples, while a command runs, what other users of the machine could see: arguments and temporary files.

    Of a folder it looks only at what has come since the watch began.

    Attributes:
        hits: what held the secret.
        samples: how often it looked.
    """

    def __init__(self, secret: str, folders: Iterable[Path]) -> None:
        self.hits: set[str] = set()
        self.samples = 0
        self._secret = secret
        self._folders = tuple(folders)
        self._old = {path for folder in self._folders for path in folder.iterdir()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample_until_stopped(self) -> None:
        while not self._stop.wait(0.05):
            self.samples += 1
            self._look_at_arguments()
            new = [path for folder in self._folders for path in folder.iterdir() if path not in self._old]
            self.hits.update(in_files(new, self._secret))

    def _look_at_arguments(self) -> None:
        wanted = needles(self._secret)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes()
                    self.hits.update(
                        f"{arguments[:80]!r}: {n}" for n, needle in wanted.items() if needle in arguments
                    )
