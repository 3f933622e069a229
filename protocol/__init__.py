"""The protocol core: bytes in, bytes out. Time and entropy are arguments; no I/O, no clock, no logging.

Import from the sub-packages: `protocol.stun`, `protocol.ice`, `protocol.dtls`, `protocol.srtp`, `protocol.rtp`,
`protocol.sctp`, `protocol.sdp`, `protocol.routing`, `protocol.agentlink`, `protocol.peer`.
"""
