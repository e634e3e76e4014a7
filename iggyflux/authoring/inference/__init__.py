"""A mapping from samples, in steps that each can be read alone.

`recognition` says which format samples are in, `shape` what is at each place in them, `elements` which list or map is
walked, `roles` what a place becomes, `decide` puts these together as a `Proposal`, `write` writes that as a commented
document, and `prove` compiles the document, renders every sample, and weakens what fails.  No file is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from iggyflux.authoring.inference.decide import decide
from iggyflux.authoring.inference.declared import Declared
from iggyflux.authoring.inference.elements import MOST_HOPS
from iggyflux.authoring.inference.proposal import Input, Proposal
from iggyflux.authoring.inference.prove import CANNOT_PROVE, prove
from iggyflux.authoring.inference.recognition import Recognized, recognize_file, recognize_payloads
from iggyflux.authoring.inference.roles import SUSPECTED
from iggyflux.authoring.inference.shape import Shape, observe
from iggyflux.authoring.inference.wishes import Wishes
from iggyflux.authoring.samples import SampleError
from iggyflux.records import JSON, Message
from iggyflux.transports.local.envelopes import bare_message

__all__ = ["Declared", "Proposal", "Recognized", "Wishes", "infer", "recognize_file", "recognize_payloads"]


def infer(
    samples: Recognized,
    wishes: Wishes | None = None,
    *,
    messages: Sequence[Message] = (),
    form: Literal["yaml", "toml"] = "yaml",
) -> Proposal:
    """Return a writer mapping that renders all samples; `form` is the form in which it is proved.

    `messages` are the samples with their coordinates, where they have any.  Raise SampleError with what is missing.
    """
    wishes = wishes or Wishes()
    source = Input(
        stream=wishes.stream,
        topic=wishes.topic,
        format=samples.format,
        options=samples.options,
        how=samples.how,
        captures=samples.captures,
        has_non_finite=samples.has_non_finite,
        file=samples.file,
        compression=samples.compression,
    )
    shape = observe(samples.trees)
    numbered = messages or [
        bare_message(payload, number, stream=wishes.stream, topic=wishes.topic)
        for number, payload in enumerate(samples.payloads)
    ]
    proposal = _proved(shape, source, wishes, numbered, form)
    hidden = [each.key for each in proposal.unused if each.reason == SUSPECTED]
    if hidden:
        warning = f"{', '.join(hidden)}: this looks like a secret; it is not stored, and is masked in the examples"
        proposal = replace(proposal, warnings=(warning,))
    return proposal


def _proved(
    shape: Shape, source: Input, wishes: Wishes, messages: Sequence[Message], form: Literal["yaml", "toml"]
) -> Proposal:
    """Return the proposal that enters lists and maps as deeply as the samples allow."""
    headers = [_plain_headers(message) for message in messages] if any(each.headers for each in messages) else []
    deepest: SampleError | None = None
    for most_hops in range(MOST_HOPS, -1, -1):
        try:
            return prove(decide(shape, source, wishes, headers, most_hops), messages, form)
        except SampleError as error:
            deepest = deepest or error  # a walk that stops earlier fails for other reasons
            if error.code != CANNOT_PROVE or not most_hops:
                raise deepest from None
    raise AssertionError


def _plain_headers(message: Message) -> dict[str, JSON]:
    return {name: value for name, value in message.headers.items() if not isinstance(value, bytes)}
