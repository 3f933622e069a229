// One call: microphone, offer, answer, and the moments at which each stage of the set-up is done.
//
// 1. Ask for the microphone; the clock starts when it is granted, for that wait is a person's.
// 2. Offer audio and the data channel, without waiting for candidates: the server learns our address from our checks.
// 3. POST the offer; 201 brings the answer and the call's place (Location).
// 4. Watch ICE, DTLS, the data channel and the first audio packet arrive.
// 5. The call ends once: by our hang-up, by the server's word on the data channel, or because the connection is gone.
//
// Events: "state", "stage" {name, at}, "path" {interrupted}, "log" {kind, text}, "stream" {stream}, "message" {data}, "end" {reason, text}.

import { DRAINING, NO_ANSWER, NO_WEBRTC, UNREACHABLE, describeMicrophone, describeReason, describeRefusal } from "./words.js";

const CALLS = "/v1/realtime/calls";
const CHANNEL = "oai-events";
const SIGNALLING_MS = 15000;
const PATH_MS = 10000; // less than the server's own patience, so that it can still be asked whether it has the call
const SETUP_MS = 25000;
const HANGUP_MS = 3000;
const FIRST_AUDIO_POLL_MS = 40;

// Ends that the server cannot know of yet.
const FOUND_HERE = new Set(["failed", "no_path", "setup_timeout", "connection_failed", "dtls_failed"]);

export const STAGES = ["signalling", "ice", "dtls", "channel", "audio"];

export class Call extends EventTarget {
  state = "idle"; // idle → microphone → connecting → live → ending → ended
  stages = Object.fromEntries(STAGES.map((name) => [name, null])); // milliseconds since the microphone was granted
  callId = null;
  endReason = null;
  pc = null;
  channel = null;
  microphone = null;
  remote = null;

  #began = 0;
  #location = null;
  #model = "";
  #key = "";
  #interrupted = false;
  #givingUp = false;
  #timers = new Set();
  #abort = new AbortController();

  // `model`: who is to answer, if the server has several; `key`: for a server that asks who calls.
  async start({ processing = true, model = "", key = "" } = {}) {
    this.#model = model;
    this.#key = key;
    this.#setState("microphone");
    try {
      this.microphone = await openMicrophone(processing);
    } catch (error) {
      return this.#end("microphone", describeMicrophone(error));
    }
    if (this.state !== "microphone") return stopTracks(this.microphone); // hung up while the question stood
    this.#setState("connecting");
    this.#began = performance.now();
    try {
      await this.#connect();
    } catch (error) {
      if (this.state !== "connecting" && this.state !== "live") return undefined;
      console.error(error);
      this.#end("failed", `The call could not be made (${error?.message ?? error}).`);
    }
    return undefined;
  }

  send(text) {
    if (this.channel?.readyState !== "open") return false;
    this.channel.send(text);
    this.#log("sent", brief(parseEvent(text), text));
    return true;
  }

  async hangUp() {
    if (this.state === "idle" || this.state === "ending" || this.state === "ended") return;
    const placed = this.#location;
    if (placed) {
      this.#setState("ending");
      try {
        const signal = AbortSignal.timeout(HANGUP_MS);
        await fetch(new URL("hangup", `${placed}/`), { method: "POST", signal });
      } catch {
        this.#log("warning", "The server did not confirm the hang-up.");
      }
    }
    this.#end("hangup", "You hung up.", true);
  }

  // The page is going away: tell the server, without waiting.
  abandon() {
    if (this.#location && this.state !== "ended") this.#release();
  }

  #release() {
    fetch(new URL("hangup", `${this.#location}/`), { method: "POST", keepalive: true }).catch(() => {});
  }

  async #connect() {
    if (typeof RTCPeerConnection === "undefined") return this.#end("failed", NO_WEBRTC);
    const pc = (this.pc = new RTCPeerConnection());
    this.#watchConnection(pc);
    this.#openChannel(pc);
    for (const track of this.microphone.getAudioTracks()) pc.addTrack(track, this.microphone);
    await pc.setLocalDescription(await pc.createOffer());

    const response = await this.#post(pc.localDescription.sdp);
    if (!response) return undefined;
    this.#location = new URL(response.headers.get("Location") ?? "", new URL(CALLS, location.href)).href;
    if (this.state !== "connecting") return this.#release(); // hung up before the server had answered
    const answer = await response.text();
    if (this.state !== "connecting") return undefined; // hung up since; hangUp() has told the server
    this.callId = this.#location.split("/").pop();
    this.#mark("signalling");
    this.#log("info", `Answered as ${this.callId}.`);
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    this.#watchTransport(pc);
    this.#watchFirstAudio(pc);
    this.#after(PATH_MS, () => this.stages.ice === null && this.#giveUpPath());
    this.#after(SETUP_MS, () => this.state === "connecting" && this.#end("setup_timeout"));
    return undefined;
  }

  // No path may mean that nobody is there any more: an agent that fails at once ends the call before we could be told.
  async #giveUpPath() {
    if (this.state !== "connecting" || this.#givingUp) return;
    this.#givingUp = true;
    let reason = "no_path";
    try {
      const signal = AbortSignal.timeout(HANGUP_MS);
      const response = await fetch(new URL("hangup", `${this.#location}/`), { method: "POST", signal });
      if (response.status === 404) reason = "ended_early";
    } catch {
      // the server does not answer: then it is no better than no path
    }
    this.#end(reason);
  }

  async #post(sdp) {
    const timeout = this.#after(SIGNALLING_MS, () => this.#abort.abort("timeout"));
    let response;
    try {
      const place = new URL(CALLS, location.href);
      if (this.#model) place.searchParams.set("model", this.#model);
      response = await fetch(place, {
        method: "POST",
        headers: {
          "Content-Type": "application/sdp",
          Accept: "application/sdp",
          ...(this.#key && { Authorization: `Bearer ${this.#key}` }),
        },
        body: sdp,
        signal: this.#abort.signal,
      });
    } catch {
      this.#end("unreachable", this.#abort.signal.reason === "timeout" ? NO_ANSWER : UNREACHABLE);
      return null;
    } finally {
      clearTimeout(timeout);
    }
    if (response.ok) return response;
    this.#end("refused", await describeRefusal(response));
    return null;
  }

  #openChannel(pc) {
    const channel = (this.channel = pc.createDataChannel(CHANNEL));
    channel.binaryType = "arraybuffer";
    channel.onopen = () => {
      this.#mark("channel");
      if (this.state === "connecting") this.#setState("live");
    };
    channel.onclose = () => this.#end("remote_closed");
    channel.onmessage = ({ data }) => this.#receive(data);
  }

  #receive(data) {
    let event = null;
    if (typeof data !== "string") {
      this.#log("received", `${data.byteLength} bytes of binary data`);
    } else {
      event = parseEvent(data);
      if (event?.type === "antiphon.call.ended") {
        const reason = String(event.reason ?? "remote_closed");
        this.endReason ??= reason;
        this.#end(reason);
        return;
      }
      if (event?.type === "antiphon.draining") this.#log("warning", DRAINING);
      else this.#log("received", event ? brief(event, data) : data);
    }
    this.#emit("message", { data, event });
  }

  #watchConnection(pc) {
    pc.ontrack = ({ track, streams }) => {
      this.remote = streams[0] ?? new MediaStream([track]);
      this.#emit("stream", { stream: this.remote });
    };
    pc.oniceconnectionstatechange = () => {
      const state = pc.iceConnectionState;
      if (state === "connected" || state === "completed") {
        this.#mark("ice");
        this.#setInterrupted(false);
      } else if (state === "disconnected" && this.stages.ice !== null) this.#setInterrupted(true);
      else if (state === "failed") this.#onFailed();
    };
    pc.onconnectionstatechange = () => {
      const state = pc.connectionState;
      if (state === "connected") {
        this.#mark("ice");
        this.#mark("dtls");
      } else if (state === "failed") {
        this.#onFailed();
      }
    };
  }

  #onFailed() {
    if (this.stages.ice === null) this.#giveUpPath();
    else this.#end("connection_failed");
  }

  #setInterrupted(interrupted) {
    if (interrupted === this.#interrupted) return;
    this.#interrupted = interrupted;
    this.#log("warning", interrupted ? "The path is interrupted; waiting for it to come back." : "The path is back.");
    this.#emit("path", { interrupted });
  }

  // The transports themselves report sooner than the connection as a whole, where a browser has them.
  #watchTransport(pc) {
    const dtls = pc.getSenders().map((sender) => sender.transport).find(Boolean);
    if (!dtls) return;
    const onDtls = () => {
      if (dtls.state === "connected") this.#mark("dtls");
      else if (dtls.state === "failed") this.#end("dtls_failed");
      else if (dtls.state === "closed") this.#end("remote_closed");
    };
    const ice = dtls.iceTransport;
    const onIce = () => {
      if (ice.state === "connected" || ice.state === "completed") this.#mark("ice");
    };
    dtls.addEventListener("statechange", onDtls);
    ice?.addEventListener?.("statechange", onIce);
    onDtls();
    if (ice) onIce();
  }

  // A track's "unmute" means different things in different browsers; a received packet means one thing.
  #watchFirstAudio(pc) {
    const look = async () => {
      if (this.stages.audio !== null || this.state === "ended") return;
      const report = await pc.getStats();
      for (const entry of report.values()) {
        if (entry.type === "inbound-rtp" && entry.kind === "audio" && entry.packetsReceived > 0) this.#mark("audio");
      }
      if (this.stages.audio === null) this.#after(FIRST_AUDIO_POLL_MS, look);
    };
    look().catch(() => {});
  }

  #mark(name) {
    if (this.stages[name] !== null || this.state === "ended") return;
    this.stages[name] = Math.max(0, performance.now() - this.#began);
    this.#emit("stage", { name, at: this.stages[name] });
  }

  // Our own hang-up ends the call when the server has confirmed it, whatever closes in the meantime.
  #end(reason, text = describeReason(reason), own = false) {
    if (this.state === "ended" || (this.state === "ending" && !own)) return;
    this.endReason ??= reason;
    if (FOUND_HERE.has(reason)) this.abandon();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#setState("ended");
    this.channel?.close();
    this.pc?.close();
    stopTracks(this.microphone);
    this.#log("ended", text);
    this.#emit("end", { reason: this.endReason, text, own });
  }

  #setState(state) {
    this.state = state;
    this.#emit("state", { state });
  }

  #after(milliseconds, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, milliseconds);
    this.#timers.add(timer);
    return timer;
  }

  #log(kind, text) {
    this.#emit("log", { kind, text });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

async function openMicrophone(processing) {
  const audio = { echoCancellation: processing, noiseSuppression: processing, autoGainControl: processing };
  return navigator.mediaDevices.getUserMedia({ audio });
}

function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

// An event of a Realtime session in a line: what it is, and its words.
function brief(event, text) {
  if (typeof event?.type !== "string" || !event.type.includes(".") || event.type.startsWith("antiphon.")) return text;
  const words = event.delta ?? event.transcript ?? event.item?.content?.[0]?.text ?? event.arguments ?? event.item?.output;
  return words ? `${event.type} “${words}”` : event.type;
}

function parseEvent(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
