#!/usr/bin/python
"""Documentation of the action plugin of the same name; nothing of this file runs."""

DOCUMENTATION = r"""
module: ai_client_apply
short_description: Puts a host into the state that the variables of the role ai_client declare
description:
  - Sends the host its whole desired state in one run of a small program and gets back what differed.
  - The role's variables are its input; the task itself names only what is to be done.
  - The keys are read from the variables and go to the host on the program's standard input alone.
options:
  mode:
    description:
      - V(apply) brings the host into the declared state.
      - V(rollback) undoes the roll-out that O(ignore:ai_run) names.
      - V(decommission) removes everything that was laid down.
    type: str
    default: apply
    choices: [apply, rollback, decommission]
  parts:
    description: What of the state is brought about; needed by V(apply).
    type: list
    elements: str
    default: []
    choices: [deploy, config, secrets, verify]
attributes:
  check_mode:
    description: Says what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows files as they are and as they would be, keys by their fingerprints.
    support: full
author: The fleet's maintainers
"""

EXAMPLES = r"""
- name: Put the host into its declared state
  ai_client.fleet.ai_client_apply:
    parts: [deploy, config, secrets, verify]
"""

RETURN = r"""
release:
  description: SHA-256 of the tree that the host runs.
  type: str
  returned: always
config_digest:
  description: SHA-256 of the configuration file on the host.
  type: str
  returned: always
key_fingerprint:
  description: First 12 hex digits of the key's SHA-256.
  type: str
  returned: always
health:
  description: The client's health report; none in check mode.
  type: dict
  returned: always
actions:
  description: What was done beyond the files, such as a restart.
  type: list
  elements: str
  returned: always
changed_paths:
  description: What differed from the declared state.
  type: list
  elements: str
  returned: always
rolled_back:
  description: Whether the host was put back into an earlier state.
  type: bool
  returned: always
watched:
  description: What was seen of the service in the time set for it after a change, beside what was seen before.
  type: dict
  returned: always
tried_keys:
  description: What the provider said of each key before it was laid down.
  type: list
  elements: dict
  returned: always
notes:
  description: What others changed on the host that is left alone, such as drop-ins of the service's unit.
  type: list
  elements: str
  returned: always
journal:
  description: The newest record of the host's release journal.
  type: dict
  returned: always
"""
