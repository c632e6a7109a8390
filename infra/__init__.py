"""The Pulumi program: settings → nodes → inventory → playbook runs → per-host results."""
