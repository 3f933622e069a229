"""A DTLS 1.2 association: RFC 6347. Routes between records, fragments, the handshake and the owner.

A datagram comes in:
1. It is split into records; damage hides only what follows it.
2. Epoch 0 (in the clear): handshake fragments go to the reassembly, ChangeCipherSpec is noted, alerts are suspected.
3. Epoch 1: opened once there are keys, the peer's ChangeCipherSpec has come and, for application data, the handshake is
   done; until then a few records are held, since datagrams overtake each other.
4. Whole messages go to the handshake, whose actions are carried out here: send a flight, install keys, done.

What nobody has authenticated cannot end an association:
* Bad records are dropped and counted (RFC 6347 §4.1.2.7), on an established association also every plaintext one, and
  during the handshake every message that may not come yet. Only a message of the right kind and number with bad
  contents is fatal: without keys it cannot be told from the peer's own.
* A plaintext alert during the handshake may be the peer's or anybody's. It is believed only if the peer then stays
  silent for a second and two retransmissions: a real one costs that second, a forged one nothing.
* A ClientHello on an established association changes nothing (RFC 6347 §4.2.8), and there is no renegotiation
  (RFC 8827 §6.5): who asks for it under the keys gets the no_renegotiation warning, once.
"""

from __future__ import annotations

import math
from collections import Counter
from enum import Enum, auto

from protocol.dtls.alerts import Alert, AlertDescription, AlertLevel, parse_alert_untrusted
from protocol.dtls.client12 import Client12
from protocol.dtls.epochs12 import Epochs12
from protocol.dtls.events import ApplicationData, Closed, Connected, Datagram, Output, Role, SrtpKeys
from protocol.dtls.flights import Retransmitter
from protocol.dtls.fragments import Fragment, HandshakeMessage, Reassembler, parse_fragments_untrusted
from protocol.dtls.handshake12 import (
    Action,
    Established,
    Handshake12,
    InstallRead,
    InstallWrite,
    Parameters,
    SendFlight,
)
from protocol.dtls.record12 import EPOCH_SHIFT, Record, split_records_untrusted
from protocol.dtls.registry import ContentType, HandshakeType
from protocol.dtls.schedule12 import Schedule12
from protocol.dtls.server12 import Server12
from protocol.errors import DecodeError, LocalError, RemoteError
from protocol.fsm import Cell, Machine, Region, to
from protocol.srtp.profiles import profile_lengths

__all__ = ["Association12"]

# Specification constants

_VERSION = "DTLS 1.2"
_CHANGE_CIPHER_SPEC = b"\1"
_SRTP_LABEL = b"EXTRACTOR-dtls_srtp"  # RFC 5764 §4.2

# Implementation constants

_MAXIMUM_HELD = 8  # records of epoch 1 that came too early; further ones are dropped, the peer sends them again
_MAXIMUM_HELD_BYTES = 16_384
_SUSPICIONS = 2  # retransmissions without an answer that confirm a plaintext alert,
_SUSPICION_TIME = 1.0  # and seconds since it came: longer than any round trip on which a call would be bearable

_APPLICATION_DATA = int(ContentType.APPLICATION_DATA)


class Life(Enum):
    IDLE = auto()
    HANDSHAKING = auto()
    CONNECTED = auto()
    CLOSED = auto()


class _Begun: ...


class _Completed: ...


class _Ended: ...


# HANDSHAKING can wait for ever only on paper: `handshake_timeout` ends it. CONNECTED is watched by the peer layer
# (consent), since DTLS itself has no keep-alive.
_TABLE = Region(
    name="dtls12-association",
    initial=Life.IDLE,
    events=(_Begun, _Completed, _Ended),
    rows={
        Life.IDLE: (to(Life.HANDSHAKING), Cell.ILLEGAL, to(Life.CLOSED)),
        Life.HANDSHAKING: (Cell.IGNORE, to(Life.CONNECTED), to(Life.CLOSED)),
        Life.CONNECTED: (Cell.IGNORE, Cell.ILLEGAL, to(Life.CLOSED)),
        Life.CLOSED: (Cell.IGNORE, Cell.ILLEGAL, Cell.IGNORE),
    },
)


class Association12:
    def __init__(self, role: Role, parameters: Parameters, drops: Counter[str]) -> None:
        self._config = parameters.config
        self._is_client = role is Role.CLIENT
        self._machine = Machine((_TABLE,))
        self._handshake: Handshake12 = Client12(parameters) if self._is_client else Server12(parameters)
        verified = parameters.verified
        self._epochs = Epochs12(verified.record_sequence if verified else 0)
        self._retransmitter = Retransmitter(parameters.config, self._epochs)
        self._reassembler = Reassembler(drops, verified.message_sequence if verified else 0)
        self._drops = drops
        self._outputs: list[Output] = []
        self._schedule: Schedule12 | None = None
        self._answers: dict[int, HandshakeMessage] = {}  # what our flight answered, by message number
        self._held: list[Record] = []
        self._held_bytes = 0
        self._change_cipher_spec_seen = False
        self._suspected_alert: int | None = None
        self._suspicions = 0
        self._suspected_at = 0.0
        self._refused_renegotiation = False
        self._deadline = math.inf

    # The verbs

    @property
    def life(self) -> Life:
        return self._machine.state(Life)

    @property
    def retransmissions(self) -> int:
        return self._retransmitter.repetitions

    def start(self, now: float) -> None:
        if self.life is not Life.IDLE:
            if self._is_client:
                raise LocalError("a client starts once")
            return  # a server begins by itself with the first hello
        self._begin(now)
        self._perform(self._handshake.start(), now)

    def receive_untrusted(self, data: bytes, now: float) -> None:
        life = self.life
        if life is Life.CLOSED or (life is Life.IDLE and self._is_client):
            self._drops["not_open"] += 1
            return
        records, damage = split_records_untrusted(data)
        if damage:
            self._drops[damage] += 1
        try:
            for record in records:
                self._take(record, now)
                if self.life is Life.CLOSED:
                    return
            self._release_held(now)
        except RemoteError as error:
            self._fail(error)

    def handle_timeout(self, now: float) -> None:
        if self.life is not Life.HANDSHAKING:
            return
        if now >= self._deadline:
            self._close("handshake_timeout", None, by_peer=False)
        elif now >= self._retransmitter.deadline:
            if self._suspected_alert is not None:
                self._suspicions += 1
                if self._suspicions >= _SUSPICIONS and now - self._suspected_at >= _SUSPICION_TIME:
                    self._close("alert_received", self._suspected_alert, by_peer=True)
                    return
            self._emit(self._retransmitter.handle_timeout(now))

    def next_timeout(self) -> float:
        return min(self._deadline, self._retransmitter.deadline)

    def poll(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self) -> None:
        """Says goodbye if there is anybody to say it to."""
        life = self.life
        if life is Life.CLOSED:
            return
        if life is not Life.IDLE:
            self._say_alert(AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY)
        self._close("local_close", None, by_peer=False)

    def send(self, data: bytes) -> None:
        if self.life is not Life.CONNECTED:
            raise LocalError("not connected")
        if len(data) > self.maximum_application_data:
            raise LocalError(f"{len(data)} bytes do not fit one record of {self._config.mtu} bytes")
        self._outputs.append(Datagram(self._epochs.seal(_APPLICATION_DATA, data)))

    @property
    def maximum_application_data(self) -> int:
        return self._config.mtu - self._epochs.overhead(1)

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        if self._schedule is None or self.life is not Life.CONNECTED:
            raise LocalError("nothing to export before the handshake is done")
        return self._schedule.export(label, context, length)

    # Records

    def _take(self, record: Record, now: float) -> None:
        epoch = record.number >> EPOCH_SHIFT
        try:
            if epoch == 1:
                self._take_protected(record, now)
            elif epoch == 0:
                self._take_clear(record, now)
            else:
                raise DecodeError("record_epoch")
        except DecodeError as error:
            self._drops[error.reason] += 1

    def _take_protected(self, record: Record, now: float) -> None:
        content_type = record.content_type
        if not self._is_readable(content_type):
            self._hold(record)
            return
        payload = self._epochs.open_untrusted(record)
        if content_type == _APPLICATION_DATA:
            self._outputs.append(ApplicationData(payload))
        elif content_type == ContentType.HANDSHAKE:
            for fragment in parse_fragments_untrusted(payload):
                self._take_fragment(fragment, now, is_proven=True)
        elif content_type == ContentType.ALERT:
            self._take_alert(parse_alert_untrusted(payload))
        else:
            raise DecodeError("record_content")

    def _is_readable(self, content_type: int) -> bool:
        if self.life is Life.CONNECTED:
            return True
        ready = self._change_cipher_spec_seen and self._epochs.can_read
        return ready and content_type != _APPLICATION_DATA

    def _hold(self, record: Record) -> None:
        size = len(record.fragment)
        if self.life is Life.IDLE or len(self._held) >= _MAXIMUM_HELD or self._held_bytes + size > _MAXIMUM_HELD_BYTES:
            raise DecodeError("record_early")
        self._held.append(record)
        self._held_bytes += size

    def _release_held(self, now: float) -> None:
        """Takes again what has become readable; that may make more readable, so until nothing changes."""
        while self._held:
            ready = [record for record in self._held if self._is_readable(record.content_type)]
            if not ready:
                return
            self._held = [record for record in self._held if not self._is_readable(record.content_type)]
            self._held_bytes = sum(len(record.fragment) for record in self._held)
            for record in ready:
                self._take(record, now)
                if self.life is Life.CLOSED:
                    return

    def _take_clear(self, record: Record, now: float) -> None:
        content_type = record.content_type
        if content_type == ContentType.HANDSHAKE:
            for fragment in parse_fragments_untrusted(record.fragment):
                self._take_fragment(fragment, now, is_proven=False)
        elif content_type == ContentType.CHANGE_CIPHER_SPEC:
            expected = self.life is Life.HANDSHAKING and self._handshake.expects_change_cipher_spec
            if not expected or record.fragment != _CHANGE_CIPHER_SPEC:
                raise DecodeError("change_cipher_spec")
            self._change_cipher_spec_seen = True
        elif content_type == ContentType.ALERT:
            self._suspect(parse_alert_untrusted(record.fragment), now)
        else:
            raise DecodeError("record_content")

    # Handshake messages

    def _take_fragment(self, fragment: Fragment, now: float, *, is_proven: bool) -> None:
        answered = self._answers.get(fragment.sequence)
        if answered is not None and fragment.offset == 0 and answered.is_repeated_by(fragment):
            self._emit(self._retransmitter.repeat(now, is_proven=is_proven))
        life = self.life
        if life is Life.CONNECTED:
            self._drops["handshake_after_connected"] += 1
            if is_proven and fragment.message_type in (HandshakeType.CLIENT_HELLO, HandshakeType.HELLO_REQUEST):
                self._refuse_renegotiation()
            return
        # Finished is the one message that must come under the keys, and the only one that may (RFC 5246 §7.4.9).
        if is_proven != (fragment.message_type == HandshakeType.FINISHED):
            raise DecodeError("message_epoch")
        self._begin(now)
        self._reassembler.add(fragment)
        for message in self._reassembler.messages(self._handshake.expects):
            self._suspected_alert, self._suspicions = None, 0
            self._perform(self._handshake.receive(message), now)

    def _begin(self, now: float) -> None:
        if self.life is Life.IDLE:
            self._machine.fire(_Begun())
            self._deadline = now + self._config.handshake_timeout

    def _perform(self, actions: list[Action], now: float) -> None:
        for action in actions:
            match action:
                case SendFlight():
                    self._answers = {message.sequence: message for message in action.answers}
                    self._emit(self._retransmitter.send(action.items, now, is_final=action.is_final))
                case InstallRead():
                    self._epochs.install_read(action.protection)
                case InstallWrite():
                    self._epochs.install_write(action.protection)
                case Established():
                    self._establish(action)

    def _establish(self, action: Established) -> None:
        self._machine.fire(_Completed())
        self._deadline = math.inf
        if self._is_client:
            self._retransmitter.stop()
            self._answers = {}
        self._schedule = action.schedule
        suite = action.schedule.suite
        self._outputs.append(Connected(self._srtp_keys(action), suite.name, action.group.name, _VERSION))

    def _srtp_keys(self, action: Established) -> SrtpKeys | None:
        """RFC 5764 §4.2: client key, server key, client salt, server salt."""
        if action.srtp_profile is None:
            return None
        key, salt = profile_lengths(action.srtp_profile)
        block = action.schedule.export(_SRTP_LABEL, None, 2 * (key + salt))
        client = block[:key] + block[2 * key : 2 * key + salt]
        server = block[key : 2 * key] + block[2 * key + salt :]
        local, remote = (client, server) if self._is_client else (server, client)
        return SrtpKeys(action.srtp_profile, local, remote)

    # Alerts and the end

    def _take_alert(self, alert: Alert) -> None:
        """An alert under the keys."""
        if alert.description == AlertDescription.CLOSE_NOTIFY:
            if self._epochs.write_epoch == 1:
                self._say_alert(AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY)  # RFC 5246 §7.2.1
            self._close("close_notify", alert.description, by_peer=True)
        elif alert.ends_association:
            self._close("alert_received", alert.description, by_peer=True)

    def _suspect(self, alert: Alert, now: float) -> None:
        """An alert in the clear."""
        if self.life is not Life.HANDSHAKING or not alert.ends_association:
            raise DecodeError("alert_in_clear")
        self._drops["alert_suspected"] += 1
        if self._suspected_alert is None:
            self._suspected_alert, self._suspected_at = alert.description, now

    def _refuse_renegotiation(self) -> None:
        if not self._refused_renegotiation:
            self._refused_renegotiation = True
            self._say_alert(AlertLevel.WARNING, AlertDescription.NO_RENEGOTIATION)

    def _fail(self, error: RemoteError) -> None:
        self._say_alert(AlertLevel.FATAL, error.code)
        self._close(error.reason, error.code, by_peer=False)

    def _say_alert(self, level: int, description: int) -> None:
        payload = Alert(level, description).encode()
        epochs = self._epochs
        seal = epochs.seal if epochs.write_epoch else epochs.seal_clear
        self._emit([seal(ContentType.ALERT, payload)])

    def _emit(self, datagrams: list[bytes]) -> None:
        self._outputs += [Datagram(datagram) for datagram in datagrams]

    def _close(self, reason: str, alert: int | None, *, by_peer: bool) -> None:
        self._machine.fire(_Ended())
        self._deadline = math.inf
        self._retransmitter.stop()
        self._answers = {}
        self._held.clear()
        self._schedule = None
        self._outputs.append(Closed(reason, alert, by_peer))
