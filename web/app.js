// The page: one button, two voices, the stages of the call, the state of the line, the events.
// It shows what Call reports and passes on what the person asks; it decides nothing about the call.

import { Call, STAGES } from "./call.js";
import { Levels } from "./levels.js";
import { Line } from "./line.js";
import { Room } from "./room.js";
import { Staff } from "./staff.js";
import { Talk } from "./talk.js";
import { Transcript } from "./transcript.js";
import { NO_WEBRTC, describeAgent, insecureContext } from "./words.js";

const LOG_LIMIT = 400;
const READ_MS = 500;
const READ_FOR_LEVELS_MS = 100; // when statistics stand in for the samples
const SPEAK_METER_MS = 500;
const STILL_FRAME_MS = 200;
const WAITED = 3; // audio so many times later than the path is an agent that waited
const TRACE_READINGS = 120;
const TRACE_FLOOR_MS = 20; // so that a quiet line looks quiet

const find = (id) => document.getElementById(id);
const page = {
  call: find("call"), status: find("status"), clock: find("clock"), notice: find("notice"), note: find("note"),
  served: find("served"), agent: find("agent-name"), log: find("log"), text: find("text"), send: find("send"),
  compose: find("compose"), processing: find("processing"), voice: find("voice"),
  model: find("model"), modelChoice: find("model-choice"), talk: find("talk"), textLabel: find("text-label"),
  key: find("key"), keyField: find("key-field"),
};
const voices = {
  you: { meter: find("you-meter"), staff: new Staff(find("you-staff"), 3) },
  agent: { meter: find("agent-meter"), staff: new Staff(find("agent-staff"), 14) },
};
const still = matchMedia("(prefers-reduced-motion: reduce)");

const STATES = {
  idle: ["Call", "Ready."],
  microphone: ["Cancel", "Asking for the microphone…"],
  connecting: ["Cancel", "Connecting…"],
  live: ["Hang up", "Connected"],
  ending: ["Hang up", "Hanging up…"],
  ended: ["Call again", "Ended"],
};

const room = new Room(find("room"));
const transcript = new Transcript(find("transcript"), () => ({ you: "You", agent: page.agent.textContent }));

let call = null;
let talk = null;
let levels = null;
let liveSince = null;
let following = true;
let logWidth = 0;
const log = [];
const trace = [];

// ---- the call -------------------------------------------------------------------------------------------------

async function begin(options = {}) {
  if (call && call.state !== "ended") return;
  if (!navigator.mediaDevices?.getUserMedia) {
    tell(window.isSecureContext ? NO_WEBRTC : insecureContext(location));
    return;
  }
  tell("");
  liveSince = null;
  showStages({});
  showLine(null);
  const made = (call = new Call());
  levels = new Levels(); // made in the click, so that the browser lets it run
  made.addEventListener("state", ({ detail }) => showState(detail.state));
  made.addEventListener("stage", ({ detail }) => onStage(made, detail));
  made.addEventListener("log", ({ detail }) => write(detail.kind, detail.text));
  made.addEventListener("path", ({ detail }) => onPath(made, detail));
  listenToTalk(made);
  made.addEventListener("stream", ({ detail }) => onStream(detail.stream));
  made.addEventListener("end", ({ detail }) => onEnd(detail));
  watchVoices(made);
  await made.start({
    processing: options.processing ?? page.processing.checked,
    model: options.model ?? page.model.value,
    key: options.key ?? page.key.value.trim(),
  });
}

// An agent that greets by `session.created` speaks the Realtime API: then there is more to show than messages.
function listenToTalk(made) {
  const present = (talk = new Talk((event) => made.send(JSON.stringify(event)), room.functions));
  page.talk.hidden = true;
  page.textLabel.textContent = "Message on the data channel";
  transcript.follow(present);
  present.addEventListener("ready", () => {
    page.talk.hidden = false;
    page.textLabel.textContent = "Say it in writing";
  });
  made.addEventListener("message", ({ detail }) => {
    if (!detail.event) return;
    if (detail.event.type === "error" && detail.event.error?.message) tell(`The agent’s side says: ${detail.event.error.message}`);
    present.receive(detail.event);
  });
}

function onStage(made, { name, at }) {
  showStages(made.stages);
  write("stage", `${stageName(name)} after ${formatMs(at)} ms.`);
  if (name === "channel") readLine(made);
}

// The browser tells after some seconds of silence, and gives up after some more: until then, say what is the matter.
function onPath(made, { interrupted }) {
  if (made.state !== "live") return;
  page.status.textContent = interrupted ? "Interrupted; waiting" : STATES.live[1];
}

function onStream(stream) {
  page.voice.srcObject = stream;
  page.voice.play().catch(() => {
    tell("The browser does not play the answer by itself. Click anywhere on the page to hear it.");
    document.addEventListener("click", () => page.voice.play().then(() => tell("")).catch(() => {}), { once: true });
  });
  levels?.listen("agent", stream);
}

function onEnd({ reason, text, own }) {
  page.voice.srcObject = null;
  levels?.close();
  levels = null;
  for (const { meter } of Object.values(voices)) showMeter(meter, 0, true);
  if (own || reason === "hangup" || reason === "agent_ended") page.status.textContent = text;
  else tell(text);
  if (!own && call.callId === null) page.status.textContent = "No call was made.";
}

// ---- voices ---------------------------------------------------------------------------------------------------

function watchVoices(made) {
  const began = performance.now();
  for (const { staff } of Object.values(voices)) staff.begin(began);
  let heard = false;
  let spoken = 0;
  let drawn = 0;
  const frame = (now) => {
    if (made !== call || made.state === "ended") return;
    requestAnimationFrame(frame);
    if (still.matches && now - drawn < STILL_FRAME_MS) return;
    drawn = now;
    if (!heard && made.microphone) {
      heard = true;
      levels?.listen("you", made.microphone);
    }
    const speak = now - spoken > SPEAK_METER_MS;
    if (speak) spoken = now;
    for (const [name, { meter, staff }] of Object.entries(voices)) {
      const level = levels?.level(name) ?? 0;
      staff.hear(level, now);
      staff.draw(now);
      showMeter(meter, level, speak);
    }
    showClock(now);
  };
  requestAnimationFrame(frame);
}

function showMeter(meter, level, speak) {
  meter.style.setProperty("--level", level.toFixed(3));
  if (!speak) return;
  const value = Math.round(level * 100);
  meter.setAttribute("aria-valuenow", String(value));
  meter.setAttribute("aria-valuetext", value < 6 ? "silent" : `${value} percent`);
}

function showClock(now) {
  if (liveSince === null) return;
  const seconds = Math.max(0, Math.floor((now - liveSince) / 1000)); // a frame's time is that of its beginning
  const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  if (page.clock.textContent !== text) page.clock.textContent = text;
}

// ---- the line -------------------------------------------------------------------------------------------------

function readLine(made) {
  const line = new Line(made.pc);
  let shown = 0;
  const read = async () => {
    if (made !== call || made.state === "ended") return;
    const reading = await line.read();
    levels?.report("you", reading.levelSent);
    levels?.report("agent", reading.levelReceived);
    const now = performance.now();
    if (now - shown >= READ_MS && made === call && made.state !== "ended") {
      shown = now;
      showLine(reading);
    }
    setTimeout(read, levels?.suspended ? READ_FOR_LEVELS_MS : READ_MS);
  };
  read().catch(() => {});
}

function showLine(reading) {
  const put = (id, value, digits) => {
    find(id).textContent = value === null || value === undefined ? "–" : value.toFixed(digits);
  };
  showTrace(reading);
  put("rtt", reading?.roundTrip, reading?.roundTrip < 10 ? 1 : 0);
  if (reading?.roundTrip === 0) find("rtt").textContent = "<1"; // Chromium counts whole milliseconds
  put("loss-out", reading?.lossOut, 1);
  put("loss-in", reading?.lossIn, 1);
  put("jitter", reading?.jitter, 1);
  find("codec").textContent = { opus: "Opus" }[reading?.codec?.toLowerCase()] ?? reading?.codec ?? "–";
}

// The round trips of the last minute; the scale fits the worst of them.
function showTrace(reading) {
  if (reading === null) trace.length = 0;
  else if (reading.roundTrip !== null) trace.push(reading.roundTrip);
  if (trace.length > TRACE_READINGS) trace.shift();
  const top = Math.max(TRACE_FLOOR_MS, ...trace) * 1.15;
  const points = trace.map((value, index) => `${index},${(31 - (value / top) * 30).toFixed(1)}`);
  find("trace").setAttribute("points", points.join(" "));
}

// ---- showing --------------------------------------------------------------------------------------------------

function showState(state) {
  const [label, status] = STATES[state];
  document.documentElement.dataset.state = state;
  page.call.textContent = label;
  page.call.disabled = state === "ending";
  page.status.textContent = status;
  page.text.disabled = page.send.disabled = state !== "live";
  page.processing.disabled = page.model.disabled = !["idle", "ended"].includes(state);
  if (state === "live") liveSince = performance.now();
  if (state !== "live" && state !== "ending" && state !== "ended") page.clock.textContent = "";
}

function showStages(stages) {
  // An agent may wait until the caller has spoken. That wait is no part of the path: it must not make the rest look like nothing.
  const path = Math.max(1, ...STAGES.filter((name) => name !== "audio").map((name) => stages[name] ?? 0));
  const waited = stages.audio > path * WAITED;
  const last = waited ? path * WAITED : Math.max(path, stages.audio ?? 0);
  for (const name of STAGES) {
    const row = document.querySelector(`[data-stage="${name}"]`);
    const at = stages[name] ?? null;
    row.classList.toggle("done", at !== null);
    row.classList.toggle("beyond", name === "audio" && waited);
    row.querySelector(".stage-time").textContent = at === null ? "–" : `${formatMs(at)} ms`;
    // A stage lasts from the last thing that was finished before it.
    const from = at === null ? 0 : Math.max(0, ...Object.values(stages).filter((other) => other !== null && other < at));
    row.style.setProperty("--from", (from / last).toFixed(4));
    row.style.setProperty("--to", Math.min(1, (at ?? 0) / last).toFixed(4));
  }
}

function stageName(name) {
  return document.querySelector(`[data-stage="${name}"] .stage-name`).textContent;
}

function formatMs(value) {
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}

function tell(text) {
  page.notice.textContent = text;
  page.notice.hidden = !text;
}

const KINDS = { sent: "you", received: "agent", stage: "stage", warning: "note", info: "call", ended: "end" };

function write(kind, text) {
  const at = new Date();
  log.push({ at: at.toISOString(), kind, text });
  if (log.length > LOG_LIMIT) log.shift();
  page.log.querySelector(".log-empty")?.remove();
  const item = document.createElement("li");
  item.className = `log-${kind}`;
  const time = document.createElement("time");
  time.dateTime = at.toISOString();
  time.textContent = at.toLocaleTimeString([], { hour12: false });
  const who = document.createElement("span");
  who.className = "log-who";
  who.textContent = KINDS[kind] ?? kind;
  const what = document.createElement("span");
  what.className = "log-what";
  what.textContent = text;
  item.append(time, who, what);
  page.log.append(item);
  while (page.log.children.length > LOG_LIMIT) page.log.firstElementChild.remove();
  if (following) page.log.scrollTop = page.log.scrollHeight;
}

// New lines stay in sight unless the person has scrolled away from them; a turned phone is no scrolling.
page.log.addEventListener("scroll", () => {
  if (page.log.clientWidth === logWidth) following = page.log.scrollTop + page.log.clientHeight >= page.log.scrollHeight - 8;
});
new ResizeObserver(() => {
  logWidth = page.log.clientWidth;
  if (following) page.log.scrollTop = page.log.scrollHeight;
}).observe(page.log);

async function introduce() {
  let info = {};
  try {
    const response = await fetch("/v1/info", { headers: { Accept: "application/json" } });
    if (response.ok) info = (await response.json()) ?? {};
  } catch {
    // an older server, or none: the page works without it
  }
  const agent = typeof info.agent === "string" ? info.agent : "";
  const models = Array.isArray(info.models) && info.models.length > 1 ? info.models : [];
  page.model.replaceChildren(...models.map((name) => new Option(name, name)));
  page.modelChoice.hidden = !models.length;
  page.keyField.hidden = info.needs_key !== true; // the key stays on the page, and goes with it
  introduceAgent(page.model.value || agent);
  page.served.textContent = [agent && `${agent} agent`, info.version && `version ${info.version}`].filter(Boolean).join(" · ");
}

function introduceAgent(agent) {
  page.note.textContent = describeAgent(agent);
  page.agent.textContent = agent ? agent[0].toUpperCase() + agent.slice(1) : "Agent";
  if (!talk?.ready || call?.state === "ended") page.talk.hidden = true;
}

// ---- the person -----------------------------------------------------------------------------------------------

page.call.addEventListener("click", () => {
  if (!call || call.state === "ended") begin();
  else call.hangUp();
});

page.model.addEventListener("change", () => introduceAgent(page.model.value));

page.compose.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.text.value;
  if (!text || call?.state !== "live") return;
  if (talk?.ready) talk.say(text);
  else call.send(text);
  page.text.value = "";
});

addEventListener("pagehide", () => call?.abandon());

if (new URLSearchParams(location.search).has("raw")) page.processing.checked = false;
if (!navigator.mediaDevices?.getUserMedia && !window.isSecureContext) {
  tell(insecureContext(location));
  page.status.textContent = "No microphone here.";
  page.call.disabled = true;
}
introduce();

// For tests and for the console.
window.antiphon = {
  get state() { return call?.state ?? "idle"; },
  get stages() { return { ...(call?.stages ?? Object.fromEntries(STAGES.map((name) => [name, null]))) }; },
  get pc() { return call?.pc ?? null; },
  get channel() { return call?.channel ?? null; },
  get callId() { return call?.callId ?? null; },
  get endReason() { return call?.endReason ?? null; },
  get talk() { return talk?.entries ?? []; },
  get lights() { return room.lights; },
  get levels() { return { you: levels?.level("you") ?? 0, agent: levels?.level("agent") ?? 0 }; },
  log,
  call: begin,
  hangUp: async () => call?.hangUp(),
  send: (text) => call?.send(text) ?? false,
};
