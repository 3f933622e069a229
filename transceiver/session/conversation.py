"""What flows between the caller and the agent: audio both ways, and the messages of the data channels.

It routes; the session decides when it may flow and when the agent changes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from protocol.agentlink import FIRST_CONTROLLER, DataMessage, MediaRecord
from protocol.codecs import Codec
from protocol.peer import DONE, LEFT, SEND_ROOM, SETTLE, Deliver, Peer
from protocol.rtp import RtpPacket
from protocol.sdp import Direction, NegotiatedAudio
from transceiver.backends.base import Attachment
from transceiver.media import Downlink, Uplink
from transceiver.session.channels import Channels
from transceiver.session.controllers import Controller, Controllers

if TYPE_CHECKING:
    from transceiver.routes import Route

__all__ = ["QUEUED", "Conversation"]

QUEUED = -1
"""Beside LEFT, DONE and SETTLE of the lane: a frame waits for its time."""


class Conversation:
    """`attachment` is the present agent, from the offer of the call on; `flowing` says whether media may pass."""

    __slots__ = (
        "_attachment",
        "_audio",
        "_downlink",
        "_flowing",
        "_held",
        "_keeps",
        "_peer",
        "_receives",
        "_sends",
        "channels",
        "codec",
        "controllers",
        "drops",
        "has_heard",
        "has_spoken",
        "uplink",
    )

    def __init__(self, peer: Peer, audio: NegotiatedAudio | None, drops: Counter[str]) -> None:
        self._peer = peer
        self._audio = audio
        self.codec: Codec | None = audio.codec if audio is not None else None
        # Made when they are needed: a call that never comes about must be cheap.
        self.uplink: Uplink | None = None
        self._downlink: Downlink | None = None
        self._held = False  # the frame before was for a caller who did not want it
        self.channels = Channels(peer, drops)
        self.controllers: Controllers | None = None
        self._attachment: Attachment | None = None
        self._flowing = False
        self._keeps = True  # what the caller says, for an agent that is still to come
        self._turn()
        self.has_heard = self.has_spoken = False  # the caller; to him
        self.drops = drops

    def start(self) -> None:
        """Media may pass from now on, that first which the caller said before."""
        self._keeps = False
        self.flowing = True
        self._make_downlink()
        if self.uplink is not None:
            self._offer_audio(self.uplink)

    def redirect(self, audio: NegotiatedAudio | None) -> None:
        """The caller holds the call, takes it up again, or has no audio for a while (None): the same stream in both cases,
        perhaps with other directions. The agent speaks on at the same pace, like anyone whose other party has put the
        receiver aside; what it says meanwhile goes nowhere."""
        if self._audio is not None:
            self._audio = audio or replace(self._audio, direction=Direction.INACTIVE)
        self._turn()

    def _turn(self) -> None:
        direction = self._audio.direction if self._audio is not None else Direction.INACTIVE
        self._receives, self._sends = direction.receives, direction.sends
        self._regulate()

    @property
    def attachment(self) -> Attachment | None:
        return self._attachment

    @attachment.setter
    def attachment(self, attachment: Attachment | None) -> None:
        self._attachment = attachment
        self._regulate()

    @property
    def flowing(self) -> bool:
        return self._flowing

    @flowing.setter
    def flowing(self, flowing: bool) -> None:
        self._flowing = flowing
        self._regulate()

    def _regulate(self) -> None:
        """Let frames of the caller's take the short way while there is somebody to hear them, and they may pass."""
        if self.uplink is not None:
            attachment = self._attachment if self._flowing and self._receives else None
            self.uplink.on_frame = attachment.audio_waits if attachment is not None else None

    def _make_uplink(self, audio: NegotiatedAudio) -> Uplink:
        if self.uplink is None:
            self.uplink = Uplink(
                audio.payload_type,
                audio.codec.clock_rate,
                audio.telephone_event_payload_type,
                red_payload_type=audio.red_payload_type,
                codec=audio.codec,
                nack=self._peer.requests_audio,
                estimate=self._peer.path_estimate,
            )
            self._regulate()
        return self.uplink

    def _make_downlink(self) -> Downlink | None:
        audio = self._audio
        if self._downlink is None and audio is not None:
            self._downlink = Downlink(audio.codec, first_timestamp=0)  # the peer adds a random offset
        return self._downlink

    # The agent comes and goes

    def begin(self, now: float) -> None:
        """The agent has taken the call."""
        if self.attachment is not None:
            self.channels.attach(self.attachment, now)
            if self.controllers is not None:
                self.controllers.attach(self.attachment)

    @property
    def is_controllable(self) -> bool:
        """Unless the agent is one of our own process."""
        return self._attachment is None or self._attachment.takes_controllers

    def add_controller(self) -> Controller | None:
        """None: there are as many as may be."""
        if self.controllers is None:
            self.controllers = Controllers(self.drops)
            if self.channels.attachment is not None:
                self.controllers.attach(self.channels.attachment)
        return self.controllers.add()

    def forget(self) -> None:
        """The agent is gone, or will not come."""
        self.attachment = None
        self.channels.detach()
        if self.controllers is not None:
            self.controllers.detach()
        if self.uplink is not None and not self._keeps:
            self.uplink.clear()

    def interrupt(self, now: float) -> None:
        """Forget the agent and what it had still to say: half a sentence of an agent that is gone helps nobody."""
        self.forget()
        if self._downlink is not None:
            self._downlink.restart(now)

    def end(self, reason: str, now: float) -> None:
        self.flowing = self._keeps = False
        if self._downlink is not None:
            self.flush(now)
        self.channels.end()
        if self.attachment is not None:
            self.attachment.end(reason)
        self.forget()
        if self.controllers is not None:
            self.controllers.close(reason)

    # From the caller

    def receive_audio(self, packet: RtpPacket, now: float) -> None:
        audio = self._audio
        if audio is None or not (self._flowing or self._keeps):
            self.drops["audio_early"] += 1
            return
        if not audio.direction.receives:
            self.drops["audio_held"] += 1
            return
        self.has_heard = True
        uplink = self._make_uplink(audio)
        digit = uplink.push(packet, now)
        if digit is not None and self.attachment is not None:
            self.attachment.digit(digit)
        self._offer_audio(uplink)
        if not uplink.is_plain:
            self._request(uplink, now)

    @property
    def deliver(self) -> Deliver | None:
        """For the lane: a frame that is next in order goes to the agent at once. None in a call without audio."""
        return self._make_uplink(self._audio).follow if self._audio is not None else None

    def handle_timeout(self, now: float) -> None:
        self.channels.handle_timeout(now)
        if self.uplink is not None and now >= self.uplink.next_timeout():
            self.uplink.handle_timeout(now)
            self._offer_audio(self.uplink)
            self._request(self.uplink, now)

    def _request(self, uplink: Uplink, now: float) -> None:
        if sequences := uplink.take_requests(now):
            self._peer.request_audio(uplink.ssrc, sequences)

    def next_timeout(self) -> float:
        due = self.channels.due
        return due if self.uplink is None else min(due, self.uplink.next_timeout())

    def _offer_audio(self, uplink: Uplink) -> None:
        if self._keeps:
            return
        if self.attachment is None:
            uplink.clear()
        elif uplink.waiting:
            self.attachment.audio_waits()

    # From the agent

    def play(self, record: MediaRecord, now: float) -> None:
        downlink = self._make_downlink()  # an agent may greet before the caller is through
        if downlink is None:
            self.drops["agent_audio_unwanted"] += 1
            return
        downlink.push(record.rtp_time, record.payload, now)

    def follow_play(self, attachment: Attachment, record: MediaRecord, route: Route, now: float) -> int:
        """The same as `play`, then `pace`, for a call that is playing; not for the first frame of all.
        LEFT: nothing has happened; DONE; QUEUED: `pace` has to be called in time; SETTLE: it is done, and the peer has
        something to say."""
        downlink = self._downlink
        if (
            attachment is not self._attachment
            or downlink is None
            or not self._flowing
            or not self._sends
            or self._held
            or not self.has_spoken
        ):
            return LEFT
        payload = record.payload
        timestamp = downlink.follow(record.rtp_time, payload, now)
        if timestamp < 0:
            if not downlink.playing:
                return LEFT
            downlink.push(record.rtp_time, payload, now)
            became = self.pace(now, route) if downlink.next_action() <= now else DONE
            return became if became != DONE else QUEUED
        outlet, room = route.outlet, len(payload) + SEND_ROOM
        length = 0
        if room <= outlet.room:  # as in _send, for the frame that is the rule
            length = route.lane.send(outlet.arena, outlet.reserve(room), payload, timestamp, False, now)
        if length > 0:
            outlet.commit(route.target, length)
            became = DONE
        elif length:
            outlet.commit(route.target, -length)
            became = SETTLE
        else:
            became = self._send(payload, timestamp, False, now, None)
        if downlink.report is not None:
            self._report_played(downlink)
        return became

    def send(self, message: DataMessage, now: float) -> None:
        if message.channel < FIRST_CONTROLLER:
            self.channels.send(message.channel, message.data, now)
        elif self.controllers is not None:
            self.controllers.send(message.channel, message.data)

    def flush(self, now: float) -> None:
        if (downlink := self._make_downlink()) is not None:
            downlink.flush(now, hush=self._flowing)
            self._report_played(downlink)

    def stalled(self, seconds: float, now: float) -> None:
        if self._downlink is not None:
            self._downlink.stalled(seconds, now)

    @property
    def is_playing(self) -> bool:
        return self._downlink is not None and self._downlink.playing

    def next_pace(self) -> float:
        """When `pace` has something to do."""
        return self._downlink.next_action() if self._downlink is not None and self.flowing else math.inf

    def pace(self, now: float, route: Route | None, late: float = 0.0) -> int:
        """Send what is due, `late` seconds after the pacer's time, by the route if there is one: DONE, or SETTLE, when the peer
        has something to say."""
        downlink, became = self._downlink, DONE
        if downlink is None or not self.flowing:
            return became
        for payload, timestamp, marker in downlink.take_due(now, late):
            if not self._sends:
                self.drops["agent_audio_held"] += 1
                self._held = True
            elif self._send(payload, timestamp, marker or self._held, now, route) != DONE:
                became = SETTLE
        if downlink.report is not None:
            self._report_played(downlink)
        return became

    def _send(self, payload: bytes, timestamp: int, marker: bool, now: float, route: Route | None) -> int:
        if route is not None:
            outlet, room = route.outlet, len(payload) + SEND_ROOM
            if room <= outlet.room:
                length = route.lane.send(outlet.arena, outlet.reserve(room), payload, timestamp, marker, now)
                if length:
                    outlet.commit(route.target, abs(length))
                    self._held = False
                    return DONE if length > 0 else SETTLE
        if self._peer.send_audio(payload, timestamp, now, marker):
            self.has_spoken = True
            self._held = False
        else:
            self.drops["unsent"] += 1
        return SETTLE

    def _report_played(self, downlink: Downlink) -> None:
        report = downlink.take_report()
        if report is not None and self.attachment is not None:
            self.attachment.played(report)

    def all_drops(self) -> Counter[str]:
        drops = self.drops.copy()
        if self.uplink is not None:
            drops.update({f"uplink_{reason}": count for reason, count in self.uplink.drops.items()})
        if self._downlink is not None:
            drops.update({f"downlink_{reason}": count for reason, count in self._downlink.drops.items()})
        return drops
