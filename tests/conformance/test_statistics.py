"""What the browsers' own statistics say of us: of a whole stack, believable round trips, no loss and little jitter; of a peer
in the test's own process, exactly what it counted itself.

On one machine every figure is known: nothing is lost, a round trip takes milliseconds, and the clocks of both ends are one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from direct_peer import direct_call
from harness import running_stack
from test_browsers import call

from protocol.codecs import OPUS, PCMU, Codec, KeyPresses

pytestmark = pytest.mark.thorough

SECONDS = 15  # three reports of ours and of the browser's at least
STATISTICS = "(async () => [...(await antiphon.pc.getStats()).values()])()"


def only(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The audio entry of that kind."""
    (found,) = [entry for entry in entries if entry["type"] == kind and entry.get("kind", "audio") == "audio"]
    return found


async def test_a_browsers_statistics_of_us_are_believable(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        await trio.sleep(SECONDS)
        entries = await page.evaluate(STATISTICS)

    sent, heard = only(entries, "outbound-rtp"), only(entries, "remote-inbound-rtp")  # what we say of its voice
    assert heard["ssrc"] == sent["ssrc"]
    assert heard["packetsLost"] == heard["fractionLost"] == 0
    assert 0 < heard["roundTripTime"] < 0.2
    assert heard["roundTripTimeMeasurements"] >= 2
    assert 0 <= heard["jitter"] < 0.05
    assert heard.get("packetsReceived", sent["packetsSent"]) <= sent["packetsSent"]

    received, told = only(entries, "inbound-rtp"), only(entries, "remote-outbound-rtp")  # what we say of ours
    assert told["ssrc"] == received["ssrc"]
    assert received["packetsLost"] == received["packetsDiscarded"] == 0
    assert received["packetsReceived"] > 0.9 * SECONDS * 50
    assert received["jitter"] < 0.05
    assert 0 < told["packetsSent"] <= received["packetsReceived"]
    assert 0 < told["bytesSent"] <= received["bytesReceived"]
    assert abs(told["remoteTimestamp"] - told["timestamp"]) < 1000, "our sender reports bear the time of day"

    pair = next(entry for entry in entries if entry["type"] == "candidate-pair" and entry.get("nominated"))
    assert pair["state"] == "succeeded"
    assert 0 <= pair["currentRoundTripTime"] < 0.2
    assert pair["currentRoundTripTime"] > 0 or page.name == "firefox"  # which tells it in whole milliseconds
    figures = {name: heard[name] for name in ("roundTripTime", "jitter")} | {"theirJitter": received["jitter"]}
    print(page.name, figures, {"pair": pair["currentRoundTripTime"]})


STOP = "(async () => { await pc.getSenders()[0].replaceTrack(null); return true; })()"


def host_of(browser) -> str:
    return browser.addresses.get("ANTIPHON_STACK_PUBLIC_ADDRESS", "127.0.0.1")


@pytest.mark.parametrize("codec", [OPUS, PCMU], ids=lambda codec: codec.name)
async def test_what_each_side_reports_of_the_other_is_what_the_other_counts(browser, codec: Codec, tone: Path):
    async with browser.open(tone) as page, direct_call(page, host_of(browser), (codec,)) as direct:
        peer = direct.peer
        await trio.sleep(18)  # the circuit breaker's first judgement comes after fifteen seconds
        direct.talking = False
        await page.evaluate(STOP)
        await trio.sleep(7)  # the last reports of both sides come: six seconds lie between two at most
        entries = await page.evaluate(STATISTICS.replace("antiphon.", ""))
        ours = peer.statistics(trio.current_time())
        reporter = peer._audio.reporter
        said_of_us = reporter.remote_report

    # Ours: what we sent, what the browser counted, and what it reported
    received = only(entries, "inbound-rtp")
    assert received["packetsReceived"] == ours.packets_sent > 800
    assert received["bytesReceived"] == ours.bytes_sent
    assert said_of_us.highest_sequence & 0xFFFF == peer._audio._sequence - 1 & 0xFFFF
    assert said_of_us.packets_lost == said_of_us.fraction_lost == 0
    assert abs(said_of_us.jitter / direct.codec.clock_rate - received["jitter"]) < 0.01

    # Theirs: what it sent, what we counted, and what we reported
    sent, heard = only(entries, "outbound-rtp"), only(entries, "remote-inbound-rtp")
    assert sent["packetsSent"] == ours.packets_received == len(direct.heard) > 800
    assert sent["bytesSent"] == ours.bytes_received
    assert heard["packetsLost"] == ours.packets_lost == 0
    assert abs(heard["jitter"] - ours.jitter) < 0.01

    assert 0 < reporter.round_trip_time < 0.2
    assert 0 < heard["roundTripTime"] < 0.2
    assert not {reason for reason in ours.drops if reason.startswith(("rtcp_", "srtp_", "circuit_"))}
    print(page.name, "round trips", reporter.round_trip_time, heard["roundTripTime"], "rtcp", dict(ours.rtcp))


async def test_keys_pressed_in_a_page_are_told_once_each(browser, tone: Path):
    async with browser.open(tone) as page, direct_call(page, host_of(browser)) as direct:
        await page.wait_for("pc.getSenders()[0].dtmf.canInsertDTMF")
        await trio.sleep(1)
        await page.evaluate("(pc.getSenders()[0].dtmf.insertDTMF('1223#*', 100, 70), true)")
        await trio.sleep(3)
        presses = KeyPresses()
        kind = direct.peer._audio.parameters.telephone_event_payload_type
        packets = [packet for packet in direct.heard if packet.payload_type == kind]
        events = [presses.detect_untrusted(packet.payload, packet.timestamp) for packet in packets]
        assert "".join(event.digit for event in events if event is not None) == "1223#*"
        assert len(packets) > 2 * 6
        assert direct.peer.statistics(trio.current_time()).jitter < 0.05, (
            "packets that name the beginning of a press are no jitter"
        )
