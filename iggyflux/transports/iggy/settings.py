"""What an `iggy` section and a consumer ask for that Iggy, or its SDK, does not have.  Nothing here connects."""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.errors import Location, Problem
from iggyflux.pipeline import Consumer, IggySettings


def settings_problems(settings: IggySettings, consumer: Consumer | None = None) -> list[Problem]:
    """Everything that cannot work, known without a connection; the pointer of each names its key in the section."""
    return [
        Problem("IFX760", message, Location(pointer=f"/{key}"), hint=hint)
        for key, message, hint in _problems(settings, consumer)
    ]


def _problems(settings: IggySettings, consumer: Consumer | None) -> Iterator[tuple[str, str, str]]:
    http = settings.transport == "http"
    if settings.connection_string is None and settings.token is None and settings.username is None:
        yield (
            "username",
            "nothing says who logs in to Iggy",
            "add `username` and `password`, or `token`, to the `iggy` section",
        )
    elif settings.username is not None and settings.password is None:
        yield "username", "the `iggy` section has a `username` and no `password`", "add `password: ${IGGY_PASSWORD}`"
    if settings.client_cert is not None:
        yield "client_cert", "the Iggy SDK sends no client certificates", "remove `client_cert` and `client_key`"
    if http and settings.token is not None:
        yield (
            "token",
            "over http Iggy takes no personal access token",
            "take `username` and `password`, or `transport: tcp`",
        )
    if http and settings.ca_file is not None:
        yield (
            "ca_file",
            "over http the Iggy SDK trusts the system's certificates only",
            "remove `ca_file`, or `transport: tcp`",
        )
    if http and consumer is not None and consumer.kind == "group":
        yield (
            "transport",
            "over http Iggy has no consumer groups",
            "write `consumer: {single: NAME}`, or `transport: tcp`",
        )
    if settings.transport == "quic" and settings.ca_file is not None:
        yield "ca_file", "over quic the Iggy SDK takes no `ca_file`", "remove it, or `transport: tcp`"
    if consumer is not None and len((consumer.name or "").encode("utf-8")) > 255:
        yield "transport", "a consumer's name has at most 255 bytes", "choose a shorter one"
