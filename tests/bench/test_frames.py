"""The generator counts packets by the lengths of trunk datagrams, so both have to agree on what a frame is."""

from __future__ import annotations

import pytest

from bench.generator import FRAME_LENGTH, bundled, client_host, packet
from protocol.address import pack_address
from protocol.routing import DATAGRAM_OVERHEAD, Frame, Trunk


def frames(count: int) -> list[Frame]:
    return [Frame(pack_address(client_host(i), 40_000), 0, packet(i)) for i in range(count)]


@pytest.mark.parametrize("mtu", [0, 576, 1452, 8952])
def test_frames_of_a_datagram_can_be_counted_by_its_length(mtu: int):
    [datagram] = Trunk(bytes(32)).encode(frames(bundled(mtu)), mtu)
    assert (len(datagram) - DATAGRAM_OVERHEAD) / FRAME_LENGTH == bundled(mtu)


@pytest.mark.parametrize("mtu", [0, 576, 1452, 8952])
def test_a_full_datagram_has_no_room_for_one_more(mtu: int):
    assert len(Trunk(bytes(32)).encode(frames(bundled(mtu) + 1), mtu)) == 2
