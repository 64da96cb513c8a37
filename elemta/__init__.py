"""Elemta: the policy side of a Postfix mail server. One YAML policy, one engine, two daemons."""
