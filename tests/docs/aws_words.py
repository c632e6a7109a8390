"""AWS's command line as far as the pages use it: words become a call, checked against AWS's own description of it.

`python -m tests.docs.aws_words SERVICE OPERATION --name value…`, with `--query` and `--output text`.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import jmespath
from botocore import xform_name
from botocore.model import Shape

_SERVICES = {"s3api": "s3"}
_OWN = ("query", "output")


def main(words: list[str]) -> int:
    """Calls AWS and prints its answer."""
    service, operation, *rest = words
    client = boto3.Session(region_name=os.environ["AWS_REGION"]).client(_SERVICES.get(service, service))
    method = operation.replace("-", "_")
    shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape
    members = {xform_name(name, "-"): name for name in shape.members}
    given = dict(_options(rest))
    own = {name: given.pop(name)[0] for name in _OWN if name in given}
    arguments = {members[name]: _value(shape.members[members[name]], v) for name, v in given.items()}
    answer = getattr(client, method)(**arguments)
    answer.pop("ResponseMetadata", None)
    result = jmespath.search(own["query"], answer) if "query" in own else answer
    print(result if own.get("output") == "text" else json.dumps(result, default=str))
    return 0


def _options(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the words that follow it."""
    name, values = "", list[str]()
    for word in [*words, "--"]:
        if not word.startswith("--"):
            values.append(word)
            continue
        if name:
            yield name, values
        name, values = word[2:], []


def _value(shape: Shape, words: list[str]) -> Any:
    """Words as the type that AWS wants: text, a structure in short form, or a list of either."""
    match shape.type_name:
        case "list":
            return [_value(shape.member, [word]) for word in words]  # type: ignore[attr-defined]
        case "structure":
            pairs = (part.partition("=") for part in words[0].split(","))
            return {name: _value(shape.members[name], [text]) for name, _, text in pairs}  # type: ignore[attr-defined]
        case "boolean":
            return {"true": True, "false": False}[words[0]]
        case _:
            (word,) = words
            return word


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
