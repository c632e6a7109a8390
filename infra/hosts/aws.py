"""AWS, as this program asks it: through boto3, by the caller's ordinary credentials, within bounds of time.

Only programs that need AWS import this module: boto3 takes a second to load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from infra.errors import FleetError

# Five attempts of at most 25 s each; botocore waits up to 20 s between two of them.
_CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 5})
_PAGE_SIZE = 200
_LONGEST_REASON = 300

_REMEDIES = {
    "AccessDenied": "allow {action} to the identity that runs Pulumi",
    "AccessDeniedException": "allow {action} to the identity that runs Pulumi",
    "UnauthorizedOperation": "allow {action} to the identity that runs Pulumi",
    "AuthFailure": "renew the AWS credentials",
    "ExpiredToken": "renew the AWS credentials",
    "ExpiredTokenException": "renew the AWS credentials",
    "InvalidClientTokenId": "renew the AWS credentials",
    "RequestExpired": "renew the AWS credentials, and check this machine's clock",
    "UnrecognizedClientException": "renew the AWS credentials",
    "RequestLimitExceeded": "run it again in a minute",
    "Throttling": "run it again in a minute",
    "ThrottlingException": "run it again in a minute",
}


class Account:
    """One account and region, seen with the caller's identity or with a role that it takes on.

    Args:
        region: region to ask; the one of the caller's configuration where None.
        role_arn: role to take on first; none where empty.
        culprit: what an error names: a configuration key or a host.
        error: type of the errors.
    """

    def __init__(
        self, region: str | None, role_arn: str | None, *, culprit: str, error: type[FleetError]
    ) -> None:
        self._culprit = culprit
        self._error = error
        with self._asked("sts:AssumeRole"):
            # AWS's other programs read AWS_REGION; boto3 knows AWS_DEFAULT_REGION alone.
            self._session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)
            if role_arn:
                self._session = self._in_role(role_arn)
        if not self._session.region_name:
            raise error(culprit, "no AWS region is set", "write region beside it, or set AWS_REGION")

    @property
    def region(self) -> str:
        """The region that is asked."""
        return str(self._session.region_name)

    def reservations(self, filters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every page of DescribeInstances. Part of an answer is no answer: an error on any page is an error."""
        with self._asked("ec2:DescribeInstances"):
            pages = self._client("ec2").get_paginator("describe_instances")
            found = pages.paginate(Filters=list(filters), PaginationConfig={"PageSize": _PAGE_SIZE})
            return [reservation for page in found for reservation in page["Reservations"]]

    def reservations_of(self, instance_id: str) -> list[dict[str, Any]] | None:
        """DescribeInstances of one instance; None where this account has no such instance."""
        with self._asked("ec2:DescribeInstances"):
            try:
                answer = self._client("ec2").describe_instances(InstanceIds=[instance_id])
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidInstanceID.NotFound":
                    return None
                raise
        return cast("list[dict[str, Any]]", answer["Reservations"])

    def number(self) -> str:
        """Number of the account that answers."""
        with self._asked("sts:GetCallerIdentity"):
            return str(self._client("sts").get_caller_identity()["Account"])

    def secret_versions(self, secret_id: str, stages: Sequence[str]) -> dict[str, str]:
        """Text of a secret's version at each of these stages, where there is one; "" where it holds no text."""
        client = self._client("secretsmanager")
        with self._asked("secretsmanager:DescribeSecret"):
            held = client.describe_secret(SecretId=secret_id).get("VersionIdsToStages", {})
        with self._asked("secretsmanager:GetSecretValue"):
            return {
                stage: client.get_secret_value(SecretId=secret_id, VersionId=version).get("SecretString", "")
                for version, names in held.items()
                for stage in names
                if stage in stages
            }

    def _in_role(self, role_arn: str) -> boto3.Session:
        answer = self._client("sts").assume_role(RoleArn=role_arn, RoleSessionName="ai-client-fleet")
        given = answer["Credentials"]
        return boto3.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=self._session.region_name,
        )

    def _client(self, service: str) -> Any:
        return self._session.client(cast("Any", service), config=_CONFIG)

    @contextmanager
    def _asked(self, action: str) -> Iterator[None]:
        """Turns whatever AWS or the way to it answers into one error of the program."""
        try:
            yield
        except ClientError as error:
            code = error.response["Error"].get("Code", "an error")
            reason = f"AWS answered {action} with {code}: {error.response['Error'].get('Message', '')}"
            remedy = _REMEDIES.get(code, "see AWS's documentation of this error").format(action=action)
            raise self._error(self._culprit, _shortened(reason), remedy) from error
        except NoCredentialsError as error:
            remedy = "set AWS_PROFILE, or the variables of a role"
            raise self._error(self._culprit, "there are no AWS credentials", remedy) from error
        except NoRegionError as error:
            remedy = "write region beside it, or set AWS_REGION"
            raise self._error(self._culprit, "no AWS region is set", remedy) from error
        except BotoCoreError as error:
            reason = f"{action} got no answer: {error}"
            remedy = "check the network, AWS_PROFILE and the region"
            raise self._error(self._culprit, _shortened(reason), remedy) from error


def _shortened(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"
