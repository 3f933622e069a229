"""What can be set on an association, with the recommendations of RFC 9260 §16 beside the values that differ."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SctpConfig"]


@dataclass(frozen=True, slots=True)
class SctpConfig:
    max_packet_size: int = 1150  # one SCTP packet is one DTLS record within 1200 bytes of UDP (RFC 8261 §5)
    base_packet_size: int = 512  # until the path has shown that it takes the largest
    max_message_size: int = 262144  # largest message we accept; say the same in a=max-message-size
    max_dropped_size: int = 1024 * 1024  # a message up to this is dropped and told; a larger one ends the association
    receive_window: int = 1024 * 1024
    max_pieces: int = 8192  # messages and part messages waiting for others: small ones cost more than their bytes
    streams: int = 1024  # in each direction; the limit of Chromium too
    max_channels: int = 256
    max_label: int = 1024  # bytes of label and protocol of a channel that the peer opens; the wire allows 131070
    send_buffer: int = 262144  # per channel, bytes not yet sent; more is refused
    send_buffer_low: int = 65536  # a refused channel becomes writable below this
    send_buffer_total: int = 4 * 1024 * 1024  # all channels together
    max_flight: int = 1024 * 1024  # bytes sent and not acknowledged, whatever window and path allow

    # RFC 9260 says RTO.Initial 1 s, RTO.Min 1 s, RTO.Max 60 s. Real-time peers (dcSCTP) do with less: a lost first
    # message must not wait a second. The minimum stays above any delayed acknowledgement (200 ms).
    rto_initial: float = 0.5
    rto_min: float = 0.4
    rto_max: float = 10.0
    # T1 guards the opening, which nothing is measured for yet: an INIT is small, and one too many harms nobody, while one
    # lost at 1 s, 2 s, 4 s (RFC 9260 §16) is what a caller waits for (docs/adr/0013).
    setup_initial: float = 0.1
    setup_max: float = 1.0
    max_init_retransmits: int = 32  # half a minute
    max_stale_cookies: int = 8
    association_max_retransmits: int = 10
    cookie_lifetime: float = 60.0
    sack_delay: float = 0.1  # RFC: at most 0.2 s usual, 0.5 s ever
    heartbeat_interval: float = 30.0
    shutdown_guard: float = 15.0  # T5 of §9.2; RFC: five times RTO.Max
