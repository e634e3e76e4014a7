"""The meaning of Iggy's error texts.

The SDK raises bare `RuntimeError`s with a text and no code; only this file reads them.  An unknown text counts as a
transient fault: the call is retried, and the text is shown whole.
"""

from __future__ import annotations

from enum import Enum

from iggyflux.errors import IggyfluxError, NotConnected, Stopped


class Meaning(Enum):
    """What a caller can do about an error."""

    AWAY = "connect again"
    NO_SESSION = "connect again; while logging in: not let in"
    NOT_LET_IN = "wrong name, password or token"
    NOT_ALLOWED = "the user lacks a permission"
    OTHER_VERSION = "client and server do not understand each other"
    TLS = "certificates"
    MISSING = "no such stream, topic, partition or group"
    NO_MEMBER = "the group does not know us: join again"
    NOT_OWNER = "the partition is another member's"
    BAD_OFFSET = "an offset beyond the end"
    EXISTS = "already there"
    NO_SUCH_OPTION = "the server knows no such option"
    BAD_NAME = "a name that nothing in Iggy can have"
    BAD_MESSAGE = "a message that Iggy does not take"


# Searched in this order, in lower case; the first match decides.
TEXTS: tuple[tuple[str, Meaning], ...] = (
    ("consumer group member", Meaning.NO_MEMBER),
    ("does not own partition", Meaning.NOT_OWNER),
    ("resource with key: {", Meaning.MISSING),  # over http, followed by the body of the response
    ("resource with key", Meaning.NOT_OWNER),
    ("invalid offset", Meaning.BAD_OFFSET),
    ("already exists", Meaning.EXISTS),
    ("unsupported option key", Meaning.NO_SUCH_OPTION),
    ("invalid option value", Meaning.NO_SUCH_OPTION),
    ("invalid credentials", Meaning.NOT_LET_IN),
    ("invalid username", Meaning.NOT_LET_IN),
    ("invalid password", Meaning.NOT_LET_IN),
    ("user inactive", Meaning.NOT_LET_IN),
    ("personal access token", Meaning.NOT_LET_IN),
    ("unauthenticated", Meaning.NO_SESSION),
    ("access token", Meaning.NO_SESSION),
    ("jwt", Meaning.NO_SESSION),
    ("stale client", Meaning.NO_SESSION),
    ("unauthorized", Meaning.NOT_ALLOWED),
    ("invalid version", Meaning.OTHER_VERSION),
    ("feature is unavailable", Meaning.OTHER_VERSION),
    ("invalid command", Meaning.OTHER_VERSION),
    ("tls", Meaning.TLS),
    ("certificate", Meaning.TLS),
    ("invalid identifier", Meaning.BAD_NAME),
    ("invalid stream name", Meaning.BAD_NAME),
    ("invalid topic name", Meaning.BAD_NAME),
    ("invalid consumer group name", Meaning.BAD_NAME),
    ("too big", Meaning.BAD_MESSAGE),
    ("empty message payload", Meaning.BAD_MESSAGE),
    ("invalid message payload", Meaning.BAD_MESSAGE),
    ("invalid header", Meaning.BAD_MESSAGE),
    ("invalid key value length", Meaning.BAD_MESSAGE),
    ("was not found", Meaning.MISSING),
    ("not found", Meaning.MISSING),
)

_STOPS: dict[Meaning, tuple[str, str]] = {
    Meaning.NOT_LET_IN: ("IFX763", "check `username` and `password`, or `token`, of the `iggy` section"),
    Meaning.NOT_ALLOWED: ("IFX763", "grant the user permission to read, poll and send on this stream and topic"),
    Meaning.OTHER_VERSION: ("IFX764", "use an Iggy server 0.9.x: this client supports no other version"),
    Meaning.TLS: ("IFX761", "check `tls`, `ca_file` and `domain` of the `iggy` section"),
    Meaning.BAD_NAME: ("IFX766", "use 1 to 255 bytes for names of streams, topics and consumers"),
    Meaning.BAD_MESSAGE: ("IFX775", "send payloads of 1 byte to 64 MB, and header keys and values of 1 to 255 bytes"),
}


def meaning_of(text: str) -> Meaning:
    """Return the meaning of an error's text; `AWAY` if it is unknown."""
    folded = text.lower()
    return next((meaning for part, meaning in TEXTS if part in folded), Meaning.AWAY)


class CallFailed(NotConnected):
    """A rejection by the server.  A caller that does not handle its `meaning` connects again."""

    def __init__(self, text: str, meaning: Meaning) -> None:
        self.meaning = meaning
        super().__init__(text)


def translated(text: str, doing: str, *, logging_in: bool = False) -> IggyfluxError:
    """Return our exception for an error that occurred while `doing` something."""
    meaning = meaning_of(text)
    if meaning is Meaning.NO_SESSION and logging_in:
        meaning = Meaning.NOT_LET_IN
    description = f"{doing}: {text or 'no reason given'}"
    if meaning in _STOPS:
        code, hint = _STOPS[meaning]
        return Stopped(f"Iggy: {description}", hint, code)
    return CallFailed(description, meaning)
