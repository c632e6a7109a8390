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

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component as Described
from cyclonedx.model.component import ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from tools.artefact.build import ROOT, build
from tools.artefact.components import Component, Embedded, read_components
from tools.artefact.errors import ArtefactError
from tools.artefact.lockfile import Pin, normalized, read_pins
from tools.artefact.own_python import ARCHITECTURES
from tools.artefact.store import INDEX
from tools.artefact.tags import DEFAULT_TAGS, AnyTag, OwnTag, Tag, parse_tag

CLIENT = "ai-client"
_LOCK = ROOT / "requirements" / "client.txt"
_PROPERTY = "ai-client-fleet"

Trees = dict[AnyTag, list[Component]]


def document(trees: Trees, *, index: dict[str, Any], pins: Sequence[Pin]) -> dict[str, Any]:
    """The bill of materials as data."""
    merged = _merge(trees)
    client = merged.pop(CLIENT)
    hashes = {(pin.name, pin.version): pin.sha256s for pin in pins}
    bom = Bom(metadata=BomMetaData(component=_application(client, index=index)))
    libraries = [
        _library(variants, sha256s=_hashes_of(variants, hashes=hashes)) for variants in merged.values()
    ]
    interpreter = _interpreter(index)
    bom.components = [*libraries, *interpreter]
    bom.dependencies = [*_dependencies(trees), *(Dependency(each.bom_ref) for each in interpreter)]
    made: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library's own are of this very moment.
    del made["metadata"]["timestamp"], made["serialNumber"]
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).digest()
    return made | {"serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=5)}"}


def _merge(trees: Trees) -> dict[str, dict[AnyTag, Component]]:
    """Each distribution with its variant in each tree, by name."""
    merged: dict[str, dict[AnyTag, Component]] = {}
    for tag, components in trees.items():
        for component in components:
            merged.setdefault(component.name, {})[tag] = component
    return dict(sorted(merged.items()))


def _purl(component: Component) -> str:
    return f"pkg:pypi/{component.name}@{component.version}"


def _any(variants: dict[AnyTag, Component]) -> Component:
    return next(iter(variants.values()))


def _hashes_of(
    variants: dict[AnyTag, Component], *, hashes: dict[tuple[str, str], tuple[str, ...]]
) -> tuple[str, ...]:
    component = _any(variants)
    try:
        return hashes[component.name, component.version]
    except KeyError as error:
        raise ArtefactError(
            f"{component.name} {component.version} is in the trees but not in the lock; "
            "build them anew by tools/artefact/build"
        ) from error


def _described(component: Component, *, kind: ComponentType) -> Described:
    return Described(
        type=kind,
        bom_ref=_purl(component),
        name=component.name,
        version=component.version,
        description=component.summary,
        purl=PackageURL.from_string(_purl(component)),
        licenses=_licences(component.licence),
    )


def _licences(licence: str | None) -> list[LicenseExpression]:
    return [LicenseExpression(licence)] if licence else []


def _library(variants: dict[AnyTag, Component], *, sha256s: tuple[str, ...]) -> Described:
    component = _any(variants)
    embedded = sorted({item for variant in variants.values() for item in variant.embedded})
    library = _described(component, kind=ComponentType.LIBRARY)
    library.hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256) for sha256 in sha256s]
    library.properties = [
        Property(name=f"{_PROPERTY}:record-sha256:{tag}", value=variant.record_sha256)
        for tag, variant in variants.items()
    ]
    library.components = [_embedded(item, inside=component) for item in embedded]
    return library


def _embedded(item: Embedded, *, inside: Component) -> Described:
    return Described(
        type=ComponentType.LIBRARY,
        bom_ref=f"{_purl(inside)}#{item.purl}",
        name=item.name,
        version=item.version,
        purl=PackageURL.from_string(item.purl),
        licenses=_licences(item.licence),
    )


def _interpreter(index: dict[str, Any]) -> list[Described]:
    """Debian's packages that the trees with an interpreter of their own are made of; apt checked their signature."""
    return [
        _of_debian(name, version, tag=tag, suite=tree["suite"])
        for tag, tree in sorted(index["trees"].items())
        for name, version in sorted(tree.get("packages", {}).items())
    ]


def _of_debian(name: str, version: str, *, tag: str, suite: str) -> Described:
    purl = debian_purl(name, version, suite=suite, machine=tag.partition("-")[2])
    return Described(
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        name=name,
        version=version,
        description=f"Part of the interpreter of {tag}, from Debian {suite}",
        purl=purl,
    )


def debian_purl(name: str, version: str, *, suite: str, machine: str) -> PackageURL:
    """As scanners know a package of Debian, by which they find its security advisories."""
    qualifiers = {"arch": ARCHITECTURES.get(machine, machine), "distro": suite}
    return PackageURL("deb", "debian", name, version, qualifiers)


def _application(variants: dict[AnyTag, Component], *, index: dict[str, Any]) -> Described:
    application = _described(_any(variants), kind=ComponentType.APPLICATION)
    application.properties = [
        Property(name=f"{_PROPERTY}:{digest}:{tag}", value=tree[digest])
        for tag, tree in index["trees"].items()
        for digest in ("sha256", "tar_sha256")
    ]
    return application


def _dependencies(trees: Trees) -> list[Dependency]:
    """Who needs whom in at least one tree."""
    edges: dict[str, set[str]] = {}
    for tag, components in trees.items():
        purls = {component.name: _purl(component) for component in components}
        for component in components:
            needed = {purls[name] for name in _needs(component, tag=tag) if name in purls}
            edges.setdefault(_purl(component), set()).update(needed)
    return [
        Dependency(BomRef(ref), [Dependency(BomRef(other)) for other in needed])
        for ref, needed in edges.items()
    ]


def _needs(component: Component, *, tag: AnyTag) -> set[str]:
    like: Tag = tag.like if isinstance(tag, OwnTag) else tag
    environment = {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": tag.machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{like.python_version}.0",
        "python_version": like.python_version,
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
