"""What a built tree consists of, read from the metadata inside it."""

import hashlib
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath
from typing import Any

from tools.artefact import spdx
from tools.artefact.errors import ArtefactError
from tools.artefact.lockfile import normalized


@dataclass(frozen=True, order=True)
class Embedded:
    """Something compiled into a package's native module, as the package's own bill of materials names it."""

    purl: str
    name: str
    version: str
    licence: str | None


@dataclass(frozen=True)
class Component:
    """One distribution in a tree."""

    name: str
    version: str
    licence: str | None
    summary: str
    requires: tuple[str, ...]
    record_sha256: str
    embedded: tuple[Embedded, ...]


def read_components(packed: Path) -> list[Component]:
    """The distributions in a `<tag>.tar.gz`, by name."""
    infos = _metadata_files(packed)
    components = [_component(files) for files in infos.values()]
    if not components:
        raise ArtefactError(f"{packed} holds no package metadata; build it anew by tools/artefact/build")
    return sorted(components, key=lambda component: component.name)


def _metadata_files(packed: Path) -> dict[str, dict[str, bytes]]:
    """The files of each `.dist-info` folder, by their names in it."""
    infos: dict[str, dict[str, bytes]] = {}
    with tarfile.open(packed) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            content = tar.extractfile(member) if member.isfile() else None
            if content and len(parts) > 2 and parts[1].endswith(".dist-info"):
                infos.setdefault(parts[1], {})["/".join(parts[2:])] = content.read()
    return infos


def _component(files: dict[str, bytes]) -> Component:
    metadata = BytesParser().parsebytes(files["METADATA"], headersonly=True)
    return Component(
        name=normalized(metadata["Name"]),
        version=metadata["Version"],
        licence=_licence(metadata),
        summary=metadata["Summary"] or "",
        requires=tuple(metadata.get_all("Requires-Dist", [])),
        record_sha256=hashlib.sha256(files["RECORD"]).hexdigest(),
        embedded=tuple(sorted(_embedded(files))),
    )


def _licence(metadata: Message) -> str | None:
    classifiers = metadata.get_all("Classifier", [])
    return spdx.expression_of(
        expression=metadata["License-Expression"],
        text=metadata["License"],
        classifiers=[c for c in classifiers if c.startswith("License ::") and c.count("::") > 1],
    )


def _embedded(files: dict[str, bytes]) -> set[Embedded]:
    """What the CycloneDX documents under `sboms/` list (PEP 770)."""
    documents = [
        json.loads(files[name]) for name in files if name.startswith("sboms/") and name.endswith(".json")
    ]
    return {
        Embedded(
            purl=listed["purl"],
            name=listed["name"],
            version=listed["version"],
            licence=_listed_licence(listed.get("licenses", [])),
        )
        for document in documents
        for listed in document.get("components", [])
        if "purl" in listed
    }


def _listed_licence(licences: Iterable[dict[str, Any]]) -> str | None:
    """CycloneDX gives one expression or a list of licences by identifier; a name alone says nothing sure."""
    found = [entry.get("expression") or entry.get("license", {}).get("id") for entry in licences]
    return None if not found or None in found else " AND ".join(filter(None, found))
