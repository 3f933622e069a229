// The conversation, as a Realtime session tells of it: who said what, when each turn began, ended and was answered, and
// which functions the agent called.
//
// 1. `session.created` says that the agent speaks the Realtime API: our functions are declared, and transcripts asked for.
//    One of another id is an agent's that took over the call: its session is empty, and told the same.
// 2. Items become entries in the order that the server gives them; words grow as they come; of an answer that was cut, what
//    was heard is told from what was not.
// 3. A turn has moments: the caller's speech, the answer's first sound, its end or its interruption.
// 4. When a response ends with calls of functions, they are run, their results go back, and a further response is asked for.
//
// Events: "ready" {session}, "entry" {entry}, "removed" {id}, "turn" {turn}, "function" {name, arguments, result}.

const MAX_ENTRIES = 200;
const DELTAS = new Set(["response.output_audio_transcript.delta", "response.output_text.delta"]);
const FULL = new Set(["response.output_audio_transcript.done", "response.output_text.done"]);

export class Talk extends EventTarget {
  ready = false;
  entries = []; // {id, who: "you" | "agent", words, heard, state: "open" | "done"}

  #send;
  #functions;
  #session = null; // its id
  #byId = new Map();
  #turn = null; // the present or last one: {began, ended, spokeMs, answered, finished, interrupted}
  #answering = null; // the turn whose answer is played
  #now;

  // `send(event)` puts an event on the channel; `functions`: name → {description, parameters, run(arguments) → result}.
  constructor(send, functions, now = () => performance.now()) {
    super();
    this.#send = send;
    this.#functions = functions;
    this.#now = now;
  }

  // Whether the event was one of a session.
  receive(event) {
    const { type } = event;
    if (type === "session.created") this.#begin(event.session);
    if (!this.ready) return false;
    if (DELTAS.has(type)) this.#grow(event.item_id, event.delta);
    else if (FULL.has(type)) this.#settle(event.item_id, event.transcript ?? event.text);
    else this.#handlers[type]?.(event);
    return true;
  }

  say(text) {
    const content = [{ type: "input_text", text }];
    this.#send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.#send({ type: "response.create" });
  }

  #handlers = {
    "conversation.item.added": ({ item, previous_item_id: previous }) => this.#add(item, previous),
    "conversation.item.deleted": ({ item_id: id }) => this.#remove(id),
    "conversation.item.truncated": ({ item_id: id }) => this.#send({ type: "conversation.item.retrieve", item_id: id }),
    "conversation.item.retrieved": ({ item }) => this.#cut(item.id, wordsOf(item)),
    "conversation.item.input_audio_transcription.delta": ({ item_id: id, delta }) => this.#grow(id, delta),
    "conversation.item.input_audio_transcription.completed": ({ item_id: id, transcript }) => this.#settle(id, transcript),
    "conversation.item.input_audio_transcription.failed": ({ item_id: id }) => this.#settle(id, null),
    "input_audio_buffer.speech_started": ({ audio_start_ms: at }) => this.#began(at),
    "input_audio_buffer.speech_stopped": ({ audio_end_ms: at, item_id: id }) => this.#ended(at, id),
    "output_audio_buffer.started": () => this.#answered(),
    "output_audio_buffer.stopped": () => this.#finished(false),
    "output_audio_buffer.cleared": () => this.#finished(true),
    "response.done": ({ response }) => this.#call(response),
  };

  #begin(session) {
    if (this.ready && session.id === this.#session) return;
    this.ready = true;
    this.#session = session.id;
    const tools = Object.entries(this.#functions).map(([name, { description, parameters }]) => ({
      type: "function",
      name,
      description,
      parameters,
    }));
    const transcription = session.audio?.input?.transcription ?? { model: "default" };
    this.#send({ type: "session.update", session: { type: "realtime", tools, audio: { input: { transcription } } } });
    this.#emit("ready", { session });
  }

  // ---- entries

  #add(item, previous) {
    if (item.type !== "message" || item.role === "system" || this.#byId.has(item.id)) return;
    const entry = {
      id: item.id,
      who: item.role === "user" ? "you" : "agent",
      words: wordsOf(item),
      heard: null,
      state: item.role === "user" && item.content.some((part) => part.type === "input_text") ? "done" : "open",
    };
    const place = this.entries.findIndex(({ id }) => id === previous);
    this.entries.splice(place < 0 ? this.entries.length : place + 1, 0, entry);
    this.#byId.set(entry.id, entry);
    if (this.entries.length > MAX_ENTRIES) this.#remove(this.entries[0].id);
    this.#emit("entry", { entry });
  }

  #remove(id) {
    if (!this.#byId.delete(id)) return;
    this.entries = this.entries.filter((entry) => entry.id !== id);
    this.#emit("removed", { id });
  }

  #grow(id, words) {
    const entry = this.#byId.get(id);
    if (!entry) return;
    entry.words += words;
    this.#emit("entry", { entry });
  }

  // `words`: all of them; null if nobody knows.
  #settle(id, words) {
    const entry = this.#byId.get(id);
    if (!entry) return;
    entry.words = words ?? entry.words;
    entry.state = "done";
    this.#emit("entry", { entry });
  }

  // So much of it was heard, by the server's account.
  #cut(id, heard) {
    const entry = this.#byId.get(id);
    if (!entry || entry.who !== "agent" || !entry.words.startsWith(heard)) return;
    entry.heard = heard.length;
    entry.state = "done";
    this.#emit("entry", { entry });
  }

  // ---- turns

  #began(at) {
    this.#turn = { began: at, spokeMs: null, endedAt: null, answerMs: null, playedMs: null, interrupted: false, entry: null };
  }

  #ended(at, id) {
    if (!this.#turn) return;
    this.#turn.spokeMs = at - this.#turn.began;
    this.#turn.endedAt = this.#now();
    this.#turn.entry = id;
    this.#emit("turn", { turn: this.#turn });
  }

  #answered() {
    this.#answering = this.#turn?.endedAt && this.#turn.answerMs === null ? this.#turn : { answerMs: 0, entry: null };
    this.#answering.answeredAt = this.#now();
    if (!this.#answering.entry) return;
    this.#answering.answerMs = this.#answering.answeredAt - this.#answering.endedAt;
    this.#emit("turn", { turn: this.#answering });
  }

  #finished(interrupted) {
    const turn = this.#answering;
    this.#answering = null;
    if (!turn?.entry) return;
    turn.playedMs = this.#now() - turn.answeredAt;
    turn.interrupted = interrupted;
    this.#emit("turn", { turn });
  }

  // ---- functions

  async #call(response) {
    if (response.status !== "completed") return;
    const calls = response.output.filter((item) => item.type === "function_call");
    for (const { call_id: id, name, arguments: text } of calls) {
      let result;
      try {
        const run = this.#functions[name]?.run;
        if (!run) throw new Error(`there is no function ${name}`);
        result = await run(JSON.parse(text || "{}"));
      } catch (error) {
        result = { error: String(error?.message ?? error) };
      }
      this.#emit("function", { name, arguments: text, result });
      const output = JSON.stringify(result ?? null);
      this.#send({ type: "conversation.item.create", item: { type: "function_call_output", call_id: id, output } });
    }
    if (calls.length) this.#send({ type: "response.create" });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function wordsOf(item) {
  return (item.content ?? []).map((part) => part.text ?? part.transcript ?? "").join(" ").trim();
}
