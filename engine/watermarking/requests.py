"""Whose tokens carry the watermark."""

from typing import Literal

from msgspec.structs import replace

from engine.errors import RequestError
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from engine.watermarking.config import WatermarkConfig

Status = Literal["watermarked", "skipped", "not_watermarked"]


def status_of(params: SamplingParams, *, beams: bool = False) -> Status:
    """What becomes of a request to an engine that has a watermark, in vLLM's words: `skipped` is
    one that could have none."""
    if params.watermarking is False:
        return "not_watermarked"
    return "watermarked" if params.draws and not beams else "skipped"


def with_watermark(message: AddRequest, config: WatermarkConfig | None) -> AddRequest:
    """The same, of which `watermarking` is true where its tokens are to have the engine's: where
    nobody says otherwise, that is where they are drawn.

    Raises:
        RequestError: it asks for one that it cannot have.
    """
    params = message.params
    if params.watermarking and config is None:
        raise RequestError(
            "watermarking needs an engine with --watermark-config; leave it out.", "watermarking"
        )
    if params.watermarking and not params.draws:
        raise RequestError(
            "watermarking needs a temperature above 0: where nothing is drawn, there is no "
            "choice that a watermark could be in. Leave it out.",
            "watermarking",
        )
    wanted = config is not None and status_of(params) == "watermarked"
    return replace(message, params=replace(params, watermarking=wanted)) if wanted else message
