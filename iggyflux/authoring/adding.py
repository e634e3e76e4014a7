"""Adds a message to a document as an example, with what comes of it: a text edit, so all other text stays.

What looks like a secret in the message is masked, as in examples of `infer`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from iggyflux.authoring.examples import actual_result
from iggyflux.authoring.inference.copies import masked
from iggyflux.authoring.inference.write import toml_value, yaml_flow
from iggyflux.authoring.samples import Coordinates
from iggyflux.authoring.updating import end_of, line_end
from iggyflux.documents import Document, Format, read_document
from iggyflux.errors import DocumentError, RecordError
from iggyflux.mapping import WriterMapping, compile_document
from iggyflux.payloads import decode_payload, encode_payload, expand, text_encoding
from iggyflux.records import JSON, Message
from iggyflux.transports.local.envelopes import bare_message, plain_header


def add_example(
    text: str,
    message: Message,
    *,
    format: Format,  # noqa: A002
    has_coordinates: bool = False,
    name: str = "",
) -> str | None:
    """Return the document of a writer with `message` as its last example; None if no edit of its text does it.

    `name` is that of the example, by default its number.
    `has_coordinates`: stream, topic, offset and times of the message are its own, not those of a line of a file.  Raise
    MappingError if the document does not compile.
    """
    document = read_document(text, format=format)
    mapping = compile_document(document)
    if not isinstance(mapping, WriterMapping):
        return None
    number = len(mapping.examples)
    around = _around(mapping, message, number) if has_coordinates else {}
    for content in _contents(mapping, message):
        example = {"name": name or f"sample {number + 1}", **content, **around}
        draft = _with_example(document, {**example, "points": []}, number)
        result = None if draft is None else actual_result(draft, number)
        if result is not None and len(result.get("fails", ())) == 1:
            result = {**result, "fails": result["fails"][0]}
        final = None if result is None else _with_example(document, {**example, **result}, number)
        if final is not None:
            return final.document.text
    return None


def _contents(mapping: WriterMapping, message: Message) -> Iterator[dict[str, Any]]:
    """Yield the message as members of an example, the most readable first; each gives the same payload."""
    payload = mapping.writer.source.payload
    try:
        tree = decode_payload(message.payload, payload)
        copy = masked(tree)
        encoded = encode_payload(copy, payload)
        if decode_payload(encoded, payload) == copy:
            if payload.format != "text":
                yield {"message": copy}
            if copy != tree:
                message = msgspec.structs.replace(message, payload=encoded)
    except RecordError:
        pass  # a payload of another format is an example of a failure
    try:
        content, encoding = expand(message.payload, payload.compression), text_encoding(payload.options)
        text = content.decode(encoding)
        is_text = text.encode(encoding) == content  # UTF-16 of the other order of bytes is not
    except (UnicodeDecodeError, RecordError):
        is_text = False
    yield {"message_json": text} if is_text else {"payload_base64": b64encode(message.payload).decode("ascii")}


def _around(mapping: WriterMapping, message: Message, number: int) -> dict[str, Any]:
    """Return the coordinates that differ from those of an example without any, and the headers."""
    usual = Coordinates.of(mapping.writer.source)
    bare = bare_message(b"", message.offset, stream=usual.stream, topic=usual.topic)
    coordinates: tuple[tuple[str, JSON, JSON], ...] = (
        ("offset", message.offset, number),
        ("stream", message.stream, bare.stream),
        ("topic", message.topic, bare.topic),
        ("partition", message.partition, 0),
        ("timestamp", message.timestamp_us, bare.timestamp_us),
        ("origin_timestamp", message.origin_timestamp_us, message.timestamp_us),
        ("id", message.id, 0),
    )
    meta: dict[str, JSON] = {name: value for name, value, usual_one in coordinates if value != usual_one}
    headers = {name: plain_header(value) for name, value in message.headers.items()}
    return {**({"meta": meta} if meta else {}), **({"headers": masked(headers)} if headers else {})}


def _inserted(document: Document, example: dict[str, Any], number: int) -> str | None:
    """Return the text with an example at the end of `examples`, in the style of those that are there."""
    text, node = document.text, document.node("/examples")
    is_yaml = document.format == "yaml"
    flow = yaml_flow(example) if is_yaml else toml_value(example)
    if node is not None and node.in_flow:
        if number:
            at = end_of(document, list(node.children.values())[-1])
            return f"{text[:at]}, {flow}{text[at:]}"
        return f"{text[: node.start]}[{flow}]{text[node.end :]}"
    if not is_yaml:
        lines = (f"{key} = {toml_value(value)}\n" for key, value in example.items())
        return f"{text.rstrip()}\n\n[[examples]]\n{''.join(lines)}"
    if node is None:
        return None if document.root.in_flow else f"{text.rstrip()}\n\nexamples:\n  - {_block(example, '    ')}\n"
    if not number:
        return None
    first, last = next(iter(node.children.values())), list(node.children.values())[-1]
    at, begin = line_end(text, end_of(document, last)), text.rfind("\n", 0, first.start) + 1
    indent = " " * text[begin : first.start].rfind("-")
    return f"{text[:at]}\n{indent}- {_block(example, indent + '  ')}{text[at:]}"


def _block(example: dict[str, Any], indent: str) -> str:
    lines: list[str] = []
    for key, value in example.items():
        if key == "points" and value:
            lines += [f"{key}:", *(f"  - {yaml_flow(each)}" for each in value)]
        else:
            lines.append(f"{key}: {yaml_flow(value)}")
    return f"\n{indent}".join(lines)


def _with_example(before: Document, example: dict[str, Any], number: int) -> WriterMapping | None:
    """Return the mapping with one example more; None if its text cannot be edited so."""
    text = _inserted(before, example, number)
    if text is None:
        return None
    try:
        document = read_document(text, format=before.format)
        mapping = compile_document(document)
    except DocumentError:
        return None
    tree: Any = before.tree
    if document.tree != {**tree, "examples": [*tree.get("examples", []), example]}:
        return None
    return mapping if isinstance(mapping, WriterMapping) else None
