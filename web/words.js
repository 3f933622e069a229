// What the page says when something ends or fails: one plain sentence, and what to do if something can be done.

const REASONS = {
  hangup: "The call was hung up.",
  peer_closed: "The call was closed from this side.",
  agent_ended: "The agent ended the call.",
  agent_refused: "The agent did not take the call.",
  agent_unavailable: "No agent was there to take the call.",
  ice_timeout: "The server saw no valid packet from this browser in time: UDP may be blocked on the way.",
  dtls_timeout: "The encryption handshake did not finish in time.",
  dtls_failed: "The encryption handshake failed.",
  fingerprint_mismatch: "The certificate was not the one announced, so no media was exchanged.",
  consent_lost: "The server heard nothing from this browser for too long.",
  transport_failed: "The connection failed.",
  setup_timeout: "The call could not be set up in time.",
  max_duration: "The call reached the longest time that is allowed.",
  drained: "The server is being replaced and ended the call. Call again to reach the new one.",
  shutdown: "The server was stopped.",
  evicted: "The server was too busy with unfinished calls.",
  internal_error: "Something failed on the server.",
  // found out on this side
  remote_closed: "The server closed the call.",
  connection_failed: "The connection was lost.",
  ended_early: "The server ended the call before a path was made. The agent may have failed: its log says why.",
  no_path:
    "No path to the relay was found. A firewall may block UDP, or the relay offers no address this browser uses " +
    "(Firefox never uses 127.0.0.1: the relay must offer the machine’s own address too).",
};

const AGENTS = {
  echo: "The echo returns every sound as it comes: what you hear is the whole path. Headphones help.",
  parrot: "The parrot waits until your sentence ends, then says it back. Speak over it and it stops at once.",
  realtime: "This parrot speaks the Realtime API: your turn comes back, and what you write is written back.",
  voice: "Ask for the lights, a timer, or how many miles are in ten kilometres. “What can you do?” helps further.",
  meter: "The meter returns every sound, and counts how well your audio came.",
};

export function describeReason(reason) {
  return REASONS[reason] ?? `The call ended: ${reason}.`;
}

export function describeAgent(agent) {
  if (!agent) return "Your voice travels through a relay and a transceiver to an agent, and its answer comes back.";
  return AGENTS[agent] ?? `The agent “${agent}” answers.`;
}

export function describeMicrophone(error) {
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "The browser was not allowed to use the microphone. Allow it beside the address bar, then call again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No microphone was found. Plug one in, then call again.";
    case "NotReadableError":
    case "AbortError":
      return "The microphone could not be opened. Another program may be using it.";
    default:
      return `The microphone could not be used (${error?.name ?? "unknown error"}).`;
  }
}

export function insecureContext(address) {
  const port = address.port ? `:${address.port}` : "";
  return (
    "Browsers give the microphone only to pages they can trust, and this one came by plain HTTP from another machine. " +
    `Open it by HTTPS, or on the machine that serves it as http://127.0.0.1${port}/.`
  );
}

export const NO_WEBRTC = "This browser has no WebRTC, or it is switched off.";
export const UNREACHABLE = "The server cannot be reached. Is the stack still running?";
export const DRAINING = "The server is about to stop: it takes no new calls, and ends this one if it lasts.";
export const NO_ANSWER = "The server did not answer the call in time.";

export async function describeRefusal(response) {
  let text = "";
  try {
    text = (await response.json()).error?.message ?? "";
  } catch {
    // not our JSON: a proxy's page, or nothing
  }
  if (response.status === 503) {
    const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    const when = Number.isFinite(seconds) && seconds > 0 ? `in ${seconds} second${seconds === 1 ? "" : "s"}` : "in a moment";
    return `${text || "The server takes no calls right now."} Try again ${when}.`;
  }
  if (response.status === 401) return `${text || "The server asks who calls."} Put your key into the field above the button.`;
  return `The server refused the call (${response.status})${text ? `: ${text}` : "."}`;
}
