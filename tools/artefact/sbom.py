"""Writes a CycloneDX 1.6 bill of materials of everything that hosts install.

The same trees and lock give the same document. Hashes are those that the lock accepts for a package's files;
one of them was installed, and was checked then.
"""

import argparse
import hashlib
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tools.artefact.build import ROOT, build
from tools.artefact.components import Component, Embedded, read_components
from tools.artefact.errors import ArtefactError
from tools.artefact.lockfile import Pin, normalized, read_pins
from tools.artefact.store import INDEX
from tools.artefact.tags import DEFAULT_TAGS, Tag, parse_tag

CLIENT = "ai-client"
_LOCK = ROOT / "requirements" / "client.txt"
_PROPERTY = "ai-client-fleet"

Trees = dict[Tag, list[Component]]


def document(trees: Trees, *, index: dict[str, Any], pins: Sequence[Pin]) -> dict[str, Any]:
    """The bill of materials as data."""
    merged = _merge(trees)
    client = merged.pop(CLIENT)
    hashes = {(pin.name, pin.version): pin.sha256s for pin in pins}
    libraries = [
        _library(variants, sha256s=_hashes_of(variants, hashes=hashes)) for variants in merged.values()
    ]
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _application(client, index=index)},
        "components": libraries,
        "dependencies": _dependencies(trees),
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    return body | {"serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=5)}"}


def _merge(trees: Trees) -> dict[str, dict[Tag, Component]]:
    """Each distribution with its variant in each tree, by name."""
    merged: dict[str, dict[Tag, Component]] = {}
    for tag, components in trees.items():
        for component in components:
            merged.setdefault(component.name, {})[tag] = component
    return dict(sorted(merged.items()))


def _purl(component: Component) -> str:
    return f"pkg:pypi/{component.name}@{component.version}"


def _any(variants: dict[Tag, Component]) -> Component:
    return next(iter(variants.values()))


def _hashes_of(
    variants: dict[Tag, Component], *, hashes: dict[tuple[str, str], tuple[str, ...]]
) -> tuple[str, ...]:
    component = _any(variants)
    try:
        return hashes[component.name, component.version]
    except KeyError as error:
        raise ArtefactError(
            f"{component.name} {component.version} is in the trees but not in the lock; "
            "build them anew by tools/artefact/build"
        ) from error


def _described(component: Component, *, kind: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": kind,
        "bom-ref": _purl(component),
        "name": component.name,
        "version": component.version,
        "description": component.summary,
        "purl": _purl(component),
    }
    return described | _licences(component.licence)


def _licences(licence: str | None) -> dict[str, Any]:
    return {"licenses": [{"expression": licence}]} if licence else {}


def _library(variants: dict[Tag, Component], *, sha256s: tuple[str, ...]) -> dict[str, Any]:
    component = _any(variants)
    embedded = sorted({item for variant in variants.values() for item in variant.embedded})
    library = _described(component, kind="library") | {
        "hashes": [{"alg": "SHA-256", "content": sha256} for sha256 in sha256s],
        "properties": [
            {"name": f"{_PROPERTY}:record-sha256:{tag}", "value": variant.record_sha256}
            for tag, variant in variants.items()
        ],
    }
    if embedded:
        library["components"] = [_embedded(item, inside=component) for item in embedded]
    return library


def _embedded(item: Embedded, *, inside: Component) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"{_purl(inside)}#{item.purl}",
        "name": item.name,
        "version": item.version,
        "purl": item.purl,
    } | _licences(item.licence)


def _application(variants: dict[Tag, Component], *, index: dict[str, Any]) -> dict[str, Any]:
    properties = [
        {"name": f"{_PROPERTY}:{digest}:{tag}", "value": tree[digest]}
        for tag, tree in sorted(index["trees"].items())
        for digest in ("sha256", "tar_sha256")
    ]
    return _described(_any(variants), kind="application") | {"properties": properties}


def _dependencies(trees: Trees) -> list[dict[str, Any]]:
    """Who needs whom in at least one tree."""
    edges: dict[str, set[str]] = {}
    for tag, components in trees.items():
        purls = {component.name: _purl(component) for component in components}
        for component in components:
            needed = {purls[name] for name in _needs(component, tag=tag) if name in purls}
            edges.setdefault(_purl(component), set()).update(needed)
    return [{"ref": ref, "dependsOn": sorted(needed)} for ref, needed in sorted(edges.items())]


def _needs(component: Component, *, tag: Tag) -> set[str]:
    environment = {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": tag.machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{tag.python_version}.0",
        "python_version": tag.python_version,
        "sys_platform": "linux",
    }
    requirements = map(Requirement, component.requires)
    return {normalized(r.name) for r in requirements if r.marker is None or r.marker.evaluate(environment)}


def read_document(folder: Path, *, lock: Path) -> dict[str, Any]:
    """The bill of materials of the build in `folder`, whose dependencies come from `lock`."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder} is no build; make one by tools/artefact/build") from error
    trees = {parse_tag(tag): read_components(folder / tree["file"]) for tag, tree in index["trees"].items()}
    return document(trees, index=index, pins=read_pins(lock.read_text(encoding="utf-8")))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tools/artefact/sbom", description=__doc__)
    parser.add_argument(
        "--artefact", type=Path, help="folder of a build (default: all trees, built where missing)"
    )
    parser.add_argument("--out", type=Path, help="file to write (default: stdout)")
    parser.add_argument("--lock", type=Path, default=_LOCK, help="the lock that the build was made from")
    options = parser.parse_args(argv)
    try:
        folder = options.artefact or build(out=None, tags=DEFAULT_TAGS)
        bill = read_document(folder, lock=options.lock)
    except (ArtefactError, OSError) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
