"""The rules on the resources that the real engine shows in previews of this project."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policy.preview import PreviewError, judge, read
from policy.rules import RULES
from policy.subjects import COMMAND, STACK, UNKNOWN, Resource
from tests.fleet.clones import Clone, Run
from tests.infra.stacks import KEY, PROJECT, shipped
from tests.policy.previews import checkout, complete, edited, shown

pytestmark = pytest.mark.engine

ANYWHERE = "0.0.0.0"  # noqa: S104 - an address that the rules are about
API_HOSTS = ["api-prod-01", "api-prod-02", "web-prod-01", "web-prod-02", "web-prod-03"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return checkout(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def config(clone: Clone) -> Iterator[dict[str, Any]]:
    """The stack's configuration, to change and write; put back after the test."""
    yield complete()
    clone.configure(complete())


@pytest.fixture(scope="module")
def good(clone: Clone) -> tuple[dict[str, str], list[Resource]]:
    """The preview of a stack in which nothing is wrong."""
    return shown(clone.preview("--stack", "production"))


def with_variables(resources: list[Resource], **variables: object) -> list[Resource]:
    """The resources, as they would be if the program let these variables of the API hosts through."""
    changed = json.loads(json.dumps(resources))
    stack = next(resource for resource in changed if resource["type"] == STACK)
    group = stack["props"]["inventory"]["all"]["children"]["production"]["children"]["ai_api_clients"]
    group["vars"] |= variables
    return list(changed)


def broken_rules(lines: list[str]) -> set[str]:
    return {line.split(":")[0] for line in lines}


def test_a_complete_production_stack_breaks_no_rule(good: tuple[dict[str, str], list[Resource]]) -> None:
    """With a key, host keys and the shipped variables there is nothing to say; every kind of resource was seen."""
    config, resources = good
    assert judge(config, resources) == []
    assert {resource["type"] for resource in resources} >= {STACK, COMMAND}
    assert sum(resource["name"].startswith("claim-") for resource in resources) == 7


def test_a_preview_shows_no_key_to_the_rules(
    clone: Clone, good: tuple[dict[str, str], list[Resource]]
) -> None:
    """The rules judge what anybody may read: the key is nowhere in it."""
    assert KEY not in json.dumps(good)
    assert all(KEY not in output for output in clone.outputs)


@pytest.mark.parametrize(
    ("variables", "rule"),
    [
        ({"ai_verify_ssl": False}, "tls-is-verified"),
        ({"ai_base_url": "http://10.0.0.9/v1"}, "tls-is-verified"),
        ({"ai_upstreams": {"other": {"base_url": "http://10.0.0.9/v1"}}}, "tls-is-verified"),
        ({"ai_gateway_host": ANYWHERE}, "gateways-need-tokens"),
        ({"ai_log_level": "DEBUG"}, "production-does-not-debug"),
        ({"ai_client_version": "1.0.0"}, "artefacts-are-pinned"),
        ({"ai_client_version": "1.0.0", "ai_client_digest": "abc"}, "artefacts-are-pinned"),
        ({"ansible_ssh_extra_args": "-o StrictHostKeyChecking=no"}, "host-keys-are-pinned"),
        ({"ansible_become_pass": "word"}, "secrets-stay-secret"),
        ({"ai_cost_tags": {"owner": KEY}}, "secrets-stay-secret"),
        ({"ai_proxy_url": "http://me:word@proxy"}, "secrets-stay-secret"),
    ],
    ids=str,
)
def test_a_variable_that_breaks_a_rule_is_named(
    good: tuple[dict[str, str], list[Resource]], variables: dict[str, object], rule: str
) -> None:
    """Should the program let it through, the rule stops it, names the variable and never repeats a secret."""
    config, resources = good
    lines = judge(config, with_variables(resources, **variables))
    assert broken_rules(lines) == {rule}
    assert any(name in line for line in lines for name in variables)
    assert KEY not in "".join(lines)


def test_what_the_settings_leave_to_the_policy_is_stopped_in_a_preview(
    clone: Clone, config: dict[str, Any]
) -> None:
    """Debug logs in production and a version without digest pass the program: the policy names each host."""
    config["groups"]["ai_api_clients"]["vars"] |= {"ai_log_level": "DEBUG", "ai_client_version": "1.0.0"}
    clone.configure(config)
    lines = judge(*shown(clone.preview("--stack", "production")))
    assert broken_rules(lines) == {"production-does-not-debug", "artefacts-are-pinned"}
    assert all(sum(host in line for line in lines) == 2 for host in API_HOSTS)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (
            lambda config: config["groups"]["ai_api_clients"]["vars"].update(ai_verify_ssl=False),
            "ai_verify_ssl",
        ),
        (lambda config: config.update(account={"rpm": 10}), "fleet:account.rpm"),
    ],
    ids=["tls", "quota"],
)
def test_what_must_never_be_skipped_the_program_refuses_itself(
    clone: Clone, config: dict[str, Any], change: Callable[[dict[str, Any]], None], culprit: str
) -> None:
    """Without any policy the preview ends with the key's name, and no resource is shown."""
    change(config)
    clone.configure(config)
    run = clone.run("pulumi", "preview", "--json", "--non-interactive", "--stack", "production", expect=None)
    assert run.status != 0
    assert culprit in run.output
    assert "command:local:Command" not in run.output


def test_hosts_without_pinned_keys_are_named(clone: Clone, config: dict[str, Any]) -> None:
    """The shipped stack has no host keys: its preview goes through, and the policy says which hosts lack one."""
    clone.configure(shipped("production") | {"probe": False})
    lines = judge(*shown(clone.preview("--stack", "production")))
    assert broken_rules(lines) == {"host-keys-are-pinned"}
    assert any(all(host in line for host in API_HOSTS) for line in lines)
    assert any("claim-batch-worker-02" in line for line in lines)


@pytest.mark.parametrize("account", [{"rpm": 419}, {"rpm": 420, "tpm": 100}])
def test_limits_above_the_account_are_added_up(
    good: tuple[dict[str, str], list[Resource]], account: dict[str, int]
) -> None:
    """Seven hosts at the role's 60 a minute are 420: the account must have that many, and tokens need a limit."""
    config, resources = good
    assert judge({**config, "fleet:account": '{"rpm": 420}'}, resources) == []
    lines = judge({**config, "fleet:account": json.dumps(account)}, resources)
    assert broken_rules(lines) == {"limits-are-within-quota"}


def test_a_key_in_any_input_that_is_not_secret_is_found(
    good: tuple[dict[str, str], list[Resource]],
) -> None:
    """In a command's line, environment or standard input, and in a resource of a kind that nobody foresaw."""
    config, resources = good
    claim = next(resource for resource in resources if resource["name"] == "claim-web-prod-01")
    order = json.loads(claim["props"]["stdin"]) | {"secrets": {"HOLYSHEEP_API_KEY": KEY}}
    leaks = [
        edited(claim, create=f"curl -H 'Authorization: {KEY}'"),
        edited(claim, environment={"KEY": KEY}),
        edited(claim, stdin=json.dumps(order)),
        edited(claim, triggers=[1, [KEY]]),
        {"urn": "u", "type": "aws:ssm/parameter:Parameter", "name": "p", "props": {"value": KEY}},
    ]
    for leak in leaks:
        lines = judge(config, [leak])
        assert broken_rules(lines) == {"secrets-stay-secret"}
        assert KEY not in "".join(lines)


def test_ssh_that_takes_any_host_key_is_found(good: tuple[dict[str, str], list[Resource]]) -> None:
    """A pinned key is worth nothing where ssh is told not to look."""
    config, resources = good
    claim = next(resource for resource in resources if resource["name"] == "claim-web-prod-01")
    order = json.loads(claim["props"]["stdin"])
    for said in ("no", "accept-new", "ask"):
        loose = order["ssh_config"].replace("StrictHostKeyChecking yes", f"StrictHostKeyChecking {said}")
        lines = judge(config, [edited(claim, stdin=json.dumps(order | {"ssh_config": loose}))])
        assert lines == [
            "host-keys-are-pinned: claim-web-prod-01: ssh accepts host keys that are not pinned;"
            " write StrictHostKeyChecking yes"
        ]


def test_a_deploy_that_names_no_digest_is_found(good: tuple[dict[str, str], list[Resource]]) -> None:
    """Every wave says by a digest what it brings."""
    config, resources = good
    waves = [resource for resource in resources if "HOSTS" in resource["props"].get("environment", {})]
    assert len(waves) == 4
    for content in ("", "latest", None):
        visible_inputs = {**waves[0]["props"]["environment"], "CONTENT": content}
        assert broken_rules(judge(config, [edited(waves[0], environment=visible_inputs)])) == {
            "artefacts-are-pinned"
        }


def test_what_is_not_known_yet_breaks_no_rule(good: tuple[dict[str, str], list[Resource]]) -> None:
    """Before its hosts are made, a stack's host keys are unknown: nothing can be said of them."""
    config, resources = good
    claim = next(resource for resource in resources if resource["name"] == "claim-web-prod-01")
    stack = next(resource for resource in resources if resource["type"] == STACK)
    unknown = [
        edited(claim, stdin=UNKNOWN),
        edited(stack, ssh=UNKNOWN),
        edited(stack, ssh={**stack["props"]["ssh"], "knownHosts": UNKNOWN}),
        edited(stack, inventory=UNKNOWN),
    ]
    assert judge(config, unknown) == []


def test_every_rule_says_what_it_holds_to() -> None:
    """A rule has a name of its own, a sentence for people, and is a documented function."""
    assert len({rule.name for rule in RULES}) == len(RULES) == 7
    assert all(rule.description.endswith(".") and rule.judge.__doc__ == rule.description for rule in RULES)


def judged(run: Run | str) -> subprocess.CompletedProcess[str]:
    text = run if isinstance(run, str) else run.output
    return subprocess.run(
        [sys.executable, "-m", "policy.preview"],
        cwd=PROJECT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_reader_of_previews_ends_with_what_it_found(clone: Clone, config: dict[str, Any]) -> None:
    """Status 0 and no word where all is well, 1 and a line a breach where not."""
    fine = judged(clone.preview("--stack", "production"))
    assert (fine.returncode, fine.stdout, fine.stderr) == (0, "", "")
    config["groups"]["production"]["vars"]["ai_log_level"] = "DEBUG"
    clone.configure(config)
    wrong = judged(clone.preview("--stack", "production"))
    assert wrong.returncode == 1
    assert wrong.stdout.count("production-does-not-debug: ") == 7


def test_a_preview_that_shows_too_little_is_not_called_good(clone: Clone) -> None:
    """The engine's other form of preview, an empty one and a failed one are refused with a remedy."""
    plain = clone.run("pulumi", "preview", "--json", "--non-interactive", "--stack", "production")
    failed = '{"diagnosticEvent": {"severity": "error", "message": "fleet:groups: is missing"}}\n'
    for text, said in [(plain.output, "STREAMING_JSON_PREVIEW"), ("", "inventory"), (failed, "is missing")]:
        done = judged(text)
        assert done.returncode == 2
        assert said in done.stderr
    with pytest.raises(PreviewError):
        read(["not an event", "{broken"])


def test_a_preview_that_is_not_read_whole_is_not_judged() -> None:
    """A resource in a line that was damaged, or behind the end, would pass unseen."""
    whole = [
        json.dumps({"resourcePreEvent": {"metadata": _declares_inventory()}}),
        json.dumps({"summaryEvent": {"result": "succeeded"}}),
    ]
    assert len(read(["said beside it", *whole])[1]) == 1
    for lines, said in (
        (whole[:1], "before its summary"),
        ([*whole[:1], '{"resourcePre', *whole[1:]], "not an event"),
    ):
        with pytest.raises(PreviewError, match=said):
            read(lines)


def _declares_inventory() -> dict[str, Any]:
    return {"urn": "urn::a::wave", "type": COMMAND, "new": {"inputs": {"inventory": "{}"}}}


def test_the_pack_is_where_pulumi_looks_for_it() -> None:
    """`--policy-pack policy` needs the pack's file and its main program."""
    assert (PROJECT / "policy" / "PulumiPolicy.yaml").is_file()
    assert (Path(PROJECT) / "policy" / "__main__.py").is_file()
