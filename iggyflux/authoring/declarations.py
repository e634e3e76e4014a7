"""A payload that an option declares, as `from.payload` of a mapping does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from iggyflux.errors import DocumentError, Location, MappingError
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import JSON
from iggyflux.spec import Payload

_REST: Final = {
    "points": {"measurement": {"const": "m"}, "fields": {"x": {"const": 1}}, "timestamp": {"spread": "offset"}}
}


def declared_payload(written: JSON, file: str) -> Payload:
    """Return the payload that `written` declares; files of schemas are beside `file`.

    Raise DocumentError, with `--payload` as the place.
    """
    source = {"stream": "s", "topic": "t", "payload": written}
    document = {"iggyflux": 1, "kind": "writer", "name": "declared", "from": source, **_REST}
    try:
        mapping = parse_mapping(json.dumps(document), format="yaml", file=file)
    except MappingError as error:
        place = Location("--payload")
        wrong = [each for each in error.problems if each.severity == "error"]
        raise DocumentError([replace(each, location=place) for each in wrong]) from None
    assert isinstance(mapping, WriterMapping)  # noqa: S101  (its kind is written)
    return mapping.writer.source.payload
