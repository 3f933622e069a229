"""An agent of one's own, in twenty lines: it greets, tells how long somebody spoke, and hangs up when told to.

./just up --agent examples.greeter:greeter
"""

from agent import Call, ChannelOpened, Frame, Message, Turn, VoiceActivity, needs_pcm


@needs_pcm
async def greeter(call: Call) -> None:
    decoder = call.decoder()
    voice = VoiceActivity(decoder.rate)
    heard_ms = 0.0
    async for event in call:
        if isinstance(event, ChannelOpened):
            await call.send_message(f"Hello! This is call {call.id}; say something, or send me “bye”.")
        elif isinstance(event, Message) and event.data == "bye":
            await call.wait_played()
            await call.end("said_goodbye")
        elif isinstance(event, Frame):
            for turn in voice.feed(decoder.decode(event.payload)):
                if turn is Turn.STOPPED:
                    await call.send_message(f"You spoke for {(heard_ms - voice.silent_ms) / 1000:.1f} s.")
                heard_ms = 0.0
            heard_ms += event.duration_ms
            await call.send_frame(event.payload)
