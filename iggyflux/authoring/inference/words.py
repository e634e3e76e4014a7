"""What names of members suggest.  A name decides only where the values leave a choice, as few samples do.

The words are English, since that is what most payloads are written in; with other names the values decide alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+")


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: `deviceId`, `device_id` and `device-id` have the same ones."""
    return tuple(word.lower() for word in _WORD.findall(name))


def has_word(name: str, words: frozenset[str]) -> bool:
    """Return whether one of the words of `name` is in `words`."""
    return not words.isdisjoint(words_of(name))


def ends_with_word(name: str, words: frozenset[str]) -> bool:
    """Return whether the last word of `name` is in `words`; digits after it do not count."""
    found = [word for word in words_of(name) if not word.isdigit()]
    return bool(found) and found[-1] in words


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NAMES_OF_TYPES: Final = (
    *("measurement", "measurement name", "metric", "metric name", "event type", "event name", "event"),
    *("message type", "msg type", "record type", "type", "kind"),
)
"""The names of members that say what a message is, the best first."""
SURE_NAMES_OF_TYPES: Final = frozenset(NAMES_OF_TYPES[:4])
"""Those that need no second value to be believed."""

TIMES: Final = _set("time timestamp ts tst datetime date dt epoch when at utc unixtime clock t")
"""Words of a time."""

OTHER_TIMES: Final = _set(
    "start started begin begun end ended stop until created create birth boot booted expires expiry expire first next"
    " sunrise sunset due deadline install installed modified since valid timezone zone uptime elapsed duration runtime"
    " local server received receive arrival ingested ingestion processed published recorded"
)
"""Words of times that are not when a value was measured, or of spans of time."""

SPANS: Final = _set("uptime downtime airtime elapsed duration runtime timezone zone offset interval timeout latency")
"""Words of spans of time."""

IDENTITIES: Final = _set(
    "id ids uid device sensor host hostname node station site room name serial sn mac imei eui addr address gateway gw"
    " machine line plant unit channel ch port topic zone region city country vehicle asset meter entity key instance"
    " location area user tenant building floor rack slot vessel mmsi symbol pair currency circuit phase pod container"
    " namespace cluster service app src source nodeid client"
)
"""Words of what tells one source of values from another."""

ONE_EACH: Final = _set(
    "uuid guid request req trace span message msg event transaction tx trade order correlation session sequence seq"
    " nonce packet frame dedup deduplication"
)
"""Words of ids that each message has anew."""

TRANSIENT: Final = _set("trip stop ride job batch lot ticket entry")
"""Words of what comes and goes: its ids are few in a few samples, and many in time."""

DIMENSIONS: Final = _set(
    "side direction method level type kind category class protocol result reason operation mode brand model"
)
"""Words of what tells events of one source apart: such a text changes from event to event, and is a tag."""

STATES: Final = _set(
    "state status mode message msg text description desc reason error result comment note version firmware fw sw title"
    " url uri link href condition summary body content phrase icon event action quality"
)
"""Words of texts that change with time, or that explain: fields, not tags."""

NUMBERED: Final = _set("number no nr num")
"""Words after the name of a source that say that it is numbered: `serialNumber`."""

WORDS_OF_IDS: Final = _set("id ids uid name key serial")
"""Words that say that something is named, and not what."""

CODES: Final = _set("status code")
"""Words of status codes."""

UNITS: Final = _set("unit units uom")
"""Words of units, which say nothing of a source."""

SWITCHES: Final = _set(
    "on off open opened closed close true false yes no up down stop stopped start started run running idle active"
    " inactive enabled disabled ok ko warn warning alarm error auto manual online offline good bad uncertain"
)
"""Texts that are states, whatever the member is called: such a text changes with time."""

LABELS: Final = _set("tags labels dimensions metric label tag")
"""Names of objects whose texts are all tags: the sender says so."""

STRANGERS: Final = _set("remote referer referrer agent visitor session cookie ip")
"""Words of who or what came by: there is no end of them."""

PLACES: Final = _set("latitude lat longitude lon lng altitude elevation")
"""Words of where a source is: numbers, but not what it measures."""

INTEGERS: Final = _set("integer int long bigint uint")
"""Words that name the type itself."""

COUNTS: Final = _set(
    "count counter counts cnt total num number uptime bytes packets errors retries requests messages octets drops"
    " seq sequence size length pid rssi linkquality lqi fcnt sats satellites code attempts attempt samples users visits"
    " clicks views items qty people occupants pulses steps connections restarts len"
)
"""Words of what is counted: it never has a fraction."""

QUANTITIES: Final = _set(
    "temperature temp humidity hum pressure voltage volt volts current ampere amps power watts energy kwh wh frequency"
    " level percent percentage pct ratio rate speed velocity distance height altitude alt elevation latitude lat lon"
    " lng longitude heading course angle direction lux light illuminance luminance co co2 tvoc pm voc aqi ph flow"
    " volume weight mass price cost value val reading battery bat soc load usage score average avg mean min max"
    " sum median celsius fahrenheit kelvin degrees deg degc hpa kpa bar mm cm km ms us sec seconds mv kw va var"
    " kg torque rpm wind gust rain snow uv dew brightness dim noise db dbm gain"
)
"""Words of what is measured: it may have a fraction, even where no sample has one."""
