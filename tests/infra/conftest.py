import os
from collections.abc import Iterator

import pytest

from tests.aws_server import Aws, environment, moto_server


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    with moto_server() as server:
        yield server


@pytest.fixture
def account(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """An empty account, which this process's environment leads to."""
    aws.empty()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(aws.url).items():
        monkeypatch.setenv(name, value)
    return aws
