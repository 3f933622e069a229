"""Between a browser and a peer in the test's own process 5 % are lost, and 20 ms pass, each way: what is made good.

Both browsers resend Opus on a NACK, agreed on or not. Chromium sends redundant audio when the answer prefers it, adapts to
transport-wide feedback, and asks for our packets when its page has had NACK put into the offer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from direct_peer import OFFER, direct_call
from harness import write_voice
from test_statistics import STATISTICS, host_of, only

from protocol.agentlink import MediaFlags
from udpio import Conditions

pytestmark = pytest.mark.thorough

LOSS = 0.05
LOSSY = Conditions(loss=LOSS, delay=0.02)
SECONDS = 20
WITH_NACK = OFFER.replace(
    "await pc.setLocalDescription(await pc.createOffer());",
    """const made = await pc.createOffer();
  const sdp = made.sdp.replace(/(a=rtpmap:(\\d+) opus\\/48000\\/2\\r\\n)/, '$1a=rtcp-fb:$2 nack\\r\\n');
  await pc.setLocalDescription({type: 'offer', sdp});""",
)


async def entries_of(page) -> list[dict[str, Any]]:
    return await page.evaluate(STATISTICS.replace("antiphon.", ""))


def slots(direct) -> tuple[int, int]:
    """(20 ms slots of the caller's speech, those that were heard)"""
    times = [record.rtp_time for record in direct.frames]
    return (times[-1] - times[0]) // 960 + 1, len(set(times))


async def test_a_browser_resends_what_was_lost_and_its_statistics_stay_sane(browser, tone: Path):
    async with browser.open(tone) as page, direct_call(page, host_of(browser), repair=True, network=LOSSY) as direct:
        await trio.sleep(SECONDS)
        entries = await entries_of(page)
        ours = direct.peer.statistics(trio.current_time())
    recovered = sum(1 for record in direct.frames if record.flags & MediaFlags.RECOVERED)
    expected, heard = slots(direct)
    sent, told = only(entries, "outbound-rtp"), only(entries, "remote-inbound-rtp")
    print(page.name, f"{heard} of {expected}", dict(direct.uplink.counters), dict(ours.rtcp))
    print({name: told.get(name) for name in ("roundTripTime", "packetsLost", "jitter", "fractionLost")})
    print({name: sent.get(name) for name in ("packetsSent", "retransmittedPacketsSent", "nackCount", "targetBitrate")})
    assert recovered == direct.uplink.counters["recovered"] > 0.6 * LOSS * expected
    assert heard > 0.99 * expected
    assert 0.04 <= told["roundTripTime"] < 0.3
    assert -100 < told["packetsLost"] < LOSS * expected, "what was resent is lost no more"
    assert 0 <= told["jitter"] < 0.05
    assert ours.rtcp["transport_cc_sent"] > 2 * SECONDS
    assert 0.04 <= direct.peer._audio.reporter.round_trip_time < 0.3


@pytest.mark.parametrize("red", ["accept", "prefer"])
async def test_chromium_sends_redundant_audio_when_it_is_preferred_and_it_fills_the_gaps(chromium, tone: Path, red):
    async with chromium.open(tone) as page, direct_call(page, host_of(chromium), red=red, network=LOSSY) as direct:
        await trio.sleep(SECONDS)
        sent = only(await entries_of(page), "outbound-rtp")
    kinds = {packet.payload_type for packet in direct.heard}
    expected, heard = slots(direct)
    print(red, kinds, f"{heard} of {expected}", dict(direct.uplink.counters), sent["bytesSent"] / sent["packetsSent"])
    assert direct.negotiated.red_payload_type is not None
    if red == "accept":
        assert kinds == {direct.negotiated.payload_type}
        assert heard < 0.98 * expected
    else:
        assert kinds == {direct.negotiated.red_payload_type}
        assert direct.uplink.counters["red_recovered"] > 0.6 * LOSS * expected
        assert heard > 0.985 * expected


async def test_chromium_asks_for_what_it_lost_of_ours_and_gets_it(chromium, tone: Path):
    async with (
        chromium.open(tone) as page,
        direct_call(page, host_of(chromium), offer=WITH_NACK, repair=True, network=LOSSY) as direct,
    ):
        await trio.sleep(SECONDS)
        received = only(await entries_of(page), "inbound-rtp")
        ours = direct.peer.statistics(trio.current_time())
    names = ("packetsReceived", "packetsLost", "nackCount", "retransmittedPacketsReceived", "concealedSamples")
    print({name: received.get(name) for name in names}, dict(ours.rtcp))
    assert direct.negotiated.nack
    assert ours.rtcp["feedback_nack"] > 0
    assert ours.rtcp["resent"] > 0.5 * LOSS * ours.packets_sent
    assert received["packetsLost"] < 0.02 * ours.packets_sent


async def test_speech_of_chromium_carries_copies_once_it_hears_of_losses(chromium, tmp_path: Path):
    voice = write_voice(tmp_path / "voice.wav")
    network = Conditions(loss=0.2, delay=0.02)
    async with chromium.open(voice) as page, direct_call(page, host_of(chromium), network=network) as direct:
        await trio.sleep(SECONDS)
    counters = direct.uplink.counters
    print(dict(counters))
    assert counters["fec_available"] > 0.4 * counters["lost"] > 50
    assert sum(1 for record in direct.frames if record.flags & MediaFlags.FEC) == counters["fec_available"]
