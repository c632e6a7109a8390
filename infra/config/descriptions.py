"""What each configuration key means, for the reference and for editors: a sentence or two a field of `schema`."""

from __future__ import annotations

from collections.abc import Mapping

DESCRIPTIONS: Mapping[str, str] = {
    "FleetSettings.environment": "Such as `dev` or `production`. Only `dev` may leave TLS unverified; the "
    "policy pack forbids DEBUG logs in `production`.",
    "FleetSettings.user": "Default ssh login. It needs sudo, and can't be root.",
    "FleetSettings.groups": "Groups of hosts, by name. Within a group, hosts roll out by name; hosts added "
    "later come last.",
    "FleetSettings.jump_hosts": "Jump hosts, by name.",
    "FleetSettings.vars": "Role variables for all hosts.",
    "FleetSettings.ssh": "How to connect by ssh.",
    "FleetSettings.local": "The network of the hosts that the stack boots itself.",
    "FleetSettings.cordon": "Names of hosts to leave untouched, EC2 instances included. They stay in the "
    "stack.",
    "FleetSettings.max_removals": "Most hosts that one run may remove. The preview fails if there are more.",
    "FleetSettings.allow_destroy": "Lets `pulumi destroy` clean hosts up, once `up` has recorded it. Local "
    "hosts don't need it.",
    "FleetSettings.owner": "Owner for a new state that replaces a lost one: copy it from the error with "
    "which `up` refused the hosts.",
    "FleetSettings.take_over": "Owner to take hosts over from: copy it from the error with which `up` "
    "refused them.",
    "FleetSettings.probe": "Whether a preview contacts the hosts; `false` compares with what was last "
    "applied. `registry`: it contacts only hosts whose report to `fleet:coordination` is missing, old or "
    "differs; `up` checks every host.",
    "FleetSettings.require_plan": "`planDigest` of the preview that was approved; `up` refuses any other "
    "plan.",
    "FleetSettings.account": "What the provider grants the whole account.",
    "FleetSettings.api_key": "The upstream key (HolySheep: `hs_live_…`): `pulumi config set --secret apiKey`.",
    "FleetSettings.api_key_next": "The next key, during a rotation: hosts get it beside `apiKey`, and use it "
    "if that one is refused. Secret.",
    "FleetSettings.api_keys": "Upstream keys of groups that have their own, by group; used instead of "
    "`apiKey`. Secret.",
    "FleetSettings.api_key_secret": "Older spelling of `keySource: {aws: …}`.",
    "FleetSettings.key_source": "Where the upstream key is kept outside the stack; replaces `apiKey`.",
    "FleetSettings.coordination": "A Valkey or Redis that lends quota between hosts. Default: none.",
    "CoordinationSettings.endpoint": "Its address: `rediss://HOST:PORT`, or `redis://` without TLS.",
    "CoordinationSettings.user": "User that may run the script.",
    "CoordinationSettings.password": "That user's password. Secret.",
    "CoordinationSettings.ca_path": "File on the hosts with the CA of its certificate. Default: the hosts' "
    "trust store.",
    "CoordinationSettings.account": "Name of the quota, the same in all stacks that share it. Default: the "
    "stack's name.",
    "CoordinationSettings.shared_budgets": "Whether budgets hold for all hosts together, those of tenants, too.",
    "FleetSettings.gate": "How a changed host is watched before the next wave starts.",
    "FleetSettings.upstreams": "Other providers' accounts, by name. Their models are called `NAME/MODEL`.",
    "UpstreamSettings.base_url": "Address of its API, version included: `https://openrouter.ai/api/v1`.",
    "UpstreamSettings.dialect": "Which API it speaks, and how requests are signed.",
    "UpstreamSettings.api_version": "Version of Azure's dated API; empty for its `/openai/v1`.",
    "UpstreamSettings.told_cost": "Book the cost that its answers report, instead of computing it from "
    "`prices`.",
    "UpstreamSettings.bills_cut_streams": "It writes on, and bills all of it, if a stream is cut.",
    "UpstreamSettings.needs_key": "Whether requests carry a key; a server of your own may need none.",
    "UpstreamSettings.key_from": "Where hosts get its key: a file that `up` writes, or [a key that they have "
    "themselves](../how-to/key-sources.md#keys-that-the-hosts-have-themselves).",
    "UpstreamSettings.key_prefix": "What its key must begin with; separate several prefixes by commas.",
    "UpstreamSettings.models": "Its models: the names that callers use, each with the upstream's own name.",
    "UpstreamSettings.prices": "US dollars per million tokens, by model: a number, or input, output, "
    "cached_input.",
    "UpstreamSettings.order": "If several upstreams list a model, the one with the lowest order is tried "
    "first. `[api]` has 0.",
    "UpstreamSettings.weight": "Its share of the requests, relative to upstreams of the same order.",
    "UpstreamSettings.api_key": "Its key, in the provider's form. Secret.",
    "UpstreamSettings.api_key_next": "Its next key, during a rotation. Secret.",
    "UpstreamSettings.key_source": "Where its key is kept outside the stack; replaces `apiKey`.",
    "AccountSettings.models": "Limits of single models, by name. For another upstream: `NAME/MODEL`, or "
    "`NAME` for all its models.",
    "ModelLimitSettings.requests_per_minute": "Requests per minute.",
    "ModelLimitSettings.tokens_per_minute": "Tokens per minute, input and output together.",
    "ModelLimitSettings.input_tokens_per_minute": "Input tokens per minute.",
    "ModelLimitSettings.output_tokens_per_minute": "Output tokens per minute.",
    "ModelLimitSettings.images_per_minute": "Images per minute.",
    "ModelLimitSettings.requests_per_day": "Requests per day.",
    "ModelLimitSettings.tokens_per_day": "Tokens per day.",
    "ModelLimitSettings.burst_s": "Spreads the limits per minute: in any span of this many seconds, only the "
    "span's part of them may be used.",
    "ModelLimitSettings.counts": "Whether the provider counts the tokens that a request used (`use`), or "
    "those that it was estimated to use (`estimate`).",
    "GateSettings.seconds": "How long a changed host is watched. 0 checks it once.",
    "GateSettings.max_error_share": "How far the share of requests that end in the service's own errors may "
    "rise.",
    "GateSettings.max_throttled_share": "How far the share of attempts answered with 429 may rise. Only "
    "counts if the host sends more than before.",
    "GateSettings.max_overhead_ms": "Highest overhead of the service itself (95th percentile), in "
    "milliseconds. Only counts if it is also at least four times the earlier one.",
    "GroupSettings.source": "Where the hosts come from: declared here, booted on this machine, or found on "
    "EC2.",
    "GroupSettings.hosts": "The hosts, by name (`static` and `local`).",
    "GroupSettings.hosts_file": "YAML file with more hosts, by name, below the project folder. Pulumi takes at "
    "most 128 KiB of configuration.",
    "GroupSettings.ec2": "Which instances are the hosts (`ec2`).",
    "GroupSettings.children": "Names of the groups inside this one. A group has hosts or children, not both.",
    "GroupSettings.user": "ssh login for this group.",
    "GroupSettings.port": "ssh port for this group. Default: 22.",
    "GroupSettings.jump": "Names of the jump hosts to go through, outermost first.",
    "GroupSettings.canary": "How many hosts, the first by name, get a change before the rest of the group. 0 "
    "for none.",
    "GroupSettings.serial": "Hosts per wave after the canary: a number, a share of the group such as `25%`, "
    "or a list of these, one for each wave; the last one repeats. Default: all remaining hosts of a zone at "
    "once.",
    "GroupSettings.before": "File of Ansible tasks, below the project folder, to run on the hosts of each "
    "wave before it is deployed.",
    "GroupSettings.after": "The same, to run on each host once it is deployed and healthy.",
    "GroupSettings.share": "The group's part of `account`, above 0 and at most 1, divided equally between "
    "its hosts.",
    "GroupSettings.vars": "Role variables for this group.",
    "HostSettings.address": "IP address or DNS name for ssh.",
    "HostSettings.user": "ssh login for this host.",
    "HostSettings.port": "ssh port of this host.",
    "HostSettings.zone": "Availability zone. No wave spans two zones.",
    "HostSettings.jump": "Names of the jump hosts to go through, outermost first; [] for none.",
    "HostSettings.host_keys": "Public host keys as `ssh-ed25519 AAAA…`, read over a channel that you trust.",
    "HostSettings.suite": "Debian release of a local host.",
    "HostSettings.cordoned": "Leave this host untouched: it is neither probed nor deployed, and stays in the "
    "stack.",
    "HostSettings.vars": "Role variables for this host.",
    "Ec2Settings.filters": "Filters of DescribeInstances, such as `tag:Role: [api]`. An instance must match "
    "all of them.",
    "Ec2Settings.region": "Region of the instances. Default: AWS's own configuration.",
    "Ec2Settings.vpc_id": "VPC of the instances. Default: any.",
    "Ec2Settings.zones": "Availability zones of the instances. Default: any.",
    "Ec2Settings.states": "Which instances count as hosts. A stopped one keeps its claim and is not deployed "
    "to.",
    "Ec2Settings.role_arn": "Role to assume when looking for instances. Default: the caller's own identity.",
    "Ec2Settings.name_tag": 'Tag with the name of the host; "" names hosts by instance id.',
    "Ec2Settings.host_key_tag": "Tag with the public host key.",
    "Ec2Settings.host_keys": "Public host keys, by host name or instance id. They take precedence over the "
    "tag.",
    "Ec2Settings.allow_empty": "Accept an answer without any instance. Otherwise it is an error, so that it "
    "never removes all hosts.",
    "JumpHostSettings.source": "Declared here, or booted on this machine.",
    "JumpHostSettings.address": "IP address or DNS name for ssh.",
    "JumpHostSettings.user": "ssh login for this jump host.",
    "JumpHostSettings.port": "ssh port of this jump host.",
    "JumpHostSettings.jump": "Names of the jump hosts to go through, outermost first.",
    "JumpHostSettings.host_keys": "Public host keys as `ssh-ed25519 AAAA…`, read over a channel that you "
    "trust.",
    "JumpHostSettings.suite": "Debian release of a local jump host.",
    "SshSettings.identity_file": "Private key to log in with, such as `~/.ssh/fleet`. Default: the agent's "
    "keys.",
    "SshSettings.certificate_authority": "Public keys of the CAs that sign host keys, for hosts without a "
    "pinned one.",
    "SshSettings.connect_timeout_s": "Seconds to wait for a connection.",
    "LocalSettings.bridge": "Address and network of this machine on the bridge of the local hosts.",
    "LocalSettings.link": "Network of four addresses between this machine and the local jump host.",
    "LocalSettings.suite": "Default Debian release of local hosts.",
    "LocalSettings.simulator": "The provider simulator that local hosts talk to.",
    "SimulatorSettings.port": "Its port on the bridge's address.",
    "SimulatorSettings.rpm": "Requests per minute that it allows each key.",
    "SimulatorSettings.tpm": "Tokens per minute that it allows each key.",
    "SimulatorSettings.latency_ms": "Median time to the first byte, in milliseconds.",
    "AccountSettings.rpm": "Requests per minute of the whole account. The `ai_rpm` of all hosts add up to "
    "this at most.",
    "AccountSettings.tpm": "Tokens per minute of the whole account. The `ai_tpm` of all hosts add up to this "
    "at most.",
    "ApiKeySecretSettings.secret_id": "Name or ARN of the secret.",
    "ApiKeySecretSettings.region": "Region of the secret. Default: AWS's own configuration.",
    "ApiKeySecretSettings.role_arn": "Role to assume when reading the secret. Default: the caller's own "
    "identity.",
    "ApiKeySecretSettings.field": "Field with the key, if the secret is a JSON object.",
    "KeySourceSettings.aws": "AWS Secrets Manager.",
    "KeySourceSettings.vault": "HashiCorp Vault or OpenBao.",
    "KeySourceSettings.command": "A program on the control machine that prints the key.",
    "KeySourceSettings.sops": "A file encrypted with SOPS.",
    "KeySourceSettings.age": "A file encrypted with age.",
    "VaultSettings.path": "Path of the secret below the engine's mount.",
    "VaultSettings.address": "Address of Vault. Default: `VAULT_ADDR`. Plain HTTP is accepted on this "
    "machine only.",
    "VaultSettings.mount": "Where the key-value engine is mounted.",
    "VaultSettings.version": "Version of the key-value engine.",
    "VaultSettings.namespace": "Namespace of the engine and the login. Default: `VAULT_NAMESPACE`.",
    "VaultSettings.login": "How to get a token. Default: `VAULT_TOKEN`, or the token of `vault login`.",
    "VaultSettings.field": "Field with the key.",
    "VaultSettings.next_field": "Field with the next key, during a rotation.",
    "VaultLoginSettings.method": "The auth method.",
    "VaultLoginSettings.role": "Role to log in as; for `approle`, the role id.",
    "VaultLoginSettings.mount": "Where the auth method is mounted. Default: the method's name.",
    "VaultLoginSettings.jwt_file": "File with the token to log in with. Default for `kubernetes`: the pod's.",
    "CommandSettings.argv": "Program and arguments. Never put a secret here.",
    "CommandSettings.next_argv": "The same for the next key, during a rotation. It prints nothing if there "
    "is none.",
    "CommandSettings.timeout_s": "Most seconds that it may take.",
    "CommandSettings.field": "Field with the key, if it prints a JSON object.",
    "CommandSettings.next_field": "Field of that object with the next key, during a rotation.",
    "SopsSettings.file": "The file, below the project folder.",
    "SopsSettings.field": "Field with the key; dots lead into objects.",
    "SopsSettings.next_field": "Field with the next key, during a rotation.",
    "AgeSettings.file": "The file, below the project folder.",
    "AgeSettings.identity_file": "Identity that decrypts it, such as `~/.config/age/fleet`.",
    "AgeSettings.field": "Field with the key, if the text is a JSON object.",
    "AgeSettings.next_field": "Field of that object with the next key, during a rotation.",
}
