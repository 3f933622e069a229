"""The generator counts packets by the lengths of trunk datagrams, so both have to agree on what a frame is."""

from __future__ import annotations

import pytest

from bench.generator import BUNDLED, FRAME_LENGTH, PACKET, client_host
from protocol.address import pack_address
from protocol.routing import DATAGRAM_OVERHEAD, Frame, RoutingConfig, Trunk


@pytest.mark.parametrize("count", [1, BUNDLED])
def test_frames_of_a_datagram_can_be_counted_by_its_length(count: int):
    trunk = Trunk(bytes(32))
    frames = [Frame(pack_address(client_host(i), 40_000), 0, PACKET) for i in range(count)]
    [datagram] = trunk.encode(frames, RoutingConfig().trunk_mtu)
    assert (len(datagram) - DATAGRAM_OVERHEAD) / FRAME_LENGTH == count


def test_a_full_datagram_has_no_room_for_one_more():
    trunk = Trunk(bytes(32))
    frames = [Frame(pack_address(client_host(i), 40_000), 0, PACKET) for i in range(BUNDLED + 1)]
    assert len(trunk.encode(frames, RoutingConfig().trunk_mtu)) == 2
