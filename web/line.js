// The state of the line, read from getStats: round trip, loss each way, jitter, codec, and levels for the meters.

const WINDOW = 10; // readings over which received loss is averaged

// Bytes of an Opus packet of a silent and of a lively voice, as browsers encode it.
const QUIET_BYTES = 38;
const LIVELY_BYTES = 100;

export class Line {
  #pc;
  #history = [];
  #sent = null;

  constructor(pc) {
    this.#pc = pc;
  }

  async read() {
    const entries = [...(await this.#pc.getStats()).values()];
    const of = (type) => entries.filter((entry) => entry.type === type && (entry.kind ?? "audio") === "audio");
    const inbound = of("inbound-rtp")[0];
    const remote = of("remote-inbound-rtp")[0];
    const source = of("media-source")[0];
    const effort = this.#effort(of("outbound-rtp")[0]);
    const pair = selectedPair(entries);
    const codec = inbound && entries.find((entry) => entry.id === inbound.codecId);
    return {
      roundTrip: milliseconds(pair?.currentRoundTripTime ?? remote?.roundTripTime),
      lossIn: inbound ? this.#lossIn(inbound) : null,
      lossOut: percent(remote?.fractionLost),
      jitter: milliseconds(inbound?.jitter),
      codec: codec?.mimeType?.split("/")[1] ?? null,
      levelReceived: inbound?.audioLevel ?? receivedLevel(this.#pc),
      levelSent: source?.audioLevel ?? effort,
    };
  }

  // Firefox does not report the microphone's level. Its encoder's effort tells whether somebody speaks: Opus spends
  // more bytes on a livelier sound. A rough stand-in, used only where samples cannot be had either.
  #effort(outbound) {
    if (!outbound) return undefined;
    const { bytesSent, packetsSent } = outbound;
    const before = this.#sent;
    this.#sent = { bytesSent, packetsSent };
    if (!before || packetsSent <= before.packetsSent) return undefined;
    const bytes = (bytesSent - before.bytesSent) / (packetsSent - before.packetsSent);
    const liveliness = Math.min(1, Math.max(0, (bytes - QUIET_BYTES) / (LIVELY_BYTES - QUIET_BYTES)));
    return liveliness === 0 ? 0 : 10 ** ((-45 + 33 * liveliness) / 20);
  }

  #lossIn({ packetsReceived = 0, packetsLost = 0 }) {
    this.#history.push([packetsReceived, packetsLost]);
    if (this.#history.length > WINDOW) this.#history.shift();
    const [received, lost] = this.#history[0];
    const gained = packetsReceived - received;
    const missed = Math.max(0, packetsLost - lost);
    return gained + missed > 0 ? percent(missed / (gained + missed)) : null;
  }
}

function selectedPair(entries) {
  const transport = entries.find((entry) => entry.type === "transport" && entry.selectedCandidatePairId);
  const pairs = entries.filter((entry) => entry.type === "candidate-pair");
  return (
    (transport && pairs.find((pair) => pair.id === transport.selectedCandidatePairId)) ??
    pairs.find((pair) => pair.selected) ?? // Firefox
    pairs.find((pair) => pair.nominated && pair.state === "succeeded")
  );
}

function receivedLevel(pc) {
  const receiver = pc.getReceivers().find(({ track }) => track?.kind === "audio");
  return receiver?.getSynchronizationSources?.()[0]?.audioLevel;
}

function milliseconds(seconds) {
  return Number.isFinite(seconds) ? seconds * 1000 : null;
}

function percent(fraction) {
  return Number.isFinite(fraction) ? fraction * 100 : null;
}
