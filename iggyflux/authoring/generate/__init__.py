"""Random messages that suit a mapping: seeded, realistic, and rendered without a failure.

Samples are the document's own examples; without examples, one is made from what the mapping reads (`synthetic`).  Each
sample is varied (`sample`): times advance, tags vary among few values, numbers drift (`values`).  The same mapping,
seed and start give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from random import Random
from typing import Final

from iggyflux.authoring.examples import example_message
from iggyflux.authoring.generate.sample import VaryingSample, share_values
from iggyflux.authoring.generate.synthetic import GenerateError, synthetic_base
from iggyflux.authoring.generate.trial import Base, PlanTrial, replace_payload
from iggyflux.errors import RecordError
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.records import JSON, Message

__all__ = ["GenerateError", "generate_messages"]

_BATCH: Final = 500


def generate_messages(
    mapping: WriterMapping | ReaderMapping,
    *,
    seed: int = 0,
    start_ns: int,
    interval_ns: int,
    overlap: bool = False,
) -> Iterator[Message]:
    """Yield endless messages: the first at `start_ns`, each `interval_ns` after the last time in the one before, so
    that they do not overwrite each other; with `overlap` after the first time in it.

    Each makes at least one point and no failure; offsets count from 0, in partition 0.  A tag has few values.
    Raise GenerateError before the first message.
    """
    if mapping.kind == "reader":
        raise GenerateError(f"{mapping.name} is a reader, which does not read messages", "name a writer mapping")
    random = Random(seed)  # noqa: S311  (nothing here is a secret)
    trial = PlanTrial(mapping)
    samples = [VaryingSample(trial, *base) for base in _find_bases(trial, random)]
    share_values(samples)
    if not overlap:
        interval_ns += max(sample.span_ns for sample in samples)
    numbers = count()
    while True:
        made: list[tuple[VaryingSample, int, int, Message]] = []
        for number in islice(numbers, _BATCH):
            sample = random.choice(samples)
            time_ns = start_ns + number * interval_ns
            try:
                message = sample.vary(random, number, time_ns)
            except RecordError:  # a schema of payloads has no room for the value
                message = sample.plain(number, time_ns)
            made.append((sample, number, time_ns, message))
        rendered = trial.render([message for *_, message in made])
        bad = {failure.index for failure in rendered.failures} | (set(range(len(made))) - set(rendered.origins))
        for index, (sample, number, time_ns, message) in enumerate(made):
            yield sample.plain(number, time_ns) if index in bad else message


def _find_bases(trial: PlanTrial, random: Random) -> list[Base]:
    """Return messages that render well: those of the document's examples, else a synthetic one."""
    found: list[Base] = []
    for number, example in enumerate(trial.mapping.examples):
        if not example.get("points"):
            continue
        try:
            message = example_message(trial.mapping, example, number)
        except RecordError:
            continue
        if trial.points([message])[0] is not None:
            found.append((message, _tree(trial, message)))
    return found or [synthetic_base(trial, random)]


def _tree(trial: PlanTrial, message: Message) -> JSON:
    try:
        tree = trial.decode(message.payload)
        same = trial.points([replace_payload(message, trial.encode(tree)), message])
    except RecordError:
        return None
    return tree if same[0] == same[1] else None
