"""From a request's fields to a beam search: `use_beam_search`, and what goes with it.

    n, best_of          sequences that are answered, beams that are searched; best_of is n, if
                        it is left out
    length_penalty      1, early_stopping false, if they are left out; as in transformers

A search takes no option that draws, bends or cuts what the model says; each is refused by its
name, and the model's own sampling defaults do not apply.
"""

from collections.abc import Mapping
from typing import Any

from engine.beams.params import BeamSearchParams
from engine.errors import RequestError
from engine.messages import ModelInfo
from engine.sampling.params import SamplingParams
from serve.protocol.completions import CompletionRequest
from serve.protocol.decoding import GenerationRequest, WatermarkWish
from serve.protocol.structured_outputs import Constraint

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "stop": ([],),
    "stop_regex": ([],),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "min_tokens": (0,),
    "prompt_logprobs": (),
    "prompt_logprobs_start": (0,),
    "logit_bias": ({},),
    "logprob_token_ids": (),
    "allowed_token_ids": (),
    "thinking_token_budget": (-1,),
    "watermarking": (False,),
    "watermark": (WatermarkWish(enabled=False),),
    "routed_experts_prompt_start": (0,),
    "return_routed_experts": (False,),
    "return_spec_tokens_details": (False,),
    "vllm_xargs": ({},),
    "custom_params": ({},),
    "repetition_detection": (),
    "prediction": (),
}


def check_beams(request: GenerationRequest, constraint: Constraint | None) -> None:
    """Raise RequestError for a field that does not go with a beam search, or needs one."""
    if request.use_beam_search:
        if constraint is not None:
            raise RequestError(
                f"{constraint.field} cannot be used with use_beam_search.", constraint.field
            )
        for name, neutral in _NEUTRAL.items():
            value = getattr(request, name, None)
            if value is not None and value not in neutral:
                raise RequestError(f"{name} cannot be used with use_beam_search.", name)
        if (request.best_of or request.n or 1) < (request.n or 1):
            raise RequestError("best_of must be at least n.", "best_of")
        return
    if request.best_of not in (None, request.n or 1) and not isinstance(request, CompletionRequest):
        raise RequestError("best_of needs use_beam_search; leave it out.", "best_of")
    if request.length_penalty not in (None, 1):
        raise RequestError("length_penalty needs use_beam_search.", "length_penalty")
    if request.early_stopping:
        raise RequestError("early_stopping needs use_beam_search.", "early_stopping")


def sampling_defaults(request: GenerationRequest, of_model: Mapping[str, Any]) -> Mapping[str, Any]:
    """What applies where the request says nothing."""
    return {"temperature": 0.0} if request.use_beam_search else of_model


def beams_of(
    request: GenerationRequest, params: SamplingParams, info: ModelInfo
) -> BeamSearchParams | None:
    """The search that `request` asks for, if it does; `params` are its options, fitted.

    Raises RequestError, also for more beams than this model can have.
    """
    if not request.use_beam_search:
        return None
    if params.prompt_logprobs is not None:
        raise RequestError("echo with logprobs cannot be used with use_beam_search.", "echo")
    width_name = "n" if request.best_of is None else "best_of"
    width = params.n if request.best_of is None else request.best_of
    penalty, stopping = request.length_penalty, request.early_stopping
    try:
        beams = BeamSearchParams(
            beam_width=width,
            max_tokens=params.max_tokens or info.max_model_len,
            ignore_eos=params.ignore_eos,
            temperature=params.temperature,
            length_penalty=1.0 if penalty is None else penalty,
            early_stopping=False if stopping is None else stopping,
        )
    except RequestError as error:
        if error.param == "beam_width":
            raise RequestError(str(error).replace("beam_width", width_name), width_name) from None
        raise
    beams.check_model(info.vocab_size, len(info.eos_token_ids), width_name)
    return beams
