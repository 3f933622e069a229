"""The link to one agent: one WebSocket that carries all our calls with it, made again whenever it breaks.

1. Connect, say `hello`, wait for the agent's; from then on calls can be opened.
2. Reader: control messages and media go to the engine's inbox, by the handle of their call.
3. Writer: what has gathered leaves together, the frames of all calls first, as one binary message in every write: audio
   waits for nobody's words. Then control and data, as many as take little time. The busier the link, the longer it gathers
   (gather.py). While a message is being written, the next gathers: a slow line makes messages larger, not more.
4. Pings: an agent that does not answer is gone.
5. When the link ends, every call on it is told `Lost`, and the link is made again, later each time it fails.

Bounds: frames wait in each call's uplink (a second at most), messages here, by bytes for a call and for the link; a call's
data waits with the caller while much of it waits here, or the link is full (`LinkAttachment.has_room`). A call that exceeds
its share all the same loses its newest messages, words about its channels last. While half of what may wait for the link
does, it takes no new calls, no data, and few words of each call; an agent that does not read at all loses the link.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import msgspec
import trio

from protocol.agentlink import (
    LINK_VERSION,
    MAX_MESSAGE_BYTES,
    AgentDrain,
    AgentHello,
    AgentMessage,
    CallAccept,
    CallEnd,
    CallFlush,
    CallPlayed,
    CallRefuse,
    CallStart,
    DataMessage,
    Drain,
    MediaRecord,
    PlayedReports,
    TransceiverHello,
    decode_agent_message_untrusted,
    decode_binary_untrusted,
    encode_media,
    encode_message,
    encode_played,
)
from protocol.errors import DecodeError, LocalError
from service import websocket
from service.logs import get_logger
from service.websocket import HandshakeError, Message, WebSocket, WebSocketClosed
from transceiver.backends.attachment import MAX_CALL_BYTES, MAX_CALL_CONTROL_BYTES, REPORT_BYTES, LinkAttachment
from transceiver.backends.base import Accepted, BackendEvent, Call, Ended, Flushed, Inbox, Lost, MediaFrame, Refused
from transceiver.backends.gather import GatherPace

__all__ = ["AgentLink"]

log = get_logger()

# Implementation constants, in seconds and bytes
CONNECT_SECONDS = 5.0
HELLO_SECONDS = 5.0
PING_SECONDS = 5.0  # between pings, and for the answer to each
RETRY_FIRST, RETRY_LONGEST = 0.1, 2.0
MAX_LINK_BYTES = 16 * 1024 * 1024  # of all messages that wait
FULL_LINK = (
    0.5  # share of it beyond which only words are taken, no data: a few calls must not cost all of them their link
)
FULL_LINK_CALL_BYTES = 64 * 1024  # and of each call only so many bytes
MESSAGE_OVERHEAD = 64
WRITE_BYTES = 64 * 1024  # of control and data in one write
GOING_AWAY = 1001  # RFC 6455 §7.4.1
WRITE_MESSAGES = 16  # the same: 0.1 ms each, and as much for the agent to read


class AgentLink:
    """`run` in a nursery of the supervisor; `open` when `is_usable`."""

    def __init__(
        self, url: str, identity: str, inbox: Inbox, on_up: Callable[[], None], gather_seconds: float = 0.0
    ) -> None:
        self.url = url
        self.address = urlsplit(url)
        self.agent = ""  # its name, once it has said it
        self.also: tuple[str, ...] = ()  # others behind it, to be named by a session's `model`
        self.codecs: tuple[str, ...] = ()  # what they understand; empty: anything
        self.sessions: tuple[str, ...] = ()  # those of them that serve sessions by WebSocket
        self.sockets = 0  # of such sessions, now
        self.connected = False
        self.draining = False
        self.connects = 0
        self.drops: Counter[str] = Counter()
        self.with_audio: dict[LinkAttachment, None] = {}
        self.reports: list[tuple[CallPlayed, LinkAttachment]] = []
        self._identity = identity
        self._inbox = inbox
        self._on_up = on_up
        self._attachments: dict[int, LinkAttachment] = {}
        self._next_handle = 1
        self._queue: deque[tuple[str | bytes, LinkAttachment | None]] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._pace = GatherPace(gather_seconds)
        self._writing = False
        self._written = trio.Event()
        self._connection: trio.CancelScope | None = None
        self._socket: WebSocket | None = None  # while the agent can be spoken to
        self._leaving = False
        self._goodbye = trio.CancelScope()

    @property
    def is_usable(self) -> bool:
        return self.connected and not self.draining and not self.is_full

    @property
    def is_full(self) -> bool:
        return self._queued_bytes > MAX_LINK_BYTES * FULL_LINK

    @property
    def calls(self) -> int:
        return len(self._attachments)

    @property
    def load(self) -> int:
        """Calls, and sessions beside the link."""
        return len(self._attachments) + self.sockets

    def open(self, call: Call) -> LinkAttachment:
        """Offer a call; the answer comes to the inbox."""
        handle = self._next_handle
        self._next_handle = handle + 1 & 0xFFFFFFFF or 1
        codec = call.codec
        start = CallStart(
            handle=handle,
            call_id=call.call_id,
            codec=codec.name if codec else "",
            clock_rate=codec.clock_rate if codec else 0,
            channels=codec.channels if codec else 0,
            client=call.client,
            expires_at=call.expires_at,
        )
        try:
            session = None if call.session is None else msgspec.json.decode(call.session)
            message = encode_message(msgspec.structs.replace(start, session=session))
        except (LocalError, RecursionError):  # JSON escapes have made it too large, or it is nested too deeply
            self.drops["session_oversize"] += 1
            message = encode_message(start)
        attachment = self._attachments[handle] = LinkAttachment(self, call, handle)
        self.put(message, attachment, MAX_CALL_CONTROL_BYTES)
        return attachment

    def drain(self) -> None:
        """We are leaving."""
        if self.connected:
            self.put(encode_message(Drain()), None)

    def flush(self) -> None:
        """A turn of the engine is over: let the writer take what it brought."""
        if self._queue or self.with_audio or self.reports:
            self._wake.set()

    async def wait_written(self) -> None:
        """Until everything that waited has been sent, or the link is down."""
        while self.connected and (self._queue or self.reports or self._writing):
            self._written = trio.Event()
            await self._written.wait()

    async def close(self) -> None:
        """Say goodbye to the agent, for good. Callers limit the time."""
        self._leaving = True
        if self._socket is not None:
            with self._goodbye:  # `run` may see the agent's answer first, and end what would have told us
                await self._socket.close(GOING_AWAY, "the transceiver is going away")

    # Attachments

    def put(self, message: str | bytes, attachment: LinkAttachment | None, share: int = MAX_CALL_BYTES) -> None:
        """Queue a message; those with an attachment count against its share, in bytes."""
        cost = len(message) + MESSAGE_OVERHEAD
        if attachment is not None:
            if self.is_full:
                share = min(share - MAX_CALL_BYTES, FULL_LINK_CALL_BYTES)  # nothing but words
            if not self.has_room(attachment, cost, share):
                return
        self._queue.append((message, attachment))
        self._queued_bytes += cost
        if self._queued_bytes > MAX_LINK_BYTES and self._connection is not None:
            self.drops["link_share"] += 1
            log.warning("the agent does not read; closing the link", agent=self.url)
            self._connection.cancel()
        self._wake.set()

    def has_room(self, attachment: LinkAttachment, cost: int, share: int) -> bool:
        """Take so many bytes of the call's share, if they are left of it."""
        if attachment.waiting_bytes + cost > share:
            self.drops["call_share"] += 1
            return False
        attachment.waiting_bytes += cost
        return True

    def forget(self, attachment: LinkAttachment) -> None:
        self.with_audio.pop(attachment, None)
        self._attachments.pop(attachment.handle, None)

    # The connection

    async def run(self) -> None:
        """Keep the link up, until cancelled or closed."""
        delay = RETRY_FIRST
        while True:
            began = trio.current_time()
            try:
                with trio.CancelScope() as self._connection:
                    await self._connect()
            except* (OSError, HandshakeError, WebSocketClosed, trio.TooSlowError, DecodeError) as group:
                if not self._leaving:
                    log.info("no link to the agent", agent=self.url, error=repr(_first(group)))
            except* Exception as group:  # noqa: BLE001 - libraries raise many kinds for what is not quite a WebSocket
                self.drops["link_failed"] += 1
                log.warning("the link to the agent failed", agent=self.url, error=repr(_first(group)))
            finally:
                self._connection = None
                self._lose_calls()
            if self._leaving:
                self._goodbye.cancel()
                return
            if trio.current_time() - began > RETRY_LONGEST:
                delay = RETRY_FIRST
            await trio.sleep(delay * random.uniform(0.75, 1.25))
            delay = min(delay * 2, RETRY_LONGEST)

    async def _connect(self) -> None:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await self.dial()
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT_SECONDS):
                    target = urlunsplit(("", "", self.address.path or "/", self.address.query, ""))
                    socket = await websocket.connect(
                        nursery, stream, self.address.netloc, target, max_message_bytes=MAX_MESSAGE_BYTES
                    )
                await self._greet(socket)
                nursery.start_soon(self._write, socket)
                nursery.start_soon(socket.keep_alive, PING_SECONDS, PING_SECONDS)
                while True:
                    self._on_message(await socket.receive())
        finally:
            await trio.aclose_forcefully(stream)

    async def dial(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        """Raises OSError."""
        host = self.address.hostname or ""
        if self.address.scheme == "wss":
            return await trio.open_ssl_over_tcp_stream(host, self.address.port or 443, https_compatible=True)
        return await trio.open_tcp_stream(host, self.address.port or 80)

    async def _greet(self, socket: WebSocket) -> None:
        await socket.send([encode_message(TransceiverHello(LINK_VERSION, self._identity))])
        with trio.fail_after(HELLO_SECONDS):
            first = await socket.receive()
        hello = decode_agent_message_untrusted(first)
        if not isinstance(hello, AgentHello):
            raise DecodeError("link_no_hello")
        if hello.version != LINK_VERSION:
            raise DecodeError("link_version", str(hello.version))
        self.agent, self.also, self.codecs = hello.agent, hello.also, hello.codecs
        self.sessions = hello.sessions
        self.connected, self.draining = True, False
        self.connects += 1
        self._socket = socket
        self._on_up()
        log.info("link to the agent is up", agent=self.url, name=hello.agent)

    def _lose_calls(self) -> None:
        self.connected = self._writing = False
        self._socket = None
        self._written.set()
        attachments = list(self._attachments.values())
        self._attachments.clear()
        self.with_audio.clear()
        self._queue.clear()
        self.reports.clear()
        self._queued_bytes = 0
        for attachment in attachments:
            attachment.ended = True
            self._inbox.post(attachment.call, attachment, Lost())

    async def _write(self, socket: WebSocket) -> None:
        while True:
            self._writing = False
            self._written.set()
            await self._wake.wait()
            self._wake = trio.Event()
            self._writing = True
            await trio.sleep_until(self._pace.due)
            self._pace.count(len(self.with_audio), trio.current_time())
            while messages := self._take_messages():
                await socket.send(messages)

    def _take_messages(self) -> list[str | bytes]:
        """For one write: the audio of all calls, reports, then of what waits of control and data what a write may take."""
        messages: list[str | bytes] = list(encode_media(self._take_audio()))
        reports, self.reports = self.reports, []
        for _, reporter in reports:
            reporter.waiting_bytes -= REPORT_BYTES
        messages += encode_played([report for report, _ in reports])
        size, last = 0, len(messages) + WRITE_MESSAGES
        while self._queue and size < WRITE_BYTES and len(messages) < last:
            message, attachment = self._queue.popleft()
            cost = len(message) + MESSAGE_OVERHEAD
            size += cost
            self._queued_bytes -= cost
            if attachment is not None:
                attachment.waiting_bytes -= cost
            messages.append(message)
        return messages

    def _take_audio(self) -> list[MediaRecord]:
        records: list[MediaRecord] = []
        for attachment in self.with_audio:
            if attachment.call.uplink is not None:
                records += attachment.call.uplink.take(attachment.handle)
        self.with_audio.clear()
        return records

    def _on_message(self, message: Message) -> None:
        try:
            if isinstance(message, str):
                self._on_control(decode_agent_message_untrusted(message))
            else:
                self._on_binary(message)
        except DecodeError as error:
            self.drops[error.reason] += 1

    def _on_binary(self, message: bytes) -> None:
        content = decode_binary_untrusted(message)
        if isinstance(content, DataMessage):
            self._post(content.handle, content)
            return
        if isinstance(content, PlayedReports):
            raise DecodeError("link_unknown_kind")  # it is for the other direction
        attachments = self._attachments
        frames: list[MediaFrame] = []
        for record in content:
            attachment = attachments.get(record.handle)
            if attachment is None:
                self.drops["unknown_handle"] += 1
            else:
                frames.append((attachment.call, attachment, record))
        if frames:
            self._inbox.post_media(frames)

    def _on_control(self, message: AgentMessage) -> None:
        match message:
            case CallAccept():
                self._post(message.handle, Accepted())
            case CallRefuse():
                self._post(message.handle, Refused(message.reason), last=True)
            case CallFlush():
                self._post(message.handle, Flushed())
            case CallEnd():
                self._post(message.handle, Ended(message.reason), last=True)
            case AgentDrain():
                self.draining = True
            case AgentHello():
                raise DecodeError("link_second_hello")

    def _post(self, handle: int, event: BackendEvent, *, last: bool = False) -> None:
        attachment = self._attachments.get(handle)
        if attachment is None:  # its end and ours crossed on the way
            self.drops["unknown_handle"] += 1
            return
        if last:
            if isinstance(event, Ended):
                attachment.end("agent_ended")  # the handle is free once both sides have said so
            attachment.ended = True
            self.forget(attachment)
        self._inbox.post(attachment.call, attachment, event)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
