// The conversation on the page: words as they come, each turn's time as a bar, functions as they are called.

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;

export class Transcript {
  #list;
  #items = new Map();
  #turns = new Map(); // a turn may end before its words have a place
  #names;

  // `names()`: what the two voices are called.
  constructor(list, names) {
    this.#list = list;
    this.#names = names;
  }

  clear() {
    this.#items.clear();
    this.#turns.clear();
    this.#list.replaceChildren();
  }

  follow(talk) {
    this.clear();
    talk.addEventListener("entry", ({ detail }) => this.#showEntry(talk, detail.entry));
    talk.addEventListener("removed", ({ detail }) => this.#remove(detail.id));
    talk.addEventListener("turn", ({ detail }) => this.#showTurn(detail.turn));
    talk.addEventListener("function", ({ detail }) => this.#showFunction(detail));
  }

  #showEntry(talk, entry) {
    const item = this.#items.get(entry.id) ?? this.#place(talk, entry);
    const words = item.querySelector(".said-words");
    item.classList.toggle("said-open", entry.state === "open");
    if (entry.heard === null) {
      words.textContent = entry.words || (entry.state === "open" ? "…" : "(no words)");
      return;
    }
    const rest = document.createElement("s");
    rest.textContent = entry.words.slice(entry.heard);
    words.replaceChildren(entry.words.slice(0, entry.heard), rest);
  }

  #place(talk, entry) {
    const item = make("li", `said said-${entry.who}`);
    item.append(make("span", "said-who", this.#names()[entry.who]), make("p", "said-words"));
    this.#items.set(entry.id, item);
    const next = talk.entries[talk.entries.indexOf(entry) + 1];
    this.#list.insertBefore(item, this.#items.get(next?.id) ?? null);
    if (this.#turns.has(entry.id)) this.#showTurn(this.#turns.get(entry.id));
    this.#scroll();
    return item;
  }

  #remove(id) {
    this.#items.get(id)?.remove();
    this.#items.delete(id);
    this.#turns.delete(id);
  }

  // Speech, the wait for the answer, the answer: to one scale.
  #showTurn(shown) {
    const { entry, spokeMs, answerMs, playedMs, interrupted } = shown;
    this.#turns.set(entry, shown);
    const item = this.#items.get(entry);
    if (!item) return;
    item.querySelector(".turn")?.remove();
    const turn = make("div", "turn");
    const bar = make("span", "turn-bar");
    for (const [name, value] of [["speech", spokeMs], ["wait", answerMs], ["answer", playedMs]]) {
      if (value === null) continue;
      const part = make("span", `turn-${name}`);
      part.style.flexGrow = String(Math.max(1, value));
      bar.append(part);
    }
    bar.classList.toggle("turn-interrupted", interrupted);
    const told = [`spoke ${seconds(spokeMs)}`];
    if (answerMs !== null) told.push(`answer after ${Math.round(answerMs)} ms`);
    if (playedMs !== null) told.push(`${interrupted ? "interrupted after" : "lasted"} ${seconds(playedMs)}`);
    turn.append(bar, make("span", "turn-told", told.join(" · ")));
    item.append(turn);
    this.#scroll();
  }

  #showFunction({ name, arguments: given, result }) {
    const item = make("li", "said said-function");
    const error = result?.error;
    item.append(make("span", "said-who", "function"), make("code", "said-words", `${name}(${given}) → ${error ? `error: ${error}` : JSON.stringify(result)}`));
    this.#list.append(item);
    this.#scroll();
  }

  #scroll() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}
