"""Which protocol a port speaks: asked only after a connection broke off, to say what the user can change.

Nothing secret is sent.  Blocks for a few seconds at most.
"""

from __future__ import annotations

import socket
import ssl
import time

PROBE_SECONDS = 2.0


def answers_http(host: str, port: int) -> bool:
    """Return whether the port answers a request without TLS."""
    until = time.monotonic() + PROBE_SECONDS
    said = b""
    try:
        with socket.create_connection((host, port), PROBE_SECONDS) as sock:
            sock.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while len(said) < len(_HTTP) and (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                if not (piece := sock.recv(64)):
                    break
                said += piece
    except OSError:
        pass
    return said.startswith(_HTTP)


_HTTP = b"HTTP/"


def answers_tls(host: str, port: int) -> bool:
    """Return whether the port answers a handshake of TLS, be it with an alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    until = time.monotonic() + PROBE_SECONDS
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = context.wrap_bio(incoming, outgoing, server_hostname=host)
    try:
        with socket.create_connection((host, port), PROBE_SECONDS) as sock:
            while (left := until - time.monotonic()) > 0:
                try:
                    handshake.do_handshake()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    sock.settimeout(left)
                    if not (piece := sock.recv(16384)):
                        return False
                    incoming.write(piece)
                    continue
                return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):  # ValueError: the host is not a valid server name
        return False
    return False
