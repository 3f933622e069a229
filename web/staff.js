// A voice written as square notation on four lines: higher is louder, a rest is silence.
//
// Both staves share one clock, so an answer stands to the right of its call by as much as it was late. The pen moves
// from left to right and starts again at the left; what stood there fades first. Nothing scrolls.

const SPAN_MS = 9000; // the time one line holds
const NOTE_MS = 90;
const FADE_MS = 1400; // what the pen comes upon next grows faint
const SILENCE = 0.06;
const CLEF_ROOM = 30;

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Staff {
  #canvas;
  #brush;
  #notes = [];
  #began = null;
  #loudest = 0;
  #noted = 0;
  #colours = null;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#brush = canvas.getContext("2d");
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#recolour());
    this.#recolour();
  }

  begin(now) {
    this.#notes = [];
    this.#began = this.#noted = now;
    this.#loudest = 0;
  }

  // One reading of the level; notes are written at their own, slower pace.
  hear(level, now) {
    this.#loudest = Math.max(this.#loudest, level);
    if (now - this.#noted < NOTE_MS) return;
    this.#noted = now;
    this.#notes.push({ at: now, level: this.#loudest });
    this.#loudest = 0;
    while (this.#notes.length && now - this.#notes[0].at > SPAN_MS) this.#notes.shift();
  }

  draw(now) {
    const brush = this.#brush;
    const { width, height } = this.#size();
    brush.clearRect(0, 0, width, height);
    const gap = Math.min(16, (height - 24) / 3);
    const top = (height - 3 * gap) / 2;
    this.#drawLines(width, top, gap);
    if (this.#began === null) return;
    const note = Math.max(5, Math.min(9, gap * 0.62));
    const room = width - CLEF_ROOM - note - 4;
    const place = (at) => CLEF_ROOM + (((at - this.#began) % SPAN_MS) / SPAN_MS) * room;
    const rise = (level) => top + 3.5 * gap - level * 4 * gap;
    let before = null;
    brush.fillStyle = this.#colours.note;
    for (const { at, level } of this.#notes) {
      const age = now - at;
      brush.globalAlpha = Math.min(1, Math.max(0, (SPAN_MS - age) / FADE_MS));
      if (level < SILENCE) {
        before = null;
        continue;
      }
      const x = place(at);
      const y = rise(level);
      // Notes of one breath are tied where they leap, as in the old books.
      if (before && x > before.x && Math.abs(before.y - y) > note * 0.8) {
        brush.fillRect(x - 0.75, Math.min(before.y, y), 1.5, Math.abs(before.y - y));
      }
      brush.fillRect(x, y - note / 2, note, note);
      before = { x, y };
    }
    brush.globalAlpha = 1;
    if (!still.matches) {
      brush.fillStyle = this.#colours.pen;
      brush.fillRect(place(now) + note + 2, top - gap * 0.5, 1, gap * 4);
    }
  }

  #drawLines(width, top, gap) {
    const brush = this.#brush;
    brush.fillStyle = this.#colours.line;
    for (let line = 0; line < 4; line += 1) brush.fillRect(0, Math.round(top + line * gap), width, 1);
    // A C clef on the second line: two squares and a stem.
    const y = top + gap;
    brush.fillStyle = this.#colours.clef;
    brush.fillRect(6, y - gap * 0.55, 2, gap * 1.1);
    brush.fillRect(6, y - gap * 0.62, 8, gap * 0.4);
    brush.fillRect(6, y + gap * 0.22, 8, gap * 0.4);
  }

  #size() {
    const scale = devicePixelRatio || 1;
    return { width: this.#canvas.width / scale, height: this.#canvas.height / scale };
  }

  #fit() {
    const scale = devicePixelRatio || 1;
    const box = this.#canvas.getBoundingClientRect();
    this.#canvas.width = Math.round(box.width * scale);
    this.#canvas.height = Math.round(box.height * scale);
    this.#brush.setTransform(scale, 0, 0, scale, 0, 0);
    this.draw(performance.now());
  }

  #recolour() {
    const style = getComputedStyle(this.#canvas);
    const read = (name) => style.getPropertyValue(name).trim();
    this.#colours = { line: read("--staff"), clef: read("--clef"), note: read("--voice"), pen: read("--pen") };
    this.draw(performance.now());
  }
}
