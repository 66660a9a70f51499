"""For whoever writes a scenario: what happened, as YAML that can be pasted into it."""
