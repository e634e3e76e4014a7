"""What the simulator answers without a socket is what it answers with one."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from iggyflux.sim import SimServer
from iggyflux.sim.answers import WRITES, answer_write

BODIES = {
    "points": ["gärten,a=b x=1 1700000000000000000", 'gärten,a=b y="ü",x=2 1700000000000000001'],
    "two types of one field": ["m x=1 1", 'm x="s" 2'],
    "a line that is none": ["m x=1 1", "nonsense"],
    "unsigned": ["m x=1u 1"],
    "only nonsense": ["nonsense"],
}


@pytest.mark.parametrize("dialect", [1, 2, 3])
@pytest.mark.parametrize("lines", BODIES.values(), ids=BODIES)
def test_an_answer_is_that_of_the_server(dialect: int, lines: list[str]) -> None:
    given = answer_write(dialect, lines)
    with SimServer(dialect, database="playground") as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        connection.request("POST", WRITES[dialect], "\n".join(lines).encode())
        answer = connection.getresponse()
        body = answer.read().decode().strip()
        connection.close()

        assert (given.status, given.body, given.points) == (answer.status, body, len(server.points()))
