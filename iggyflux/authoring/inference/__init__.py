"""A mapping from samples, in steps that each can be read alone.

`recognition` says which format samples are in, `shape` what is at each place in them, `elements` which list or map is
walked, `roles` what a place becomes, `decide` puts these together as a `Proposal`, `write` writes that as a commented
document, and `prove` compiles the document, renders every sample, and weakens what fails.  No file is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from iggyflux.authoring.inference.copies import has_secret
from iggyflux.authoring.inference.decide import Wishes, decide
from iggyflux.authoring.inference.elements import MOST_HOPS
from iggyflux.authoring.inference.proposal import Input, Proposal
from iggyflux.authoring.inference.prove import CANNOT_PROVE, prove
from iggyflux.authoring.inference.recognition import Recognized, recognize_file, recognize_payloads
from iggyflux.authoring.inference.shape import Shape, observe
from iggyflux.authoring.samples import SampleError
from iggyflux.records import Message
from iggyflux.transports.local.envelopes import bare_message

__all__ = ["Proposal", "Recognized", "Wishes", "infer", "recognize_file", "recognize_payloads"]


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
    source = Input(wishes.stream, wishes.topic, samples.format, samples.options, samples.how, samples.has_non_finite)
    shape = observe(samples.trees)
    numbered = messages or [
        bare_message(payload, number, stream=wishes.stream, topic=wishes.topic)
        for number, payload in enumerate(samples.payloads)
    ]
    proposal = _proved(shape, source, wishes, numbered, form)
    if any(map(has_secret, samples.trees)):
        warning = "some samples hold what looks like secrets: they are not stored, and masked in examples"
        proposal = replace(proposal, warnings=(*proposal.warnings, warning))
    return proposal


def _proved(
    shape: Shape, source: Input, wishes: Wishes, messages: Sequence[Message], form: Literal["yaml", "toml"]
) -> Proposal:
    """Return the proposal that enters lists and maps as deeply as the samples allow."""
    for most_hops in range(MOST_HOPS, -1, -1):
        try:
            return prove(decide(shape, source, wishes, most_hops), messages, form)
        except SampleError as error:
            if error.code != CANNOT_PROVE or not most_hops:
                raise
    raise AssertionError
