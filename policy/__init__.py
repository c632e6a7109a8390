"""Rules on the resources of a stack: a pack for `--policy-pack`, and a reader of previews for where no pack starts."""
