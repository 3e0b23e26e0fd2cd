"""uvicorn's WebSockets over wsproto, which the extra `audio` brings, hardened as its HTTP is."""

from importlib.util import find_spec
from typing import Any

MAX_MESSAGE_BYTES = 4 * 2**20  # some 98 seconds of speech in base64


def has_websockets() -> bool:
    """Whether wsproto is installed."""
    return find_spec("wsproto") is not None


def websocket_settings() -> dict[str, Any]:
    """Of uvicorn: what it is to speak on a connection that becomes a WebSocket."""
    if not has_websockets():
        return {"ws": "none"}
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
    from wsproto.utilities import LocalProtocolError

    class HardenedWebsocket(WSProtocol):
        """One connection; where nothing sensible can be answered, it ends."""

        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except (LocalProtocolError, AttributeError, ValueError):
                self.transport.abort()

    return {
        "ws": HardenedWebsocket,
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,  # of few bytes, many would be made
    }
