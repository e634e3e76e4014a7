"""Copies of samples as examples: short, and without secrets where the mapping does not read them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Final, Literal

from iggyflux.authoring.examples import example_message
from iggyflux.authoring.inference.logfmt import written_pairs
from iggyflux.authoring.inference.proposal import Example
from iggyflux.authoring.inference.roles import looks_secret, names_secret
from iggyflux.authoring.inference.shape import MOST_POSITIONS
from iggyflux.errors import DecodeError, RecordError
from iggyflux.mapping import WriterMapping
from iggyflux.payloads import FORMATS, Options, expand, text_encoding
from iggyflux.records import JSON, Message
from iggyflux.secrets import HIDDEN, is_name_of_secret, suspected_secrets

SHOWN_ELEMENTS: Final = 3
"""A copy has so many elements of each list: they show what comes of the others."""
MOST_CHARACTERS: Final = 20_000
"""A longer copy is not readable as an example."""
MOST_LINES: Final = 50


def example_of(mapping: WriterMapping, message: Message, number: int, read: Collection[str] = ()) -> Example | None:
    """Return a sample as an example, with the lines that come of it; None if it cannot be one.

    `read` are the names of the headers that the mapping reads.
    """
    headers = {name: value for name, value in message.headers.items() if name in read and not isinstance(value, bytes)}
    source = mapping.writer.source.payload
    form = FORMATS[source.format]
    content = expand(message.payload, source.compression)
    try:
        tree = form.decode(content, source.options, None, False)
    except DecodeError:  # NaN and infinities, which the mapping leaves out, and columns with one name
        payload = content
        if source.format == "csv":
            payload = b"".join(payload.splitlines(keepends=True)[: SHOWN_ELEMENTS + 1])
        text = payload.decode(text_encoding(source.options), "replace")
        if is_name_of_secret(text) or looks_secret(text):  # it is not known where its value ends
            return None
        return _made(mapping, payload, None, "message_json", number, headers)
    if source.format in ("text", "influx"):
        text = content.decode(text_encoding(source.options), "replace")
        shown = _masked_text(text) if source.format == "text" else _masked_lines(text, tree, source.options)
        return _made(
            mapping, shown.encode(text_encoding(source.options), "replace"), None, "message_json", number, headers
        )
    for copy in (masked(shortened(tree)), masked(tree)):
        try:
            payload = form.encode(copy, source.options)
        except RecordError:
            continue
        example = _made(mapping, payload, copy, "message", number, headers)
        if example is not None:
            return example
    if masked(tree) != tree:
        return None
    return _made(mapping, message.payload, None, "payload_base64", number, headers)


def _made(
    mapping: WriterMapping,
    payload: bytes,
    tree: JSON,
    form: Literal["message", "message_json", "payload_base64"],
    number: int,
    headers: Mapping[str, JSON],
) -> Example | None:
    """Return an example whose expectation is what the plan renders; None if it fails, or is too long."""
    if len(payload) > MOST_CHARACTERS:
        return None
    shown: JSON = tree
    if form == "message_json":
        shown = payload.decode(text_encoding(mapping.writer.source.payload.options), "replace")
    elif form == "payload_base64":
        shown = b64encode(payload).decode("ascii")
    try:
        message = example_message(mapping, {form: shown, "headers": headers}, number)
    except RecordError:
        return None
    rendered = mapping.plan().render([message])
    if rendered.failures or len(rendered.lines) > MOST_LINES or rendered.empty:
        return None
    name = f"sample {number + 1}" if rendered.lines else "a message that is skipped"
    is_json = mapping.writer.source.payload.format == "json"
    lines = tuple(rendered.lines)
    return Example(
        name, form, shown, payload, is_json, lines, skipped=bool(rendered.skipped) and not lines, headers=headers
    )


def _masked_text(text: str) -> str:
    """Return a text with `***` for what looks like a secret among its key=value pairs."""
    hidden = [value for name, value in written_pairs(text) if masked(value, name) != value]
    for value in filter(None, (*hidden, *suspected_secrets(text, names_secret))):
        text = text.replace(value, HIDDEN)
    return text


def _masked_lines(text: str, rows: JSON, options: Options) -> str:
    """Return lines of line protocol, of which `rows` are the points, with `***` for what looks like a secret."""
    hidden = _with_masked_texts(masked(rows))
    return text if hidden == rows else FORMATS["influx"].encode(hidden, options).decode()


def _with_masked_texts(tree: JSON) -> JSON:
    if isinstance(tree, dict):
        return {key: _with_masked_texts(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_masked_texts(item) for item in tree]
    return _masked_text(tree) if isinstance(tree, str) else tree


def shortened(tree: JSON) -> JSON:
    """Return a copy with the first elements of each list that is longer than a tuple."""
    if isinstance(tree, dict):
        return {key: shortened(value) for key, value in tree.items()}
    if isinstance(tree, list):
        kept = tree[:SHOWN_ELEMENTS] if len(tree) > MOST_POSITIONS else tree
        return [shortened(item) for item in kept]
    return tree


def masked(tree: JSON, name: str = "") -> JSON:
    """Return a copy with `***` for texts that look like secrets; those are not stored, so the points are the same."""
    if isinstance(tree, dict):
        return {key: masked(value, key) for key, value in tree.items()}
    if isinstance(tree, list):
        return [masked(item, name) for item in tree]
    if isinstance(tree, str) and tree and (names_secret(name) or looks_secret(tree)):
        return HIDDEN
    return tree
