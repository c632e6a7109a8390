"""What every model of the configuration stands on: its base, and texts of a declared form."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")


def matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    """Holds a text to a form; `what` is the reason of the error."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(what)
        return value

    return AfterValidator(check)


Region = Annotated[str, matching(_REGION, "a region such as 'eu-central-1' is needed")]
RoleArn = Annotated[
    str, matching(_ROLE_ARN, "an ARN such as 'arn:aws:iam::123456789012:role/name' is needed")
]


class Model(BaseModel):
    """Frozen, spelled in camelCase, without keys that it does not know, and silent on values that are wrong."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
        validate_default=True,
    )
