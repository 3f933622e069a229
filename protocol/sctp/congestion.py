"""How much may be in flight, and how long to wait for an answer (RFC 9260 §6.3.1, §7.2)."""

from __future__ import annotations

from protocol.sctp.config import SctpConfig

__all__ = ["CongestionWindow", "RoundTrip"]

# Specification constants
RTO_ALPHA = 1 / 8
RTO_BETA = 1 / 4
MAX_BURST = 4  # packets


class RoundTrip:
    """The retransmission timeout, estimated from round trips."""

    __slots__ = ("_config", "_deviation", "_measured", "rto", "smoothed")

    def __init__(self, config: SctpConfig) -> None:
        self._config = config
        self._deviation = 0.0
        self.rto = self._measured = config.rto_initial
        self.smoothed: float | None = None

    def sample(self, seconds: float) -> None:
        if self.smoothed is None:
            self.smoothed, self._deviation = seconds, seconds / 2
        else:
            self._deviation += RTO_BETA * (abs(self.smoothed - seconds) - self._deviation)
            self.smoothed += RTO_ALPHA * (seconds - self.smoothed)
        rto = self.smoothed + 4 * self._deviation
        self.rto = self._measured = min(max(rto, self._config.rto_min), self._config.rto_max)

    def back_off(self) -> None:
        self.rto = min(self.rto * 2, self._config.rto_max)

    def progress(self) -> None:
        """New data was acknowledged: the path works, so the back-off ends at once. RFC 9260 would keep it until a
        sample, which retransmissions cannot give (Karn); `spurious` is what makes this safe."""
        self.rto = self._measured

    def spurious(self) -> None:
        """The peer reported a duplicate TSN: we repeated too early, or its answer was lost. The timeout grows until
        a sample says otherwise; without this a path slower than the timeout would never be measured."""
        self._measured = min(self._measured * 2, self._config.rto_max)
        self.rto = max(self.rto, self._measured)


class CongestionWindow:
    """Slow start, congestion avoidance, fast recovery. All sizes are bytes of user data."""

    __slots__ = ("_partial", "_unit", "recovery_exit", "size", "threshold")

    def __init__(self, unit: int) -> None:
        self._unit = unit
        self._partial = 0  # partial_bytes_acked
        self.size = min(4 * unit, max(2 * unit, 4404))  # §7.2.1
        self.threshold = 1 << 30  # set from the peer's window when that is known
        self.recovery_exit: int | None = None  # the TSN whose acknowledgement ends fast recovery

    def acknowledged(self, octets: int, cumulative_tsn: int, flight_before: int) -> None:
        """The cumulative TSN advanced over `octets` new bytes; `flight_before` was in flight until then."""
        if self.recovery_exit is not None:
            if cumulative_tsn < self.recovery_exit:
                return  # §7.2.4: no growth in fast recovery
            self.recovery_exit = None
        # Only a window that was in use may grow (§7.2.1, §7.2.2): within a packet of it counts as in use.
        used = flight_before + self._unit > self.size
        if self.size <= self.threshold:
            if used:
                self.size += min(octets, self._unit)
        else:
            self._partial += octets
            if self._partial >= self.size:
                self._partial -= self.size
                if used:
                    self.size += self._unit

    def all_acknowledged(self) -> None:
        """§7.2.2: what was counted towards growth belonged to a flight that has ended."""
        self._partial = 0

    def lost_some(self, highest_tsn: int) -> bool:
        """Three missing reports; True if that begins a fast recovery, which lasts until `highest_tsn`."""
        if self.recovery_exit is not None:
            return False
        self.threshold = max(self.size // 2, 4 * self._unit)
        self.size = self.threshold
        self._partial = 0
        self.recovery_exit = highest_tsn
        return True

    def lost_all(self) -> None:
        """T3 expired (§7.2.3)."""
        self.threshold = max(self.size // 2, 4 * self._unit)
        self.size = self._unit
        self._partial = 0
        self.recovery_exit = None

    def idle(self, timeouts: int) -> None:
        """Nothing was sent for that many retransmission timeouts (§7.2.1)."""
        for _ in range(min(timeouts, 16)):
            self.size = max(self.size // 2, min(self.size, 4 * self._unit))
        self._partial = 0

    def burst(self, flight: int) -> int:
        """The limit for one go at sending (§6.1 D)."""
        return min(self.size, flight + MAX_BURST * self._unit)
