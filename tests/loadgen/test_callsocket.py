"""The socket of one simulated caller, against sockets on loopback."""

import socket
from collections.abc import Iterator

import pytest

from loadgen.callsocket import Addresses, CallSocket
from protocol.address import pack_address


@pytest.fixture
def caller() -> Iterator[CallSocket]:
    sock = CallSocket(Addresses())
    yield sock
    sock.close()


def bind(port: int = 0) -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.settimeout(5)
    server.bind(("127.0.0.1", port))
    return server


def test_a_connected_socket_speaks_with_its_server_and_hears_nobody_else(caller: CallSocket):
    with bind() as server, bind() as stranger:
        remote = pack_address(*server.getsockname())
        caller.send(b"first", remote)
        _, name = server.recvfrom(100)
        caller.connect(remote)
        caller.send(b"second", remote)
        assert server.recvfrom(100) == (b"second", name), "a server knows a caller by his address: it has to stay"
        stranger.sendto(b"strange", name)
        server.sendto(b"answer", name)
        assert caller.receive() == (6, remote)
        assert caller.receive()[0] == 0
        caller.send(b"elsewhere", pack_address(*stranger.getsockname()))
        assert stranger.recvfrom(100) == (b"elsewhere", name)
    assert not caller.errors
    assert (caller.sent, caller.received) == (3, 1)


def test_that_nobody_took_a_datagram_does_not_keep_the_next_one_back(caller: CallSocket):
    with bind() as gone:
        host, port = gone.getsockname()
    remote = pack_address(host, port)
    caller.connect(remote)
    caller.send(b"to nobody", remote)
    with bind(port) as server:
        caller.send(b"to somebody", remote)
        assert server.recv(100) == b"to somebody"
    assert not caller.errors
