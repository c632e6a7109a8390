"""The policy pack: `pulumi preview --policy-pack policy` starts it. Each rule is a policy; see rules.py."""

from policy.pack import start

start()
