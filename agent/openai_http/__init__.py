"""Parts of a voice agent that ask servers of the OpenAI API by HTTP: `[agent] recognizer, dialogue, speaker = "openai"`.

config.py      [agent.openai]: servers, models, keys, patience                  factories.py   from there to parts
client.py      one server: tries, answers in pieces, failures as sentences      retry.py   when it is asked again
dialogue.py    POST /chat/completions        sse.py, shapes.py   its stream     messages.py   what a session becomes
recognizer.py  POST /audio/transcriptions    speaker.py   POST /audio/speech    pcm.py   WAV
"""
