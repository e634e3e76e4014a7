"""The files of TLS: trusted authorities, the client's certificate, its key.  A fault names the key of the document.

OpenSSL does not say which file it could not use, and asks on the terminal for the passphrase of a key.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from iggyflux.errors import Location, Problem
from iggyflux.secrets import Secret

_MOST_BYTES = 4 * 1024 * 1024
_CONVERT = "convert it: openssl x509 -inform der -in FILE -out FILE.pem"
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class CertificateFault(ValueError):
    """A file that cannot be used; `key` is its key in the document."""

    def __init__(self, key: str, reason: str, hint: str | None = None) -> None:
        self.key = key
        self.hint = hint
        super().__init__(f"`{key}`: {reason}")


@dataclass(frozen=True, slots=True)
class Tls:
    """The trusted authorities and the client certificate; `domain` is the name expected in the server's certificate."""

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    passphrase: Secret | None = None
    verify: bool = True
    domain: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context.  Raise `CertificateFault`."""
        context = ssl.create_default_context() if self.ca_file is None else _trusting(self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert is not None:
            self._load_client(context, self.client_cert)
        return context

    def check(self) -> None:
        """Raise `CertificateFault` if a file cannot be used."""
        if self.ca_file is not None:
            _trusting(self.ca_file)
        if self.client_cert is not None:
            self._load_client(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.client_cert)

    def problems(self) -> list[Problem]:
        """Return the problem of a file that cannot be used, at its key; it can be specific to this machine."""
        try:
            self.check()
        except CertificateFault as fault:
            return [Problem("IFX733", str(fault), Location(pointer=f"/{fault.key}"), hint=fault.hint)]
        return []

    def _load_client(self, context: ssl.SSLContext, certificate: Path) -> None:
        holds_key = "client_key" if self.client_key else "client_cert"
        key = self.client_key or certificate
        asked = _Passphrase(self.passphrase)
        if not _holds(b"CERTIFICATE-----", _read("client_cert", certificate)):
            raise _no_certificate("client_cert", certificate)
        if not _holds(b"PRIVATE KEY-----", _read(holds_key, key)):
            hint = "add `client_key: FILE`" if self.client_key is None else "name the key that belongs to `client_cert`"
            raise CertificateFault(holds_key, f"{key} has no private key in PEM format", hint)
        try:
            context.load_cert_chain(certificate, key, asked)
        except (ssl.SSLError, ValueError) as error:
            if asked.is_missing:
                hint = "add `client_key_passphrase`"
                raise CertificateFault(holds_key, f"the private key in {key} is encrypted", hint) from None
            if asked.was_asked:
                reason = f"it does not decrypt the private key in {key}"
                raise CertificateFault("client_key_passphrase", reason, "correct the passphrase") from None
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                reason = f"the private key in {key} does not belong to the certificate in {certificate}"
                raise CertificateFault(holds_key, reason, "name the key that the certificate was made for") from None
            damaged = ("client_cert", certificate) if _is_damaged(certificate) else (holds_key, key)
            raise CertificateFault(damaged[0], f"{damaged[1]} cannot be decoded: {_words(error)}") from None
        if (fault := _date_fault(certificate, key, asked)) is not None:
            raise CertificateFault("client_cert", f"the certificate in {certificate} {fault}", "renew it")


class _Passphrase:
    """Gives the passphrase to OpenSSL, which otherwise asks for it on the terminal."""

    def __init__(self, passphrase: Secret | None) -> None:
        self._passphrase = passphrase
        self.was_asked = False

    @property
    def is_missing(self) -> bool:
        return self.was_asked and self._passphrase is None

    def __call__(self) -> str:
        self.was_asked = True
        if self._passphrase is None:
            raise ValueError("no passphrase")
        return self._passphrase.reveal()


def _trusting(path: Path) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a file."""
    data = _read("ca_file", path)
    if not _holds(b"CERTIFICATE-----", data):
        raise _no_certificate("ca_file", path)
    try:
        context = ssl.create_default_context(cafile=path)
    except (ssl.SSLError, ValueError) as error:
        raise CertificateFault("ca_file", f"{path} cannot be decoded: {_words(error)}") from None
    dates = [str(each["notAfter"]) for each in context.get_ca_certs() if "notAfter" in each]
    last = max(dates, key=ssl.cert_time_to_seconds, default=None)
    if last is not None and ssl.cert_time_to_seconds(last) < time.time():
        raise CertificateFault("ca_file", f"the certificate in {path} has expired (valid until {last})", "renew it")
    return context


def _read(key: str, path: Path) -> bytes:
    try:
        if path.is_fifo():  # opening it waits for its writer
            raise CertificateFault(key, f"cannot read {path}: it is not a regular file", "correct the path")
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise CertificateFault(key, f"cannot read {path}: {error.strerror}", "correct the path") from None


def _holds(mark: bytes, data: bytes) -> bool:
    return any(line.startswith(b"-----BEGIN ") and line.rstrip().endswith(mark) for line in data.splitlines())


def _no_certificate(key: str, path: Path) -> CertificateFault:
    is_binary = _read(key, path)[:1] == b"0"
    hint = _CONVERT if is_binary else "name a file that has -----BEGIN CERTIFICATE-----"
    return CertificateFault(key, f"{path} has no certificate in PEM format", hint)


def _is_damaged(certificate: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=certificate)
    except (ssl.SSLError, ValueError):
        return True
    return False


def _words(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")


def _date_fault(certificate: Path, key: Path, passphrase: Callable[[], str]) -> str | None:
    """Return what is wrong with the dates of a certificate; None if it is valid now.

    The `ssl` module decodes no certificate, but verifies one: here against itself, in a handshake in memory.
    """
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    server.load_verify_locations(cafile=certificate)
    for context in (client, server):
        context.load_cert_chain(certificate, key, passphrase)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(4):  # two flights each way
            for end in (ours, theirs):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return {_NOT_YET_VALID: "is not valid yet", _EXPIRED: "has expired"}.get(error.verify_code)
    except ssl.SSLError:
        return None
    return None
