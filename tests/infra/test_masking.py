"""What looks like a secret is masked, whatever stands around it, and what is none stays readable."""

import re
import string
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from infra.masking import MASKED, mask, mask_forms

RANDOM = "Zx8kQ2vT9wLm4Rb7Yc1N"
SECRETS = st.text(string.ascii_letters + string.digits + "_-", min_size=12, max_size=48).filter(
    lambda text: not re.fullmatch(r"[0-9a-fA-F.]+|[-_].*|.*[-_]", text) and text.lower() not in "requirepass"
)

BY_NAME = [
    "api_key = {}",
    "+api_key: {}",
    "-   ai_api_key={}",
    '{{"password": "{}", "user": "me"}}',
    '{{"a": 1, "client_secret":"{}"}}',
    "{{'token': '{}'}}",
    r"{{\"secret\": \"{}\"}}",
    "password: correct horse {}",
    'password = "with \\" a quotation mark {}" # comment',
    "pass='begun'\"{}\"",
    "db_pass = {}",
    "export AWS_SECRET_ACCESS_KEY={}",
    'Environment="GATEWAY_TOKEN={} tail"',
    "mysql --user me --password {} --host db",
    "mysql --password={}",
    "curl -H 'X-Api-Key: {}'",
    "GET /v1?page=2&access_token={}&x=y",
    "machine host login me password {}",
    "requirepass {}",
    "masterauth {}",
    "<password>{}</password>",
    "passphrase: |\n  {}\n  second line",
    "+  vault_password: >-\n+    {}\nnext: 1",
    "secret => {}",
    "$secret := {}",
]
BY_FORM = [
    "hs_live_{}",
    "xhs_test_{}",
    "the key hs_test_{} is old",
    "sk-{}",
    "sk-proj-{}",
    "+OPENAI=sk-ant-{}",
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    '"Authorization": "Token {}"',
    "Cookie: a=b; session={}",
    "https://me:{}@host/path",
    "postgresql+psycopg://me:{}@db:5432/x",
    "proxy_url = http://{}@proxy",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
    "+-----BEGIN OPENSSH PRIVATE KEY-----\n+{}\n+cut off",
    '"pem": "-----BEGIN RSA PRIVATE KEY-----\\n{}\\n-----END RSA PRIVATE KEY-----\\n"',
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{}\n-----END PGP PRIVATE KEY BLOCK-----",
]
SURROUNDINGS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)


@pytest.mark.parametrize("form", BY_NAME + BY_FORM)
@settings(deadline=None)
@given(secret=SECRETS)
def test_a_secret_is_masked_by_the_name_before_it_or_by_its_form(form: str, secret: str) -> None:
    """Settings, JSON, YAML, headers, arguments, addresses, elements, PEM; in plain text and in diffs."""
    assume(secret not in form)
    text = form.format(secret)
    assert secret not in mask(text)
    assert "[masked" in mask(text)


@pytest.mark.parametrize("form", BY_FORM)
@settings(deadline=None)
@given(secret=SECRETS)
def test_a_sentence_of_the_program_is_masked_by_form_alone(form: str, secret: str) -> None:
    """Its own sentences name keys in order to say what is wrong with them; keys in them are masked all the same."""
    assume(secret not in form)
    assert secret not in mask_forms(form.format(secret))


def test_a_sentence_of_the_program_stays_whole() -> None:
    """`fleet:apiKey: …` is a culprit and a reason, not a name and a value."""
    said = "fleet:apiKey: no upstream key for api; set it with 'pulumi config set --secret apiKey'"
    assert mask_forms(said) == said
    assert mask(said) == f"fleet:apiKey: {MASKED}"


@pytest.mark.parametrize(
    "text",
    [
        "token_limit = 60000",
        "max_tokens: 4096,",
        '"prompt_tokens": 12, "model": "gpt-4.1"',
        "token_sha256 = " + "0a" * 32,
        "key 0a1b2c3d4e5f",
        "key_fingerprint: 0a1b2c3d4e5f",
        "release 3f2a" + "9c" * 30,
        "LoadCredential=key:/etc/ai-client/key",
        "ssl_password_file = /etc/ssl/pass",
        "IdentityFile ~/.ssh/id_ed25519",
        "hostKeys: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx6xj1Hn0S6c5Z8N0yqkQe0Zz2k4fU2m0y8p2u9w0aB",
        "password authentication failed for user deploy",
        "the bearer of bad news",
        "bypass = enabled",
        "token: null",
        'secret = ""',
        "base_url = https://api.holysheep.ai/v1",
        "key: production/ai-client/first",
        "risk-based-decision, task-force-leader",
        "@@ -1,7 +1,7 @@\n-timeout = 30\n+timeout = 31",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    """Limits, digests, paths, public keys and prose."""
    assert mask(text) == text


def test_a_key_keeps_the_prefix_that_says_what_it_is() -> None:
    """Whether a live or a test key stands somewhere may be said."""
    assert mask("api_key = hs_live_0123456789") == f"api_key = hs_live_{MASKED}"
    assert mask("old hs_test_abcdef, new hs_live_fedcba") == f"old hs_test_{MASKED}, new hs_live_{MASKED}"


def test_what_stands_before_a_key_in_a_value_is_masked_with_it() -> None:
    """Only the prefix of a key is shown, where the key is all of the value."""
    assert mask("password = word-hs_test_0123456789") == f"password = {MASKED}"
    assert mask("password = hs_test_0123456789 word") == f"password = {MASKED}"


@pytest.mark.parametrize("name", ["key", "signing_key", "encryptionKey", "SESSION", "hmac", "salt"])
def test_a_random_value_after_a_name_that_may_be_a_keys_is_masked(name: str) -> None:
    """`key` names many things: only a long value that looks random is taken for one."""
    assert mask(f'{name} = "{RANDOM}"') == f'{name} = "{MASKED}"'
    assert mask(f"+{name}: {RANDOM}, next") == f"+{name}: {MASKED}, next"
    assert mask(f"{name}: production, next") == f"{name}: production, next"


def test_the_inside_of_a_private_key_is_masked() -> None:
    """A diff may show lines of a key without its first and last line."""
    inside = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj" for _ in range(2)]
    text = "\n".join(["@@ -3,4 +3,4 @@", f" {inside[0]}", f"-{inside[1]}", "+qRt5Zx==", " "])
    assert mask_forms(text) == f"@@ -3,4 +3,4 @@\n {MASKED}\n-{MASKED}\n+{MASKED}\n "


@settings(deadline=None)
@given(
    parts=st.lists(st.sampled_from([*BY_NAME, *BY_FORM]) | SURROUNDINGS.map(lambda t: re.sub("[{}]", "", t))),
    secret=SECRETS,
)
@example(parts=["api_key = {}", "password: |\n  {}"], secret="hs_test_abcdef012345")
@example(parts=["password ", "= [masked]", " {}"], secret=RANDOM)
def test_masking_twice_masks_nothing_more(parts: list[str], secret: str) -> None:
    """A plan is masked where it is made and again where it is shown."""
    once = mask("\n".join(parts).replace("{}", secret).replace("{{", "{").replace("}}", "}"))
    assert mask(once) == once


@settings(deadline=None)
@given(text=st.text(st.sampled_from("pasword=:\"'[]|>- \n\\keytn\x00é/@{}"), max_size=300))
def test_any_text_can_be_masked_twice(text: str) -> None:
    """Whatever a host sends."""
    assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize(
    "unit",
    [
        "password",
        "password ",
        "api_key=",
        'token="',
        f"key={RANDOM}",
        "login a password ",
        "<token>",
        "Cookie: ",
    ],
)
def test_no_names_make_masking_slow(unit: str) -> None:
    """A host that sends the worst must not hold up a preview: work grows with the text, not with its square."""
    assert seconds_to_mask(unit) < 2.0


@pytest.mark.parametrize(
    "unit",
    [
        "\\",
        "a",
        "-",
        " ",
        "A",
        "Ab+/",
        "://",
        "a://",
        "x@",
        "eyJ",
        "-----BEGIN PRIVATE KEY-----",
        "secret: |\n ",
    ],
)
def test_no_forms_make_masking_slow(unit: str) -> None:
    """The same of what is masked by its form."""
    assert seconds_to_mask(unit) < 2.0


def seconds_to_mask(unit: str) -> float:
    started = time.process_time()
    mask(unit * (200_000 // len(unit)))
    return time.process_time() - started
