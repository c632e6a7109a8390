"""The role's variables, from its argument specification and its defaults."""

from __future__ import annotations

from infra import project_files
from tools.pages import markdown

_INTRO = """\
Variables of the role `ai_client`. In a stack, set them under `vars` of the fleet, a group or a host; the most specific
one wins. Without Pulumi they are ordinary Ansible variables. An unknown `ai_` variable, a wrong type, or a value out of
bounds is refused.

Ansible reserves the name `environment`, so the program passes it on as `ai_environment`. The upstream key is never
among a stack's variables: set it with `pulumi config set --secret apiKey`."""


def text() -> str:
    """The page."""
    defaults = project_files.role_defaults()
    rows = [
        (
            f"`{name}`",
            _kind(spec),
            "secret" if spec.get("no_log") else markdown.code(defaults.get(name)),
            markdown.from_ansible(str(spec.get("description", ""))),
        )
        for name, spec in project_files.role_variables().items()
    ]
    return markdown.page(
        "Role variables", _INTRO, markdown.table(("variable", "value", "default", "meaning"), rows)
    )


def _kind(spec: object) -> str:
    if not isinstance(spec, dict):
        return ""
    if "choices" in spec:
        return ", ".join(markdown.code(choice) for choice in spec["choices"])
    inner = f" of {spec['elements']}" if "elements" in spec else ""
    return f"{spec.get('type', 'str')}{inner}"
