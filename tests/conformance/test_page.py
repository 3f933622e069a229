"""The page with an agent that speaks the Realtime API: what was said, when, and what the agent did, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import running_stack
from test_browsers import call
from test_parrot import write_voice  # noqa: F401 - a fixture
from test_realtime_sdk import ORDER, spoken_order  # noqa: F401 - a fixture

HERE = Path(__file__).parent
# The agent has said so to its end: before, nothing else can be asked of it.
TOLD = "antiphon.talk.some(({ who, words, state }) => who === 'agent' && words === %s && state === 'done')"
SAID = "document.querySelector('#transcript').innerText"


@pytest.mark.thorough
async def test_the_page_shows_what_is_said_when_and_which_functions_are_called(browser, write_voice):  # noqa: F811
    voice = write_voice(1500, 6000)  # and again, into the answer
    addresses = browser.addresses | {"PYTHONPATH": str(HERE)}
    async with running_stack("--agent", "talking_agent:agent", **addresses) as stack, browser.open(voice) as page:
        await call(page, stack.url, until="channel")
        await page.wait_for("antiphon.lights.kitchen")
        assert await page.evaluate("antiphon.lights.hall") is False
        await page.wait_for("antiphon.talk.some((entry) => entry.heard !== null)")  # the caller spoke over the answer
        entries = await page.evaluate("antiphon.talk")
        yours, first, second = entries[:3]
        assert (yours["who"], yours["words"]) == ("you", "light in the kitchen")
        assert (first["who"], first["words"]) == ("agent", "You said 'light in the kitchen'.")
        assert second["words"].startswith("The light in the kitchen")
        assert 0 < second["heard"] < len(second["words"])
        said = await page.evaluate(SAID)
        assert 'set_light({"room": "kitchen", "on": true}) → {"kitchen":true' in said
        for told in ("spoke ", "answer after ", "interrupted after "):
            assert told in said
        struck = await page.evaluate("document.querySelector('#transcript s').textContent")
        assert struck == second["words"][second["heard"] :]


@pytest.mark.thorough
async def test_what_is_written_on_the_page_is_answered(chromium):
    addresses = chromium.addresses | {"PYTHONPATH": str(HERE)}
    async with running_stack("--agent", "talking_agent:agent", **addresses) as stack, chromium.open() as page:
        await call(page, stack.url, until="channel")
        await page.wait_for("!document.querySelector('#talk').hidden")
        await page.evaluate(
            "(() => {document.querySelector('#text').value = 'hello'; document.querySelector('#compose').requestSubmit()})()"
        )
        await page.wait_for("antiphon.talk.some((entry) => entry.words === \"You said 'hello'.\")")
        assert await page.evaluate("antiphon.talk[0].words") == "hello"
        await page.wait_for("antiphon.lights.kitchen")


@pytest.mark.thorough
async def test_the_offline_voice_switches_the_pages_light_and_says_so(chromium, spoken_order: Path):  # noqa: F811
    async with running_stack("--agent", "voice", **chromium.addresses) as stack, chromium.open(spoken_order) as page:
        await call(page, stack.url, until="channel")
        await page.wait_for("antiphon.lights.kitchen", 40)
        # The microphone's file begins again; that is not for this test.
        await page.evaluate("antiphon.pc.getSenders().forEach(({ track }) => { if (track) track.enabled = false; })")
        await page.wait_for(TOLD % "'The light in the kitchen is on.'")
        said = await page.evaluate(SAID)
        heard = await page.evaluate("antiphon.talk.find((entry) => entry.who === 'you').words")
        assert heard.lower() in ORDER.lower()
        assert heard in said
        assert "The light in the kitchen is on." in said
        assert said.count("set_light(") == 1

        # What is written, too: all of them, by one call; and which are on is asked of the page.
        for text, answered in (
            ("turn all lights off", "All lights are off."),
            ("turn all lights on", "All lights are on."),
            ("turn off the light in the hall", "The light in the hall is off."),
            ("which lights are on", "The light is on in the kitchen, living room, bedroom and bathroom."),
        ):
            write = f"document.querySelector('#text').value = '{text}'"
            await page.evaluate(f"({write}, document.querySelector('#compose').requestSubmit(), true)")
            await page.wait_for(TOLD % repr(answered))
        said = await page.evaluate(SAID)
        assert said.count("set_light(") == 4
        assert said.count("get_lights(") == 1


CONFIGURED = """(async () => {
  const { Talk } = await import("./talk.js");
  const sent = [];
  const talk = new Talk((event) => sent.push(event), { light: { description: "", parameters: {}, run: () => true } });
  for (const id of ["sess_1", "sess_1", "sess_2", "sess_2"]) talk.receive({ type: "session.created", session: { id } });
  return sent.map((event) => [event.type, event.session.tools.map((tool) => tool.name)]);
})()"""


async def test_the_page_configures_each_session_once_and_that_of_an_agent_that_takes_over_too(chromium):
    async with running_stack("--agent", "echo", **chromium.addresses) as stack, chromium.open() as page:
        await page.goto(stack.url)
        assert await page.evaluate(CONFIGURED) == [["session.update", ["light"]]] * 2
