"""One request to an untrusted host: public addresses only, limited bytes and time, no proxies, no
cookies, no second look-up.

First `checked_url` a URL, then `get` it. A redirect is an ordinary answer, whose URL must be checked
too.

This is written by hand, because no client connects to exactly the address that was checked, with
one deadline for the whole request.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import closing
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from findnemo._version import __version__
from findnemo.errors import FindnemoError

PORTS = {"http": 80, "https": 443}
REDIRECT = (301, 302, 303, 307, 308)
MOST_BYTES = 20 * 2**20
HEADERS = {
    "User-Agent": f"findnemo/{__version__} (+https://github.com/findnemo/findnemo)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # compressed data could grow without bounds
    "Connection": "close",
}
GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
PATH = "/%:@!$&'()*+,;=~"  # characters that a path keeps unescaped


class RefusedError(FindnemoError):
    """The reason why an image is not available."""


def checked_url(url: str) -> SplitResult:
    """The parts of a URL that may be asked for. Raises RefusedError.

    >>> checked_url("https://example.org/moon.png").hostname
    'example.org'
    >>> checked_url("file:///etc/passwd")
    Traceback (most recent call last):
    findnemo.files.fetch.RefusedError: scheme 'file' is not fetched: only http and https are
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedError(f"not a URL ({error})") from None
    if parts.scheme not in PORTS:
        raise RefusedError(f"scheme {parts.scheme[:20]!r} is not fetched: only http and https are")
    if parts.username is not None or parts.password is not None:
        raise RefusedError("the URL holds a user name or password")
    if not parts.hostname or port == 0:
        raise RefusedError("the URL names no host")
    return parts


def get(parts: SplitResult, deadline: float) -> bytes | str:
    """Make one request; return the body, or the URL of a redirect.

    `deadline`: of `time.monotonic`. Raises RefusedError.
    """
    try:
        with closing(_connected(parts, deadline)) as sock:
            return _answer(parts, _Timed(sock, deadline))
    except (TimeoutError, concurrent.futures.TimeoutError):
        raise RefusedError("took too long") from None
    except ssl.SSLError as error:
        raise RefusedError(f"no secure connection ({error.reason or error})") from None
    # ValueError: an impossible name or port
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise RefusedError(f"no answer ({why})") from None


def _connected(parts: SplitResult, deadline: float) -> socket.socket:
    """A connection to an address of the host, after checking that all of its addresses are public.

    No name is looked up again.
    """
    host = str(parts.hostname)
    port = parts.port or PORTS[parts.scheme]
    addresses = _addresses(host, port, deadline)
    for address in addresses:
        if not is_public(address):
            raise RefusedError(f"{address} is not a public address")
    problem: OSError = OSError(f"{host} has no address")
    for address in addresses:
        try:
            sock = socket.create_connection((address, port), timeout=_left(deadline))
        except OSError as error:
            problem = error
            continue
        if parts.scheme == "http":
            return sock
        try:
            sock.settimeout(_left(deadline))
            return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
    raise problem


def _addresses(host: str, port: int, deadline: float) -> list[str]:
    """The IP addresses of a host.

    The system's resolver has no timeout, so it runs in a thread.
    """
    answer: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()

    def look_up() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=look_up, daemon=True).start()
    return list(dict.fromkeys(str(found[4][0]) for found in answer.result(_left(deadline))))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; an IPv4 address within an IPv6 one is
    checked itself.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None or ip in NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in GLOBAL_6 or ip in SIX_TO_FOUR:
            return False
    return ip.is_global and not ip.is_multicast


def _left(deadline: float) -> float:
    """Seconds until the deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """The part of a socket that http.client needs, with one deadline for everything, however slow
    the other end.
    """

    def __init__(self, sock: socket.socket, deadline: float):
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Do nothing: http.client closes the socket before it reads the body, so its opener closes
        it.
        """


def _answer(parts: SplitResult, sock: _Timed) -> bytes | str:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection: Any = kind(str(parts.hostname), parts.port or PORTS[parts.scheme])
    connection.sock = sock
    connection.auto_open = False  # never connect again, to an unchecked address
    target = quote(parts.path or "/", safe=PATH)
    if parts.query:
        target += f"?{quote(parts.query, safe=PATH + '?')}"
    connection.request("GET", target, headers=HEADERS)
    response = connection.getresponse()
    if response.status in REDIRECT and response.getheader("Location"):
        return urljoin(parts.geturl(), str(response.getheader("Location")))
    if response.status != 200:
        raise RefusedError(f"answers {response.status}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise RefusedError("sends compressed data, which was not asked for")
    return _body(response)


def _body(response: http.client.HTTPResponse) -> bytes:
    """The body, with no byte more than allowed, whatever length the header gives."""
    too_big = RefusedError(f"more than {MOST_BYTES >> 20} MB")
    if (response.length or 0) > MOST_BYTES:
        raise too_big
    data = bytearray()
    while chunk := response.read(1 << 16):
        data += chunk
        if len(data) > MOST_BYTES:
            raise too_big
    if response.length:
        raise RefusedError(f"broke off {response.length} bytes before its end")
    return bytes(data)
