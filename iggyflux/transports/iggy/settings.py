"""Settings of an `iggy` section and a consumer that Iggy or its SDK does not support.  Nothing here connects."""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.errors import Location, Problem
from iggyflux.pipeline import Consumer, IggySettings
from iggyflux.transports.certificates import Tls


def settings_problems(settings: IggySettings, consumer: Consumer | None = None) -> list[Problem]:
    """Return every unsupported setting; the pointer of each names its key in the section."""
    return [
        Problem("IFX760", message, Location(pointer=f"/{key}"), hint=hint)
        for key, message, hint in _problems(settings, consumer)
    ]


def certificate_problems(settings: IggySettings) -> list[Problem]:
    """Return the problem of `ca_file`; it can be specific to this machine."""
    return Tls(settings.ca_file if settings.tls else None).problems()


def _problems(settings: IggySettings, consumer: Consumer | None) -> Iterator[tuple[str, str, str]]:
    http = settings.transport == "http"
    if settings.connection_string is None and settings.token is None and settings.username is None:
        yield (
            "username",
            "missing credentials for Iggy",
            "add `username` and `password`, or `token`, to the `iggy` section",
        )
    elif settings.username is not None and settings.password is None:
        yield "username", "the `iggy` section has a `username` but no `password`", "add `password: ${IGGY_PASSWORD}`"
    if settings.client_cert is not None:
        yield (
            "client_cert",
            "the Iggy SDK does not support client certificates",
            "remove `client_cert` and `client_key`",
        )
    if http and settings.token is not None:
        yield (
            "token",
            "Iggy does not support personal access tokens over http",
            "use `username` and `password`, or `transport: tcp`",
        )
    if http and settings.ca_file is not None:
        yield (
            "ca_file",
            "over http the Iggy SDK supports only the system's certificates",
            "remove `ca_file`, or use `transport: tcp`",
        )
    if http and consumer is not None and consumer.kind == "group":
        yield (
            "transport",
            "Iggy does not support consumer groups over http",
            "use `consumer: {single: NAME}`, or `transport: tcp`",
        )
    if settings.transport == "quic" and settings.ca_file is not None:
        yield "ca_file", "the Iggy SDK does not support `ca_file` over quic", "remove it, or use `transport: tcp`"
    if consumer is not None and len((consumer.name or "").encode("utf-8")) > 255:
        yield "transport", "the name of the consumer has more than 255 bytes", "choose a shorter one"
