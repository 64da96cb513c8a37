"""Rules, as the file has them: what may stand in one, and in a test of them?

Conditions are only carried here, with their place in the file; `elemta.rules` knows the facts they ask for.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from elemta.config.names import Name
from elemta.config.section import Section, Words
from elemta.config.types import Duration


class AddToSet(Section):
    """An entry for a dynamic set."""

    set: Name = Field(description="the dynamic set")
    value: str = Field(
        min_length=1, description="the entry; {facts} are filled in, as words: patterns are what you write"
    )
    ttl: Duration = Field(0.0, description="how long it stays; 0 = until removed")


class Banner(Section):
    """Words put into the text that the reader of a mail sees; {facts}, {host} and {id} are filled in."""

    text: str = Field(min_length=1, description="for plain text; several lines are kept")
    html: str | None = Field(None, description="for HTML, where facts are escaped; default: made of the text")
    position: Literal["top", "bottom"] = Field("top", description="before or after the text")


class ReplaceAttachments(Section):
    """Which attachments are taken out, and what stands in their place; one that holds such a file goes as a whole."""

    extension: Words = Field((), description="of a file's name, without the dot")
    type: Words = Field((), description="the media type, by declaration or content; * and ? may stand in it")
    name: Words = Field((), description="the file's name; * and ? may stand in it")
    notice: str = Field(
        'The attachment "{name}" was taken out by the rule {rule}. Reference {id}',
        min_length=1,
        description="the text in its place; {name} is the attachment's, {facts}, {rule} and {id} are filled in",
    )


class RuleModel(Section):
    """One rule, read from top to bottom; the first final match wins."""

    id: Name = Field(description="the rule's name in log, journal, metrics and replies")
    class_: Words | None = Field(None, alias="class", description="only for these classes; default: all")
    when: dict[str, Any] = Field(default_factory=dict, description="conditions; all must hold")
    unless: dict[str, Any] = Field(default_factory=dict, description="conditions; if all hold, the rule does not match")
    then: Literal["accept", "defer", "reject", "discard", "quarantine"] | None = Field(
        None,
        description="the verdict; without it the rule is not final and the rules below are still read. "
        "At RCPT TO, discard and quarantine take the whole message, for all its recipients",
    )
    reply: str | None = Field(
        None, description='the SMTP reply, "550 5.7.1 text"; {facts}, {rule}, {host} and {id} are filled in'
    )
    mode: Literal["enforce", "shadow", "off"] = Field(
        "enforce", description="shadow: judged and recorded, without effect"
    )
    percent: float = Field(100, gt=0, le=100, description="of messages, chosen stably by message; tests read it as 100")
    label: Words = Field((), description="words kept with the decision in journal, log and metrics")
    add_header: dict[str, str] = Field(default_factory=dict, description="header fields to add")
    set_header: dict[str, str] = Field(
        default_factory=dict, description="header fields to replace, or add where absent"
    )
    remove_header: Words = Field((), description="header fields to remove")
    add_recipient: Words = Field((), description="envelope recipients to add")
    remove_recipient: Words = Field((), description="envelope recipients to remove")
    change_sender: str | None = Field(None, description="the new envelope sender")
    replace_body: str | None = Field(None, description="the new body, text/plain")
    tag_subject: str | None = Field(
        None, min_length=1, description='a word to put before the subject, "[SPAM]", unless it stands there already'
    )
    banner: Banner | None = Field(None, description="words to put into the text of the mail")
    replace_attachments: ReplaceAttachments | None = Field(
        None, description="attachments to take out; a notice stands in their place"
    )
    add_to_set: AddToSet | None = Field(None, description="put an entry into a dynamic set")


class Rules(Section):
    """The policy itself."""

    recipient: tuple[RuleModel, ...] = Field(
        (),
        description="judged by elemta-policyd at each RCPT TO; discard and quarantine there are about the whole mail",
    )
    message: tuple[RuleModel, ...] = Field((), description="judged by elemta-milter when the message is complete")


class Expectation(Section):
    """What a test expects."""

    then: Literal["accept", "defer", "reject", "discard", "quarantine"] | None = Field(None, description="the verdict")
    rule: str | None = Field(None, description="the id of the deciding rule")


class TestModel(Section):
    """A test inside the configuration, run by `elemta config check`."""

    name: str = Field(description="what it proves")
    given: dict[str, Any] = Field(default_factory=dict, description="facts; those not given are neutral")
    expect: Expectation = Field(description="the verdict, the rule, or both")
    stage: Literal["recipient", "message"] | None = Field(
        None, description="which rules to read; default: those that hold the expected rule, else message, if it has any"
    )
