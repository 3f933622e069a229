// How loud a voice is, from 0 to 1, sixty times a second if it must be.
//
// An AnalyserNode listens to the samples. Where the browser keeps the AudioContext suspended (no gesture, headless
// Firefox), the level that getStats or the RTP header reports stands in: coarser, but never stuck at nothing.

const FLOOR_DB = -60;
const CEILING_DB = -6;
const EXPONENT = 1.4; // speech lives in the upper half of the scale; this spreads it

export function loudness(rms) {
  if (!(rms > 0)) return 0;
  const db = 20 * Math.log10(rms);
  const height = Math.min(1, Math.max(0, (db - FLOOR_DB) / (CEILING_DB - FLOOR_DB)));
  return height ** EXPONENT;
}

export class Levels {
  #context = null;
  #taps = new Map();
  #reported = new Map();

  constructor() {
    try {
      this.#context = new AudioContext({ latencyHint: "interactive" });
      this.#context.resume().catch(() => {});
    } catch {
      // no Web Audio: reports alone
    }
  }

  listen(name, stream) {
    if (!this.#context || !stream.getAudioTracks().length) return;
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    const source = this.#context.createMediaStreamSource(stream);
    source.connect(analyser);
    this.#taps.set(name, { source, analyser, samples: new Float32Array(analyser.fftSize) });
  }

  // A linear level, 0 to 1, from statistics.
  report(name, level) {
    if (Number.isFinite(level)) this.#reported.set(name, level);
  }

  get suspended() {
    return this.#context?.state !== "running";
  }

  level(name) {
    const tap = this.#taps.get(name);
    if (!tap || this.suspended) return loudness(this.#reported.get(name) ?? 0);
    tap.analyser.getFloatTimeDomainData(tap.samples);
    let sum = 0;
    for (const sample of tap.samples) sum += sample * sample;
    return loudness(Math.sqrt(sum / tap.samples.length));
  }

  close() {
    for (const { source } of this.#taps.values()) source.disconnect();
    this.#taps.clear();
    this.#reported.clear();
    this.#context?.close().catch(() => {});
    this.#context = null;
  }
}
