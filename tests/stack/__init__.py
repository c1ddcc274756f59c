"""Test hosts with systemd, and the control-plane stack's roles on them: docs/stack-testing.md."""
