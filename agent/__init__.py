"""The agent side: an ordinary service that hears and speaks audio frames and messages, and knows nothing of WebRTC.

    async def agent(call: Call) -> None:
        async for frame in call.frames():
            await call.send_frame(frame.payload)

Run it with `python -m agent --agent module:agent`. The API is `Call` and its events; docs/agent.md tells it whole.
"""

from agent.call import Call
from agent.codecs import CodecUnavailable, Decoder, Encoder, needs_pcm
from agent.events import CallEnded, ChannelClosed, ChannelOpened, Digit, Draining, Event, Frame, Message, Played
from agent.live import Agent
from agent.server import AgentServer
from agent.voice import Turn, VoiceActivity
from protocol.agentlink import CallClient, PlayedReason

__all__ = [
    "Agent",
    "AgentServer",
    "Call",
    "CallClient",
    "CallEnded",
    "ChannelClosed",
    "ChannelOpened",
    "CodecUnavailable",
    "Decoder",
    "Digit",
    "Draining",
    "Encoder",
    "Event",
    "Frame",
    "Message",
    "Played",
    "PlayedReason",
    "Turn",
    "VoiceActivity",
    "needs_pcm",
]
