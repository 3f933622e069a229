// A voice written as square notation on four lines: higher is louder, a rest is silence.
//
// Both staves share one clock, so an answer stands to the right of its call by as much as it was late. The pen moves
// from left to right and starts again at the left; what stood there fades first. Nothing scrolls.

const NOTE_MS = 110;
const NOTE_SPACE = 1.4; // in widths of a note
const FADE_NOTES = 12; // what the pen comes upon next grows faint
const SILENCE = 0.06;
const CLEF_ROOM = 30;
// Shown before the first call: a phrase, as heights on the staff (0 is a rest).
const PHRASE = [0.5, 0.5, 0.62, 0.75, 0.75, 0.62, 0.75, 0.88, 0.88, 0.75, 0.62, 0.5, 0.62, 0.62, 0, 0.62, 0.5, 0.38, 0.5, 0.5];

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Staff {
  #canvas;
  #brush;
  #notes = [];
  #began = null;
  #loudest = 0;
  #noted = 0;
  #colours = null;
  #prelude;

  // `prelude`: after how many notes the phrase shown before the first call begins.
  constructor(canvas, prelude) {
    this.#canvas = canvas;
    this.#prelude = prelude;
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
    const { span } = this.#measure();
    while (this.#notes.length && now - this.#notes[0].at > span) this.#notes.shift();
  }

  draw(now) {
    const brush = this.#brush;
    const measure = this.#measure();
    const { width, height, top, gap, note, room, span } = measure;
    brush.clearRect(0, 0, width, height);
    this.#drawLines(width, top, gap);
    if (this.#began === null) {
      this.#drawPrelude(measure);
      return;
    }
    const place = (at) => CLEF_ROOM + (((at - this.#began) % span) / span) * room;
    const tie = this.#tie(measure);
    brush.fillStyle = this.#colours.note;
    for (const { at, level } of this.#notes) {
      const left = (span - (now - at)) / (FADE_NOTES * NOTE_MS);
      brush.globalAlpha = Math.min(1, Math.max(0, left));
      tie(place(at), level);
    }
    brush.globalAlpha = 1;
    if (!still.matches) {
      brush.fillStyle = this.#colours.pen;
      brush.fillRect(Math.round(place(now) + note + 2), top - gap * 0.5, 1, gap * 4);
    }
  }

  // The phrase on the first staff, and its answer further on the second.
  #drawPrelude(measure) {
    const tie = this.#tie(measure);
    this.#brush.fillStyle = this.#colours.pen;
    this.#brush.globalAlpha = 0.55;
    PHRASE.forEach((level, index) => tie(CLEF_ROOM + (this.#prelude + index) * measure.note * NOTE_SPACE, level));
    this.#brush.globalAlpha = 1;
  }

  // A pen for notes of one line: those of one breath are tied where they leap, as in the old books.
  #tie({ width, top, gap, note }) {
    const brush = this.#brush;
    let before = null;
    return (x, level) => {
      if (level < SILENCE || x + note > width) {
        before = null;
        return;
      }
      const y = top + 3.5 * gap - level * 4 * gap;
      if (before && x > before.x && Math.abs(before.y - y) > note * 0.8) {
        brush.fillRect((before.x + note + x) / 2 - 0.75, Math.min(before.y, y), 1.5, Math.abs(before.y - y));
      }
      brush.fillRect(x, y - note / 2, note, note);
      before = { x, y };
    };
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

  // A line holds as many notes as fit beside each other; with their pace, that is its time.
  #measure() {
    const scale = devicePixelRatio || 1;
    const width = this.#canvas.width / scale;
    const height = this.#canvas.height / scale;
    const gap = Math.min(16, (height - 24) / 3);
    const note = Math.max(5, Math.min(8, gap * 0.55));
    const room = Math.max(note, width - CLEF_ROOM - note - 4);
    const span = Math.max(1, room / (note * NOTE_SPACE)) * NOTE_MS;
    return { width, height, gap, top: (height - 3 * gap) / 2, note, room, span };
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
