"""Whose tokens carry the watermark."""

from msgspec.structs import replace

from engine.errors import RequestError
from engine.messages import AddRequest
from engine.sampling.options import LEAST_TEMPERATURE
from engine.watermarking.config import WatermarkConfig


def with_watermark(message: AddRequest, config: WatermarkConfig | None) -> AddRequest:
    """The same, of which `watermarking` is true where its tokens are to have the engine's: where
    nobody says otherwise, that is where they are drawn.

    Raises:
        RequestError: it asks for one that it cannot have.
    """
    params = message.params
    drawn = params.temperature >= LEAST_TEMPERATURE
    if params.watermarking and config is None:
        raise RequestError(
            "watermarking needs an engine with --watermark-config; leave it out.", "watermarking"
        )
    if params.watermarking and not drawn:
        raise RequestError(
            "watermarking needs a temperature above 0: where nothing is drawn, there is no "
            "choice that a watermark could be in. Leave it out.",
            "watermarking",
        )
    wanted = config is not None and drawn and params.watermarking is not False
    return replace(message, params=replace(params, watermarking=wanted)) if wanted else message
