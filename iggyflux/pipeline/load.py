"""Reads a pipeline file into its types, and reports every problem of the file at once, at its place."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from iggyflux.documents import Document, check_schema, read_document, read_source, split_pointer
from iggyflux.errors import DocumentError, Location, PipelineError, PointError, Problem, closest
from iggyflux.lineprotocol.checks import shorten
from iggyflux.pipeline.addresses import (
    AddressFault,
    is_loopback,
    parse_connection_string,
    parse_iggy_address,
    parse_listen,
)
from iggyflux.pipeline.types import (
    Consumer,
    Endpoint,
    EndpointKind,
    IggySettings,
    InfluxSettings,
    Pipeline,
    RegistrySettings,
    Retention,
    RouteSettings,
    Start,
    TelemetrySettings,
    TopicAddress,
)
from iggyflux.pipeline.variables import Variables, escape_key
from iggyflux.plan.tags import check_tag, checked_tags
from iggyflux.records import JSON
from iggyflux.secrets import SECRET_KEYS, Secret, is_name_of_secret
from iggyflux.timestamps import TimestampError, parse_rfc3339

_LONGEST_SECRET = 1 << 16
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|kB|KB|KiB|MB|MiB|GB|GiB)")
_SIZE_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
SOURCE_KINDS = ("iggy", "log:DIR", "file:PATH", "stdin", "influxdb")
SINK_KINDS = ("influxdb", "file:PATH", "stdout", "iggy", "log:DIR")

Tree: TypeAlias = dict[str, JSON]
Convert: TypeAlias = "Callable[[_Reading, JSON, str], object]"


def load_pipeline(
    path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None, connects: bool = True
) -> Pipeline:
    """Return the pipeline in the file at `path`; connect to nothing.

    If nothing `connects` with it, settings of connections are left out whose variables are not set, and no file of a
    secret is read.  Raise `PipelineError` with all its problems.
    """
    file = Path(path)
    try:
        data = read_source(file)
    except OSError as error:
        problem = Problem("IFX801", f"cannot read the pipeline file: {error.strerror}", Location(file=str(file)))
        raise PipelineError([problem]) from error
    except DocumentError as error:
        raise PipelineError(error.problems) from error
    return parse_pipeline(data, file=file, environ=environ, connects=connects)


def parse_pipeline(
    text: str | bytes,
    *,
    file: Path | None = None,
    format: str | None = None,  # noqa: A002  # the word of LANGUAGE 33
    environ: Mapping[str, str] | None = None,
    connects: bool = True,
) -> Pipeline:
    """Return the pipeline in `text`.

    `file` is the file name in problems, and relative paths start in its folder.  `connects` is as in `load_pipeline`.
    """
    try:
        raw = read_document(text, file=str(file) if file else None, format=format)
    except DocumentError as error:
        raise PipelineError(error.problems) from error
    folder = file.parent if file else Path()
    reading = _Reading(raw, folder, os.environ if environ is None else environ, connects=connects)
    pipeline = reading.pipeline()
    if pipeline is None:
        raise PipelineError(reading.variables.masked(reading.problems))
    warnings = tuple(reading.variables.masked(reading.warnings))
    return dataclasses.replace(pipeline, path=file, warnings=warnings, mask=reading.variables.masked)


_OF_A_CONNECTION = re.compile(r"(?:/run/[0-9]+)?/(?:iggy|influxdb|schema_registry|telemetry)/(?!precision\Z)")
"""Pointers to settings that matter only where something connects; the precision is one of the lines."""
_REGISTRY_SECTION = re.compile(r"\A(/schema_registry)/.*", re.DOTALL)
"""Without its address, there is no such section."""


class _Reading:
    """A file that is being read: its tree with variables replaced, and the problems found so far."""

    def __init__(self, raw: Document, folder: Path, environ: Mapping[str, str], *, connects: bool) -> None:
        self.folder = folder
        self.raw = raw
        self.connects = connects
        self.variables = Variables(raw, environ)
        unset = frozenset() if connects else frozenset(filter(_OF_A_CONNECTION.match, self.variables.unset))
        found = [each for each in self.variables.problems if each.location.pointer not in unset]
        self.problems: list[Problem] = [*raw.faults, *found]
        self.warnings: list[Problem] = []
        self.document = dataclasses.replace(raw, tree=self.variables.tree, mask=self.variables.mask)
        self.document = _pruned(self.document, {_REGISTRY_SECTION.sub(r"\1", pointer) for pointer in unset})
        self.misshapen: set[str] = set()
        misshapen = check_schema(self.document, "pipeline")
        if misshapen or raw.broken:
            self.problems += misshapen
            reported = {problem.location.pointer for problem in misshapen if problem.code != "IFX111"}
            self.document = _pruned(self.document, reported | raw.broken)
            self.misshapen = {problem.location.pointer for problem in check_schema(self.document, "pipeline")}

    def report(self, code: str, pointer: str, message: str, *, key: bool = False, **more: Any) -> None:
        if pointer in self.raw.broken:  # reported already; the value is a substitute
            return
        self.problems.append(self.document.problem(code, pointer, message, key=key, **more))

    def is_sound(self, pointer: str) -> bool:
        """Return whether the schema accepts the part of the tree at `pointer`, so that it can be read."""
        return not any(place == pointer or place.startswith(f"{pointer}/") for place in self.misshapen)

    def pipeline(self) -> Pipeline | None:
        """Return the pipeline; None if there are problems.

        Every part that the schema accepts is read in any case.
        """
        if self.misshapen & {"", "/run"}:
            return None
        tree = cast(Tree, self.document.tree)
        iggy = influxdb = None
        if "iggy" in tree and self.is_sound("/iggy"):
            iggy = self.iggy(tree["iggy"])
        if "influxdb" in tree and self.is_sound("/influxdb"):
            influxdb = self.influxdb([(tree["influxdb"], "/influxdb")])
        registry = None
        if "schema_registry" in tree and self.is_sound("/schema_registry"):
            registry = self.registry(tree["schema_registry"])
        routes = [
            self.route(cast(Tree, item), f"/run/{index}", tree)
            for index, item in enumerate(cast("list[JSON]", tree.get("run", [])))
            if self.is_sound(f"/run/{index}") and not self.misshapen & {f"/{key}" for key in tree}
        ]
        state = self.state(tree.get("state", ".iggyflux"), tree)
        telemetry = TelemetrySettings()
        if "telemetry" in tree and self.is_sound("/telemetry"):
            telemetry = self.telemetry(tree["telemetry"])
        timeout = _seconds(self, tree.get("shutdown_timeout", "30s"), "/shutdown_timeout")
        if self.problems:
            return None
        return Pipeline(
            routes=tuple(routes),
            iggy=iggy,
            influxdb=influxdb,
            schema_registry=registry,
            state=state,
            names_state="state" in tree,
            telemetry=telemetry,
            shutdown_timeout_seconds=timeout,
            document=self.document,
        )

    def settings(
        self, kind: type[Any], table: Mapping[str, tuple[str, Convert]], layers: list[tuple[JSON, str]]
    ) -> Any:
        """Return a settings object from layers of one section; later ones override earlier ones."""
        given: dict[str, object] = {}
        for layer, pointer in layers:
            for key, value in cast(Tree, layer).items():
                attribute, convert = table.get(key, (key, _plain))
                given[attribute] = convert(self, value, f"{pointer}/{escape_key(key)}")
        if self.connects:  # else the other one of a pair may be left out
            self.check_pairs(given, layers[-1][1])
        return kind(**given)

    def iggy(self, section: JSON) -> IggySettings:
        settings = cast(IggySettings, self.settings(IggySettings, _IGGY, [(section, "/iggy")]))
        key = "address" if settings.connection_string is None else "connection_string"
        place = f"/iggy/{key}"
        try:
            if settings.connection_string is not None:
                parsed = parse_connection_string(settings.connection_string.reveal())
                host, is_encrypted = parsed.host, parsed.is_encrypted
                settings = dataclasses.replace(settings, connection_string=Secret(parsed.text))
            else:
                address = parse_iggy_address(settings.address, settings.transport, tls=settings.tls)
                host, is_encrypted = address.rpartition(":")[0], settings.tls or settings.transport == "quic"
                settings = dataclasses.replace(settings, address=address)
        except AddressFault as fault:
            self.report("IFX809", place, f"invalid address: {fault}", hint=fault.hint)
            return settings
        if not is_encrypted and not settings.allow_unencrypted:
            given = {"token": settings.token, "password": settings.password, "login": settings.connection_string}
            what = next((word for word, secret in given.items() if secret is not None), None)
            remedy = "set `tls: true`" if settings.connection_string is None else "add the option tls=true"
            self.warn_of_plain_text(what, host, place, "/iggy", remedy)
        return settings

    def influxdb(self, layers: list[tuple[JSON, str]]) -> InfluxSettings:
        settings = cast(InfluxSettings, self.settings(InfluxSettings, _INFLUX, layers))
        if settings.url.startswith("http:") and not settings.allow_unencrypted:
            header = next((f"header {name}" for name, _ in settings.headers if is_name_of_secret(name)), None)
            what = "token" if settings.token else "password" if settings.password else header
            section = next((pointer for layer, pointer in reversed(layers) if "url" in cast(Tree, layer)), "")
            with suppress(ValueError):  # an invalid address is reported
                host = urlsplit(settings.url).hostname or ""
                self.warn_of_plain_text(what, host, f"{section}/url", section, "use https://")
        return settings

    def registry(self, section: JSON) -> RegistrySettings:
        layers = [(section, "/schema_registry")]
        settings = cast(RegistrySettings, self.settings(RegistrySettings, _REGISTRY, layers))
        if settings.url.startswith("http:") and not settings.allow_unencrypted:
            what = "token" if settings.token else "password" if settings.password else None
            with suppress(ValueError):  # an invalid address is reported
                host = urlsplit(settings.url).hostname or ""
                self.warn_of_plain_text(what, host, "/schema_registry/url", "/schema_registry", "use https://")
        return settings

    def telemetry(self, section: JSON) -> TelemetrySettings:
        settings = cast(TelemetrySettings, self.settings(TelemetrySettings, _TELEMETRY, [(section, "/telemetry")]))
        if self.connects and settings.listen is not None and (fault := fault_of_listen(settings)) is not None:
            self.report(fault[0], "/telemetry/listen", fault[1], hint=fault[2])
        return settings

    def warn_of_plain_text(self, what: str | None, host: str, pointer: str, section: str, remedy: str) -> None:
        """Warn of credentials that anybody on the way to `host` can read."""
        if what is None or not host or is_loopback(host):
            return
        hint = f"{remedy}; or, if the network is trusted, set `allow_unencrypted: true`"
        place = pointer if self.document.node(pointer) else section
        problem = self.document.problem("IFX817", place, f"the {what} is sent without encryption", key=True, hint=hint)
        self.warnings.append(dataclasses.replace(problem, severity="warning"))

    def check_pairs(self, given: Mapping[str, object], pointer: str) -> None:
        for key, needs in (
            ("password", "username"),
            ("client_key", "client_cert"),
            ("client_key_passphrase", "client_cert"),
        ):
            if given.get(key) is not None and given.get(needs) is None:
                self.report("IFX810", pointer, f"`{key}` without `{needs}`", key=True, hint=f"add `{needs}`")
        if given.get("token") is not None and given.get("password") is not None:
            hint = (
                "keep one: a request has one `Authorization`; a proxy that needs another login takes it from `headers`"
            )
            self.report("IFX810", pointer, "both `token` and `password` are given", key=True, hint=hint)
        headers = cast("tuple[tuple[str, Secret], ...]", given.get("headers", ()))
        if "authorization" in (name.lower() for name, _ in headers):
            for key in ("token", "password"):
                if given.get(key) is not None:
                    hint = "keep one: a request has one `Authorization`"
                    self.report("IFX810", pointer, f"both `{key}` and a header Authorization", key=True, hint=hint)

    def route(self, item: Tree, pointer: str, tree: Tree) -> RouteSettings:
        mapping = self.path(item["mapping"], f"{pointer}/mapping")
        if mapping != self.folder and (fault := self.fault_of(mapping)):
            self.report("IFX808", f"{pointer}/mapping", fault, hint=self.near(mapping))
        ends = {}
        for key, kinds in (("from", SOURCE_KINDS), ("to", SINK_KINDS)):
            place = pointer if key in item else ""
            value = item.get(key, tree.get(key))
            ends[key] = None if value is None else self.endpoint(value, f"{place}/{key}", kinds)
        for end in ends.values():
            self.check_section(end, item, tree, pointer)
        letters, retention = self.dead_letters(
            item.get("dead_letters", tree.get("dead_letters")),
            f"{pointer if 'dead_letters' in item else ''}/dead_letters",
        )
        layers = [(tree["influxdb"], "/influxdb")] if "influxdb" in tree and self.is_sound("/influxdb") else []
        layers += [(item["influxdb"], f"{pointer}/influxdb")] if "influxdb" in item else []
        return RouteSettings(
            mapping=mapping,
            name=cast("str | None", item.get("name")),
            source=ends["from"],
            sink=ends["to"],
            influxdb=self.influxdb(layers) if layers else None,
            dead_letters=letters,
            retention=retention,
            consumer=self.consumer(
                cast(Tree, item.get("consumer", tree.get("consumer", {}))), pointer if "consumer" in item else ""
            ),
            start=self.start(item.get("start", tree.get("start", "first")), pointer if "start" in item else ""),
            tags=self.tags([(tree, ""), (item, pointer)]),
            pointer=pointer,
        )

    def endpoint(self, value: JSON, pointer: str, kinds: Sequence[str]) -> Endpoint | None:
        envelope, standard = False, "stdin" if "stdin" in kinds else "stdout"
        if isinstance(value, dict):
            envelope = bool(value.get("envelope", False))
            pointer = f"{pointer}/file"
            value = f"file:{value['file']}" if value.get("file") != "-" else standard
        kind, _, rest = str(value).partition(":")
        for known in kinds:
            name, _, argument = known.partition(":")
            if name == kind and bool(argument) == bool(rest):
                return Endpoint(cast(EndpointKind, kind), self.path(rest, pointer) if rest else None, envelope)
        near = standard if kind == "-" else closest(kind, [known.partition(":")[0] for known in kinds])
        hint = f"did you mean `{next(known for known in kinds if known.startswith(near))}`?" if near else None
        self.report("IFX806", pointer, f"unknown source or sink: {value!r}", expected=" | ".join(kinds), hint=hint)
        return None

    def check_section(self, end: Endpoint | None, item: Tree, tree: Tree, pointer: str) -> None:
        if end and end.kind in ("iggy", "influxdb") and end.kind not in tree and end.kind not in item:
            self.report("IFX807", pointer, f"missing section `{end.kind}`", hint=f"add `{end.kind}: {{…}}` to the file")

    def dead_letters(self, value: JSON, pointer: str) -> tuple[Path | TopicAddress | None, Retention | None]:
        """Return where letters are kept, and how long."""
        if not isinstance(value, dict):
            return None if value is None else self.path(value, pointer), None
        keep = _seconds(self, value["keep"], f"{pointer}/keep") if "keep" in value else None
        most = _bytes(self, value["max_bytes"], f"{pointer}/max_bytes") if "max_bytes" in value else None
        if keep is not None and keep <= 0 and _DURATION.fullmatch(str(value["keep"])):
            hint = "remove the key to keep letters without a limit of time"
            self.report("IFX804", f"{pointer}/keep", "letters cannot be kept for no time", hint=hint)
        if "stream" not in value and "topic" not in value:
            path = self.path(value["path"], f"{pointer}/path") if "path" in value else None
            return path, Retention(keep, most) if keep is not None or most is not None else None
        for key in ("path", "keep", "max_bytes"):
            if key in value:
                hint = "remove it: a topic has a retention of its own, the message expiry of Iggy"
                self.report("IFX810", f"{pointer}/{key}", f"`{key}` with a topic", key=True, hint=hint)
        return TopicAddress(str(value.get("stream", "")), str(value.get("topic", ""))), None

    def state(self, value: JSON, tree: Tree) -> Path | TopicAddress:
        if not isinstance(value, dict):
            if str(value).partition(":")[0] in ("iggy", "log"):
                hint = "write a directory, such as `state: .iggyflux`, or a topic: `state: {stream: S, topic: T}`"
                self.report("IFX806", "/state", f"invalid `state`: {value!r}", hint=hint)
            return self.path(value, "/state")
        if "stream" not in value or "topic" not in value:  # which is reported already
            return Path()
        if "iggy" not in tree:
            hint = "add `iggy: {…}` to the file, or name a directory"
            self.report("IFX807", "/state", "positions in a topic need an `iggy` section", hint=hint)
        return TopicAddress(str(value["stream"]), str(value["topic"]))

    def consumer(self, value: Tree, pointer: str) -> Consumer:
        kind: Literal["group", "single"] = "single" if "single" in value else "group"
        partitions = value.get("partitions", "all")
        chosen = None if partitions == "all" else tuple(cast(list[int], partitions))
        exclusive = bool(value.get("exclusive", False))
        if exclusive and kind == "single":
            hint = "remove it: a single consumer has no group to rebuild"
            self.report("IFX810", f"{pointer}/consumer/exclusive", "`exclusive` with `single`", key=True, hint=hint)
        return Consumer(kind, cast("str | None", value.get(kind)), chosen, exclusive)

    def start(self, value: JSON, pointer: str) -> Start:
        if not isinstance(value, dict):
            return Start(cast(Literal["first", "last"], value))
        if "offset" in value:
            return Start("offset", cast(int, value["offset"]))
        text = str(value["timestamp"])
        try:
            return Start("timestamp", parse_rfc3339(text) // 1000)
        except TimestampError as error:
            self.report("IFX812", f"{pointer}/start/timestamp", str(error))
            return Start()

    def tags(self, layers: Sequence[tuple[Tree, str]]) -> tuple[tuple[str, str], ...]:
        """Return the tags of a route from layers of `tags`; later ones override earlier ones, by name."""
        found: dict[str, str] = {}
        for layer, pointer in layers:
            for key, text in cast("dict[str, str]", layer.get("tags", {})).items():
                place = f"{pointer}/tags/{escape_key(key)}"
                try:
                    check_tag(key, text)
                except PointError as error:
                    if not any(each.location.pointer == place for each in self.problems):  # once for all routes
                        reason = error.reason.replace(shorten(text), "***")  # it may be a secret at a wrong place
                        self.report("IFX825", place, f"invalid tag: {reason}", key=True)
                found[key] = text
        if found and not self.problems:
            try:
                found = checked_tags(found)
            except PointError as error:
                place = next(pointer for layer, pointer in reversed(layers) if "tags" in layer)
                self.report("IFX825", f"{place}/tags", f"invalid tags: {error.reason}", key=True)
        return tuple(sorted(found.items()))

    def path(self, value: JSON, pointer: str) -> Path:
        text = str(value)
        try:
            if "\0" not in text:
                return self.folder / Path(text).expanduser()
            message, hint = "a path cannot contain U+0000", None
        except RuntimeError:  # no such user
            message = f"there is no home directory {Path(text).parts[0]}"
            hint = f"write ./{text} for a file of this name"
        self.report("IFX818", pointer, message, hint=hint)
        return self.folder

    def fault_of(self, mapping: Path) -> str | None:
        try:
            is_file = stat.S_ISREG(mapping.stat().st_mode)
        except PermissionError as error:
            return f"cannot read the mapping file {mapping}: {error.strerror}"
        except OSError:
            is_file = False
        return None if is_file else f"mapping file not found: {mapping}"

    def near(self, path: Path) -> str | None:
        folder = path.parent
        try:
            if not folder.is_dir():
                return f"directory {folder} not found"
            files = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and str(entry) != self.raw.file)
        except PermissionError:
            return None
        near = closest(path.name, files)
        return f"did you mean `{near}`?" if near else None


def fault_of_listen(settings: TelemetrySettings) -> tuple[str, str, str | None] | None:
    """Return code, message and hint where a run cannot listen at `settings.listen`; None if it can."""
    try:
        host, _ = parse_listen(settings.listen or "")
    except AddressFault as fault:
        return "IFX809", f"invalid address to listen on: {fault}", fault.hint
    if is_loopback(host):
        return None
    if settings.show != "codes":
        hint = "remove `show`, or listen on 127.0.0.1; `iggyflux dead-letters show` prints a letter"
        return "IFX822", f"other machines can reach {settings.listen}, and it shows {settings.show} of messages", hint
    if settings.token is not None and settings.token.reveal().strip():
        return None
    hint = "add `telemetry: {token: ${VARIABLE}}` to the pipeline file, or listen on 127.0.0.1"
    return "IFX820", f"other machines can reach {settings.listen}, and there is no token", hint


def _pruned(document: Document, pointers: set[str] | frozenset[str]) -> Document:
    """Return the document without the members at `pointers`, so that the others can be checked."""
    tree = copy.deepcopy(document.tree)
    for pointer in sorted(pointers - {""}, key=len, reverse=True):
        *parents, last = split_pointer(pointer)
        node = tree
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else cast(Tree, node)[part]
        if isinstance(node, dict):
            node.pop(last, None)
    return dataclasses.replace(document, tree=tree)


def _plain(_reading: _Reading, value: JSON, _pointer: str) -> object:
    return value


def _texts(_reading: _Reading, value: JSON, _pointer: str) -> tuple[str, ...]:
    return tuple(map(str, cast("list[JSON]", value)))


def _path(reading: _Reading, value: JSON, pointer: str) -> Path:
    return reading.path(value, pointer)


def _secret(reading: _Reading, value: JSON, pointer: str, *, is_named: bool = True) -> Secret:
    """Return the secret in a setting; warn if it is written in the file, unless its name does not suggest a secret.

    `file:PATH` is read here, so that a missing file is a problem of the pipeline and not of the first request.
    """
    text = str(value)
    if not text.startswith("file:"):
        if text and is_named and not reading.variables.is_reference(pointer):
            message = "the file contains a secret"
            hint = "write ${VARIABLE} or file:PATH instead"
            problem = reading.document.problem("IFX814", pointer, message, hint=hint)
            reading.warnings.append(dataclasses.replace(problem, severity="warning"))
        return Secret(text)
    path = reading.path(text.removeprefix("file:"), pointer)
    if not reading.connects:
        return Secret("")
    try:
        content = read_source(path, limit=_LONGEST_SECRET, needs_writer=True).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError, DocumentError) as error:
        reason = _why_unreadable(error)
        reading.report("IFX803", pointer, f"cannot read the secret in {path}: {reason}")
        return Secret("")
    if not content:
        reading.report("IFX803", pointer, f"the secret file {path} is empty")
    reading.variables.mask.add(content)
    return Secret(content)


def _headers(reading: _Reading, value: JSON, pointer: str) -> tuple[tuple[str, Secret], ...]:
    """Return the headers that a request has besides ours."""
    found: list[tuple[str, Secret]] = []
    for name, text in cast(Tree, value).items():
        place = f"{pointer}/{escape_key(name)}"
        if (fault := _header_fault(name, [other for other, _ in found])) is not None:
            reading.report("IFX816", place, f"invalid header: {fault[0]}", key=True, hint=fault[1])
            continue
        secret = _secret(reading, text, place, is_named=is_name_of_secret(name))
        if secret.reveal() and not _HEADER_VALUE.fullmatch(secret.reveal()):
            hint = "use printable ASCII characters on one line, without spaces at either end"
            reading.report("IFX816", place, f"invalid value of header {name}", hint=hint)
        found.append((name, secret))
    return tuple(found)


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_OURS = frozenset(
    ("accept", "accept-encoding", "content-encoding", "content-length", "content-type", "expect", "host", "user-agent")
)
_OF_THE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
_OF_THE_PROXY = frozenset(("proxy-authenticate", "proxy-authorization"))


def _header_fault(name: str, before: Sequence[str]) -> tuple[str, str] | None:
    """Return what is wrong with the name of a header, and a hint."""
    folded = name.lower()
    if _HEADER_NAME.fullmatch(name) is None:
        return "its name has a character that is not allowed", "use letters, digits and `-`"
    if folded in _OURS:
        return f"{name} is set by iggyflux", "remove it"
    if folded in _OF_THE_CONNECTION:
        return f"{name} is about the connection and not about the request", "remove it"
    if folded in _OF_THE_PROXY:
        return f"{name} belongs to a proxy", "write its login into HTTPS_PROXY or HTTP_PROXY: http://USER:PASSWORD@HOST"
    if folded in map(str.lower, before):
        return f"{name} is given twice", "names of headers have no case; keep one"
    return None


def _why_unreadable(error: OSError | UnicodeDecodeError | DocumentError) -> str:
    if isinstance(error, DocumentError):
        return error.problems[0].message.replace("the document", "it")
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"


def _seconds(reading: _Reading, value: JSON, pointer: str) -> float:
    match = _DURATION.fullmatch(str(value))
    if match is None:
        hint = f'did you mean "{value}s"?' if isinstance(value, int) else None
        reading.report(
            "IFX804", pointer, f"invalid duration: {value!r}", expected='for example "250ms", "10s", "5m"', hint=hint
        )
        return 0.0
    return float(match[1]) * _DURATION_SECONDS[match[2]]


def _bytes(reading: _Reading, value: JSON, pointer: str) -> int:
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(str(value))
    if match is None:
        reading.report(
            "IFX805", pointer, f"invalid size: {value!r}", expected='for example "5MB", "512KiB", or a number of bytes'
        )
        return 1
    return int(float(match[1]) * _SIZE_BYTES[match[2]])


def _url(reading: _Reading, value: JSON, pointer: str) -> str:
    text = str(value)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        reading.report("IFX809", pointer, f"invalid address: {text!r}", expected="for example http://127.0.0.1:8086")
    elif parts.query or parts.fragment:
        message = "the address has a query or a fragment"
        reading.report("IFX809", pointer, message, hint="end it after the path; use the key `token` for a token")
    elif parts.username is not None or parts.password is not None:
        message = "the address contains a user name or password"
        reading.report("IFX809", pointer, message, hint="use the keys `username` and `password`, or `token`")
    return text.rstrip("/")


def _switch(_reading: _Reading, value: JSON, _pointer: str) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _in_flight(_reading: _Reading, value: JSON, _pointer: str) -> int | None:
    return None if value == "auto" else cast(int, value)


_SECRETS: dict[str, tuple[str, Convert]] = {key: (key, _secret) for key in SECRET_KEYS}
_FILES: dict[str, tuple[str, Convert]] = {key: (key, _path) for key in ("ca_file", "client_cert", "client_key")}
_SHARED: dict[str, tuple[str, Convert]] = {
    **_SECRETS,
    **_FILES,
    "timeout": ("timeout_seconds", _seconds),
    "poll_interval": ("poll_interval_seconds", _seconds),
    "batch_bytes": ("batch_bytes", _bytes),
}
_IGGY: dict[str, tuple[str, Convert]] = _SHARED
_REGISTRY: dict[str, tuple[str, Convert]] = {**_SHARED, "url": ("url", _url)}
_TELEMETRY: dict[str, tuple[str, Convert]] = {
    "token": ("token", _secret),
    "max_behind": ("max_behind_seconds", _seconds),
}
_INFLUX: dict[str, tuple[str, Convert]] = {
    **_SHARED,
    "url": ("url", _url),
    "linger": ("linger_seconds", _seconds),
    "retry_backoff": ("retry_backoff_seconds", _seconds),
    "max_retry_backoff": ("max_retry_backoff_seconds", _seconds),
    "gzip": ("gzip", _switch),
    "max_in_flight": ("max_in_flight", _in_flight),
    "headers": ("headers", _headers),
    "buckets": ("buckets", _texts),
}
