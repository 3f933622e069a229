"""One link: the server's end of a WebSocket from one transceiver, with all the calls on it. It routes.

1. Both sides say `hello`; another version of the protocol is refused.
2. Text and binary messages go to their call by its handle. What cannot be decoded or has no call is counted and ignored.
3. Each call is a task in the link's nursery (live.py); one writer task writes for all of them (outbox.py).
4. Pings find out that the other side is gone. When the link is gone, its calls end with `link_lost`.
"""

from __future__ import annotations

import trio

from agent.live import Agent, LiveCall, names_over_websocket
from agent.outbox import Outbox
from agent.statistics import Statistics
from protocol.agentlink import (
    LINK_VERSION,
    AgentDrain,
    AgentHello,
    CallAccept,
    CallDigit,
    CallEnd,
    CallRefuse,
    CallStart,
    ChannelBlocked,
    ChannelClosed,
    ChannelOpen,
    ChannelWritable,
    DataMessage,
    Drain,
    PlayedReports,
    TransceiverHello,
    TransceiverMessage,
    decode_binary_untrusted,
    decode_transceiver_message_untrusted,
)
from protocol.codecs import codec_by_name
from protocol.errors import DecodeError
from service.logs import get_logger
from service.websocket import WebSocket, WebSocketClosed

__all__ = ["Link"]

log = get_logger()

# Implementation constants
HELLO_SECONDS = 5.0
PING_SECONDS = 5.0
PONG_SECONDS = 10.0
GOING_AWAY, PROTOCOL_ERROR = 1001, 1002  # RFC 6455 §7.4.1


class Link:
    def __init__(
        self,
        connection: WebSocket,
        agent: Agent,
        name: str,
        statistics: Statistics,
        max_calls: int,
        *,
        also: tuple[str, ...] = (),
    ) -> None:
        """`also`: the names of further agents that `agent` may hand a call to."""
        self._connection = connection
        self._agent = agent
        self._codecs: tuple[str, ...] = getattr(agent, "codecs", ())
        self._name = name
        self._also = also
        self._statistics = statistics
        self._max_calls = max_calls
        self._outbox = Outbox()
        self._calls: dict[int, LiveCall] = {}
        self._draining = False
        self._finished = trio.Event()

    async def run(self) -> None:
        """Until the link is gone and its calls have finished."""
        self._statistics.links += 1
        try:
            async with trio.open_nursery() as calls:
                try:
                    await self._converse(calls)
                finally:
                    for live in self._calls.values():
                        live.close("link_lost")
        finally:
            self._statistics.links -= 1

    def drain(self) -> None:
        """Ask for no new calls, and refuse them."""
        self._draining = True
        self._outbox.put_urgent(AgentDrain())
        self._note_finished()

    async def wait_finished(self) -> None:
        """After `drain`: until no call is left."""
        await self._finished.wait()

    async def close(self, reason: str) -> None:
        """End all calls, tell the transceiver, close the link."""
        for live in self._calls.values():
            live.end(reason)
        await self._outbox.wait_idle()
        await self._connection.close(GOING_AWAY, "the agent is going away")

    async def _converse(self, calls: trio.Nursery) -> None:
        sessions = names_over_websocket(self._agent, self._name)
        self._outbox.put_urgent(AgentHello(LINK_VERSION, self._name, self._codecs, self._also, sessions))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            nursery.start_soon(self._keep_alive, nursery.cancel_scope)
            if await self._is_greeted():
                await self._read(calls)
            nursery.cancel_scope.cancel()

    async def _is_greeted(self) -> bool:
        with trio.move_on_after(HELLO_SECONDS):
            try:
                hello = decode_transceiver_message_untrusted(await self._connection.receive())
            except WebSocketClosed:
                return False
            except DecodeError as error:
                self._drop(error.reason)
                hello = None
            if isinstance(hello, TransceiverHello) and hello.version == LINK_VERSION:
                log.info("link opened", transceiver=hello.transceiver)
                return True
        log.warning("link refused", why="no hello of this version of the protocol")
        with trio.move_on_after(HELLO_SECONDS):
            await self._connection.close(PROTOCOL_ERROR, f"expected a hello of version {LINK_VERSION}")
        return False

    async def _read(self, calls: trio.Nursery) -> None:
        while True:
            try:
                message = await self._connection.receive()
            except WebSocketClosed as closed:
                log.info("link closed", why=str(closed))
                return
            try:
                if isinstance(message, str):
                    self._receive_control(decode_transceiver_message_untrusted(message), calls)
                else:
                    self._receive_binary(message)
            except DecodeError as error:
                self._drop(error.reason)

    async def _write(self, link: trio.CancelScope) -> None:
        try:
            await self._outbox.write(self._connection.send)
        except WebSocketClosed:
            link.cancel()

    async def _keep_alive(self, link: trio.CancelScope) -> None:
        try:
            await self._connection.keep_alive(PING_SECONDS, PONG_SECONDS)
        except WebSocketClosed:
            return  # the reader sees it, too, after what still is to be read
        except trio.TooSlowError:
            log.warning("link lost", why="no answer to a ping")
            link.cancel()

    def _receive_binary(self, data: bytes) -> None:
        content = decode_binary_untrusted(data)
        if isinstance(content, DataMessage):
            self._statistics.messages_received += 1
            self._live(content.handle).receive_data(content)
            return
        calls, drop = self._calls, self._drop
        if isinstance(content, PlayedReports):
            for report in content.reports:
                live = calls.get(report.handle)
                if live is None or live.is_over:
                    drop("link_unknown_handle")
                else:
                    live.report_played(report)
            return
        self._statistics.frames_received += len(content)
        for record in content:
            live = calls.get(record.handle)
            if live is None or live.is_over:  # usual for a moment after we ended a call
                drop("link_unknown_handle")
                continue
            try:
                live.receive_frame(record)
            except DecodeError as error:  # of this one frame: the others belong to other calls
                drop(error.reason)

    def _receive_control(self, message: TransceiverMessage, calls: trio.Nursery) -> None:
        match message:
            case CallStart():
                self._start(message, calls)
            case CallDigit():
                self._live(message.handle).press(message.digit)
            case CallEnd():
                self._live(message.handle).close(message.reason)
            case ChannelOpen():
                self._live(message.handle).open_channel(message.channel, message.label, message.protocol)
            case ChannelClosed():
                self._live(message.handle).close_channel(message.channel)
            case ChannelBlocked():
                self._live(message.handle).block_channel(message.channel)
            case ChannelWritable():
                self._live(message.handle).unblock_channel(message.channel)
            case Drain():
                for live in list(self._calls.values()):
                    live.announce_drain()
            case TransceiverHello():
                raise DecodeError("link_second_hello")

    def _start(self, start: CallStart, calls: trio.Nursery) -> None:
        if start.handle in self._calls:
            raise DecodeError("link_handle_in_use")
        codec = codec_by_name(start.codec)
        refusal = self._why_refused(start, known=codec is not None or not start.codec)
        if refusal is not None:
            self._outbox.put_urgent(CallRefuse(start.handle, refusal))
            log.info("call refused", call=start.call_id, reason=refusal)
            return
        live = LiveCall(start, codec, self._outbox, self._statistics)
        self._calls[start.handle] = live
        self._statistics.calls_started += 1
        self._statistics.calls += 1
        self._outbox.put_urgent(CallAccept(start.handle))
        calls.start_soon(self._run, live)

    def _why_refused(self, start: CallStart, *, known: bool) -> str | None:
        if self._draining:
            return "agent_draining"
        if self._statistics.calls >= self._max_calls:
            return "agent_full"
        wanted = {name.lower() for name in self._codecs}
        if not known or (start.codec and wanted and start.codec.lower() not in wanted):
            return "codec_unsupported"
        return None

    async def _run(self, live: LiveCall) -> None:
        try:
            await live.run(self._agent)
        finally:
            self._statistics.calls -= 1
            del self._calls[live.handle]
            self._note_finished()

    def _live(self, handle: int) -> LiveCall:
        live = self._calls.get(handle)
        if live is None or live.is_over:  # usual for a moment after we ended a call
            raise DecodeError("link_unknown_handle")
        return live

    def _note_finished(self) -> None:
        if self._draining and not self._calls:
            self._finished.set()

    def _drop(self, reason: str) -> None:
        self._statistics.drops[reason] += 1
