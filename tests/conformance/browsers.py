"""Real browsers for the tests, driven over their own debugging sockets: Chromium by the DevTools protocol, Firefox by
WebDriver BiDi. Both speak JSON over WebSocket, so trio-websocket is all it takes.

`async with open_chromium(wav) as page:` gives a page with `goto(url)` and `evaluate(javascript)`, the same for both.
The caller's voice is a WAV file: Chromium's fake microphone reads it; in Firefox it replaces `getUserMedia`'s stream.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")

START_SECONDS = 40
CALL_SECONDS = 60
MAX_MESSAGE = 64 * 1024 * 1024

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--mute-audio",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)

FIREFOX_PREFERENCES: dict[str, bool | int | str] = {
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.volume_scale": "0.0",
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage": "about:blank",
    "browser.startup.page": 0,
    "app.update.enabled": False,
    "app.normandy.enabled": False,
    "extensions.update.enabled": False,
    "network.manage-offline-status": False,  # a network namespace has no route to anywhere
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.prefetch-next": False,
    "services.settings.server": "data:,",
    "remote.active-protocols": 1,
    "remote.prefs.recommended": True,
}


class BrowserError(Exception):
    """The browser refused a command, or a script in the page threw."""


class Page:
    """One page: `goto`, `evaluate`. Scripts are expressions; promises are awaited; values come back as JSON."""

    def __init__(self, name: str, goto: Callable[[str], Awaitable[None]], run: Callable[[str], Awaitable[str]]) -> None:
        self.name = name
        self._goto = goto
        self._run = run

    async def goto(self, url: str) -> None:
        with trio.fail_after(START_SECONDS):
            await self._goto(url)

    async def evaluate(self, expression: str) -> Any:  # noqa: ANN401
        """The JSON value of a JavaScript expression (an async function's body: write `(async () => {…})()`)."""
        wrapped = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        with trio.fail_after(CALL_SECONDS):
            return json.loads(await self._run(wrapped))

    async def wait_for(self, expression: str, seconds: float = 20.0) -> Any:  # noqa: ANN401
        """Poll until the expression is truthy; its value. Fails with the expression's text."""
        value = None
        with trio.move_on_after(seconds):
            while True:
                value = await self.evaluate(expression)
                if value:
                    return value
                await trio.sleep(0.1)
        raise AssertionError(f"{self.name}: not within {seconds} s: {expression} (last: {value!r})")


class _Commands:
    """Numbered commands and their answers over one WebSocket; events are dropped."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}

    async def read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._socket.get_message())
                waiting = self._waiting.pop(message.get("id"), None)
                if waiting is not None:
                    waiting.send_nowait(message)

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        command: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if session := parameters.pop("sessionId", None):
            command["sessionId"] = session
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[self._number] = send
        await self._socket.send_message(json.dumps(command))
        answer = await receive.receive()
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']} {answer.get('message', '')}")
        result: dict[str, Any] = answer["result"]
        return result


@asynccontextmanager
async def _running(command: list[str], announcement: str, profile: Path) -> AsyncIterator[str]:
    """Start a browser; the WebSocket address that it announces on standard error; ended, with its profile, at exit."""
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdin=-3, stdout=-3, stderr=-1, start_new_session=True)
        try:
            found = await nursery.start(_announced, process.stderr, announcement)
            yield found
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()
            shutil.rmtree(profile, ignore_errors=True)


async def _announced(
    stream: trio.abc.ReceiveStream, announcement: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    heard = b""
    done = False
    with trio.move_on_after(START_SECONDS) as patience:
        async for chunk in stream:
            patience.deadline = float("inf") if done else patience.deadline
            if done:
                continue
            heard += chunk
            for line in heard.decode("utf-8", "replace").splitlines():
                if announcement in line and heard.endswith(b"\n"):
                    task_status.started(line.partition(announcement)[2].strip())
                    done = True
                    break
    if not done:
        raise BrowserError(f"the browser never said {announcement!r}: {heard[-500:]!r}")


@asynccontextmanager
async def open_chromium(wav: Path | None = None, *flags: str) -> AsyncIterator[Page]:
    """Headless Chromium with a fresh profile; its microphone plays `wav` over and over."""
    assert CHROMIUM is not None
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    command = [CHROMIUM, *CHROMIUM_FLAGS, f"--user-data-dir={profile}", *flags]
    if wav is not None:
        command.append(f"--use-file-for-fake-audio-capture={wav}")
    async with (
        _running([*command, "about:blank"], "DevTools listening on ", profile) as url,
        open_websocket_url(url, max_message_size=MAX_MESSAGE) as socket,
        trio.open_nursery() as nursery,
    ):
        commands = _Commands(socket)
        nursery.start_soon(commands.read)
        targets = (await commands.call("Target.getTargets"))["targetInfos"]
        target = next(info["targetId"] for info in targets if info["type"] == "page")
        session = (await commands.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        await commands.call("Page.enable", sessionId=session)

        async def goto(url: str) -> None:
            await commands.call("Page.navigate", sessionId=session, url=url)
            while await run("JSON.stringify(document.readyState === 'complete')") != "true":
                await trio.sleep(0.05)

        async def run(expression: str) -> str:
            answer = await commands.call(
                "Runtime.evaluate",
                sessionId=session,
                expression=expression,
                awaitPromise=True,
                returnByValue=True,
                userGesture=True,
            )
            if "exceptionDetails" in answer:
                raise BrowserError(json.dumps(answer["exceptionDetails"])[:600])
            value: str = answer["result"]["value"]
            return value

        yield Page("chromium", goto, run)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_firefox(wav: Path | None = None, **preferences: bool | int | str) -> AsyncIterator[Page]:
    """Headless Firefox with a fresh profile; after each `goto`, `getUserMedia` gives `wav`, played over and over."""
    assert FIREFOX is not None
    profile = Path(tempfile.mkdtemp(prefix="firefox-"))
    lines = [f'user_pref("{key}", {json.dumps(value)});' for key, value in (FIREFOX_PREFERENCES | preferences).items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    async with (
        _running([*command, "about:blank"], "WebDriver BiDi listening on ", profile) as url,
        open_websocket_url(url + "/session", max_message_size=MAX_MESSAGE) as socket,
        trio.open_nursery() as nursery,
    ):
        commands = _Commands(socket)
        nursery.start_soon(commands.read)
        await commands.call("session.new", capabilities={})
        context = (await commands.call("browsingContext.getTree"))["contexts"][0]["context"]

        async def goto(url: str) -> None:
            await commands.call("browsingContext.navigate", context=context, url=url, wait="complete")
            if wav is not None:
                data = base64.b64encode(wav.read_bytes()).decode()
                await run(FIREFOX_MICROPHONE.replace("WAV", data))

        async def run(expression: str) -> str:
            answer = await commands.call(
                "script.evaluate",
                expression=expression,
                target={"context": context},
                awaitPromise=True,
                userActivation=True,
            )
            if answer["type"] == "exception":
                raise BrowserError(json.dumps(answer["exceptionDetails"])[:600])
            value: str = answer["result"].get("value", "null")
            return value

        yield Page("firefox", goto, run)
        nursery.cancel_scope.cancel()


FIREFOX_MICROPHONE = """(async () => {
  const voice = new Audio("data:audio/wav;base64,WAV");
  voice.loop = true;
  await voice.play();
  const stream = voice.mozCaptureStream();
  // A page that holds the microphone may use every address of the machine; without it Firefox keeps to the default route.
  window.microphone = await navigator.mediaDevices.getUserMedia({audio: true});
  navigator.mediaDevices.getUserMedia = async () => new MediaStream(stream.getAudioTracks());
  return "null";
})()"""
