"""What is proposed, each part with its reason; `text` writes it as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from iggyflux.authoring.inference.write import document_text
from iggyflux.records import JSON


@dataclass(frozen=True, slots=True)
class Input:
    """`from` of the document, and how its format was recognized."""

    stream: str
    topic: str
    format: str
    options: Mapping[str, JSON]
    how: str
    captures: Mapping[str, str] = field(default_factory=dict)
    """The expressions that read the parts of a text, by their names."""
    known: Mapping[str, Literal["tag", "field"]] = field(default_factory=dict)
    """What members of these names become, as the format says; those that are fields are texts."""
    has_non_finite: bool = False
    """Whether samples have NaN or infinities, which JSON does not: they are left out, wherever they are."""
    file: str | None = None
    """The path of the mapping, if its options name files."""
    compression: str = "none"


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measurement: an expression, or a constant."""

    text: str
    is_constant: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag."""

    key: str
    expression: str
    reason: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """A field; `omits` says that bad values are left out."""

    key: str
    expression: str
    reason: str
    type: str = "float"
    cast: bool = False
    omits: bool = False

    @property
    def presence(self) -> str:
        """An expression that is null where the field is left out."""
        if not self.omits:
            return self.expression
        if self.cast:
            return f"parse_number(to_string({self.expression}), `null`)"
        return f"if(type({self.expression}) == 'number', {self.expression})"


@dataclass(frozen=True, slots=True)
class Time:
    """The time; without an expression it is that of the message."""

    expression: str | None
    reason: str
    format: str = ""
    timezone: str | None = None
    falls_back: bool = False
    """Whether the message's time is used where the expression returns null."""
    spread: Literal["offset", "index"] | None = None


@dataclass(frozen=True, slots=True)
class Unused:
    """A place that is not stored: as a line of the document that would store it, and why it does not.

    Of a list or a map (`kind`), `line` is the expression that leads to it, and `advice` says what would store it; of
    the rest of a list, which has a mapping for its other elements, it is an expression that returns them.
    """

    key: str
    line: Mapping[str, JSON] | str
    reason: str
    kind: Literal["value", "list", "map", "rest"] = "value"
    advice: str = ""
    is_measured: bool = False
    """Whether a list or map holds numbers or flags."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample with the lines that it renders.

    `message` is the value of the key `form`; `payload` is the same as bytes, `is_json` says that they are JSON.
    """

    name: str
    form: Literal["message", "message_json", "payload_base64"]
    message: JSON
    payload: bytes
    is_json: bool
    points: tuple[str, ...]
    skipped: bool = False
    meta: Mapping[str, JSON] = field(default_factory=dict)
    headers: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A writer mapping, inferred from samples.

    `notes` are for the top of the document, `warnings` for the person who asked.
    """

    source: Input
    measurement: Measurement
    tags: tuple[Tag, ...]
    fields: tuple[Field, ...]
    time: Time
    for_each: tuple[str, ...] = ()
    each_reason: str = ""
    where_reason: str = ""
    """Why elements without any field are skipped; empty if they are not."""
    may_lack_fields: str | None = None
    """A member that tells types of messages apart, of which the samples have one: others may lack all fields."""
    unused: tuple[Unused, ...] = ()
    replaces_names: bool = False
    keeps_last: bool = False
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> list[str]:
        """The notes that the person who asked must see: what was read, and what to check."""
        return [line for number, line in enumerate(self.notes) if number < 2 or line.startswith("CHECK")]

    @property
    def where(self) -> str | None:
        """The condition that an element has a field."""
        sources = ", ".join(dict.fromkeys(field.presence for field in self.fields))
        return f"not_null({sources}) != `null`" if self.where_reason else None

    def text(self, form: Literal["yaml", "toml"] = "yaml") -> str:
        """Return the commented document."""
        return document_text(self, form)
