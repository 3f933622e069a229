"""Who may attach to which call as a controller (docs/signalling.md#sideband)."""

from __future__ import annotations

from service.logs import get_logger
from transceiver.session import Controller, Life, Session
from transceiver.signalling import Permit, SignallingError

__all__ = ["attach_controller"]

log = get_logger()


def attach_controller(session: Session | None, permit: Permit) -> Controller:
    """Raises SignallingError. A call of another key, and one that no agent behind a link has, is as if it were not."""
    if (
        session is None
        or session.life in (Life.CLOSING, Life.CLOSED)
        or not session.conversation.is_controllable
        or (session.client.key if session.client is not None else "") != permit.key
    ):
        message = "There is no such call, or none that can be controlled with this key."
        raise SignallingError(404, "call_not_found", message, param="call_id")
    controller = session.conversation.add_controller()
    if controller is None:
        message = "The call has as many controllers as it may have."
        raise SignallingError(429, "controller_limit", message, param="call_id")
    log.info("controller attached", call=session.call_id, number=controller.number)
    return controller
