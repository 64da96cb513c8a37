"""Elemta: the policy side of a Postfix mail server. One YAML policy, one engine, two daemons.

The names below are what a plugin is written with, besides `elemta.testing`; docs/plugins.md tells of each.  They keep
their meaning within a major version of `API`; other names of the package may change at any time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import Field as Setting

    from elemta.check import CLASS, UNTIL, Check, Field, Options, Seen, Stage, Tools, Trouble
    from elemta.config.types import Duration, Size
    from elemta.dns import Answer, DnsError, Record, Resolver, Status
    from elemta.facts import Body, Client, Envelope, Message
    from elemta.findings import AuthResult, Finding, Result, Value
    from elemta.servers import ServerError, Servers
    from elemta.store import Store, StoreError
    from elemta.verdict import Action, ActionKind

API = "1.0"
"""The version of this interface: a new minor version adds to it, a new major version may change or remove."""

_WHERE = {
    "pydantic": ("Setting",),
    "elemta.check": ("CLASS", "UNTIL", "Check", "Field", "Options", "Seen", "Stage", "Tools", "Trouble"),
    "elemta.config.types": ("Duration", "Size"),
    "elemta.dns": ("Answer", "DnsError", "Record", "Resolver", "Status"),
    "elemta.facts": ("Body", "Client", "Envelope", "Message"),
    "elemta.findings": ("AuthResult", "Finding", "Result", "Value"),
    "elemta.servers": ("ServerError", "Servers"),
    "elemta.store": ("Store", "StoreError"),
    "elemta.verdict": ("Action", "ActionKind"),
}

__all__ = [
    "API",
    "CLASS",
    "UNTIL",
    "Action",
    "ActionKind",
    "Answer",
    "AuthResult",
    "Body",
    "Check",
    "Client",
    "DnsError",
    "Duration",
    "Envelope",
    "Field",
    "Finding",
    "Message",
    "Options",
    "Record",
    "Resolver",
    "Result",
    "Seen",
    "ServerError",
    "Servers",
    "Setting",
    "Size",
    "Stage",
    "Status",
    "Store",
    "StoreError",
    "Tools",
    "Trouble",
    "Value",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has the name
    """Import what is asked for, when it is asked for: a command that needs none of it starts at once."""
    for module, names in _WHERE.items():
        if name in names:
            value = getattr(import_module(module), "Field" if name == "Setting" else name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
