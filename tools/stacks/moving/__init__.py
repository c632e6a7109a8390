"""Moving in: an existing Ansible inventory and its variables become a stack's configuration."""
