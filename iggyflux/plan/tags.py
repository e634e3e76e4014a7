"""The tags of a pipeline: each point gets those that it does not have.

A tag of the mapping is stronger, whatever it is made of; where it has no value, the point gets the pipeline's.  The
reference plan does just that; generated code writes them as constant text, or as the default of the mapping's tag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from iggyflux.errors import PointError
from iggyflux.lineprotocol import check_tag_key, check_tag_value
from iggyflux.spec import Const, Field, Tag, Writer

MAX_TAG_BYTES: Final = 2_000
"""The most bytes of all names and values together: each point has them."""
_LONGEST_NAME: Final = 255


def check_tag(key: str, text: str) -> None:
    """Raise PointError for a tag that some server loses or changes."""
    check_tag_key(key)
    check_tag_value(text)
    if len(key) > _LONGEST_NAME:
        raise PointError("IFX316", f"the tag key has {len(key)} characters, more than {_LONGEST_NAME}")


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return `tags` in the order of their names.  Raise PointError for a tag that no plan may add."""
    for key, text in tags.items():
        check_tag(key, text)
    size = sum(len(text.encode()) for pair in tags.items() for text in pair)
    if size > MAX_TAG_BYTES:
        raise PointError("IFX316", f"the tags have {size} bytes together, more than {MAX_TAG_BYTES}")
    return dict(sorted(tags.items()))


def with_added(tags: Sequence[Tag], added: Mapping[str, str]) -> tuple[Tag, ...]:
    """Return the tags of a point without `"*"` among them, together with `added`, in the order of their names."""
    named = {tag.key for tag in tags}
    more = [Tag(key, Const(text), None, False, "") for key, text in added.items() if key not in named]
    return tuple(sorted([*with_defaults(tags, added), *more], key=lambda tag: tag.key))


def with_defaults(tags: Sequence[Tag], added: Mapping[str, str]) -> list[Tag]:
    """Return `tags`, where those that may have no value have the one in `added`."""
    return [
        replace(tag, default=added[tag.key])
        if tag.key in added and tag.default is None and not tag.required and not isinstance(tag.source, Const)
        else tag
        for tag in tags
    ]


def fields_of_that_name(writer: Writer, tags: Mapping[str, str]) -> Iterator[Field]:
    """Yield the fields that have the name of one of `tags`: no point may have both."""
    return (field for point in writer.points for field in point.fields if field.key in tags)
