// What comes out of a call, as it would reach the ear: loudness of the received audio every few milliseconds, with the time of
// the audio clock. `new Ear(context)`, `await ear.open()`, `ear.listen(track)`.

const METER = `registerProcessor("meter", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.sum = this.count = 0;
    this.rows = [];
  }
  process([input]) {
    const samples = input[0];
    if (samples) for (const value of samples) this.sum += value * value;
    this.count += 128;
    if (this.count >= BLOCK) {
      // The moment is the end of the block.
      this.rows.push([currentTime + 128 / sampleRate, Math.sqrt(this.sum / this.count)]);
      this.sum = this.count = 0;
      if (this.rows.length >= 8) {
        this.port.postMessage(this.rows);
        this.rows = [];
      }
    }
    return true;
  }
});`;

export class Ear {
  static block = 128; // samples of a row

  constructor(context) {
    this.context = context;
    this.rows = []; // [seconds of the context, RMS]
  }

  async open() {
    const code = METER.replaceAll("BLOCK", String(Ear.block));
    await this.context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], {type: "text/javascript"})));
    this.node = new AudioWorkletNode(this.context, "meter", {channelCount: 1, channelCountMode: "explicit"});
    this.node.port.onmessage = (event) => this.rows.push(...event.data);
    this.node.connect(this.context.destination); // its output is silent, but what leads nowhere is not rendered
  }

  listen(track) {
    this.source = this.context.createMediaStreamSource(new MediaStream([track]));
    this.source.connect(this.node);
  }

  // Whether all, or none, of the last `seconds` were louder than `level`.
  isLoud(seconds, level = 0.02) {
    const rows = this.rows.filter((row) => row[0] > this.context.currentTime - seconds);
    return rows.length > 0 && rows.filter((row) => row[1] > level).length > 0.8 * rows.length;
  }

  isSilent(seconds, level = 0.02) {
    const rows = this.rows.filter((row) => row[0] > this.context.currentTime - seconds);
    return rows.length > 0 && rows.every((row) => row[1] < level);
  }
}
