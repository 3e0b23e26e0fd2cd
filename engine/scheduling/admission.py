"""What a request must satisfy before the engine takes it; nothing later may fail because of it."""

from engine.encoders.align_request import AlignRequest
from engine.errors import RequestError
from engine.messages import AddRequest
from engine.sampling.state import check_bad_words
from engine.vectors.prompt_embeds import check_options

MAX_PRIORITY = 2**31 - 1


def check(
    message: AddRequest,
    *,
    vocab_size: int,
    max_model_len: int,
    by_priority: bool,
    max_encoder_len: int = 0,
    mel_bins: int = 0,
    embeds: bool = False,
    aligns: bool = False,
) -> None:
    """Raise `RequestError` naming the field that cannot be served by this model.

    `embeds`: the prompt is embeddings, and its ids say only how many.
    """
    prompt = message.prompt_token_ids
    if not prompt:
        raise RequestError("The prompt is empty: it must hold at least one token.", "prompt")
    if len(prompt) >= max_model_len:
        raise RequestError(
            f"The prompt has {len(prompt)} tokens; this model's context holds {max_model_len}, "
            "and at least one must be left to generate.",
            "prompt",
        )
    if embeds:
        check_options(message.params, beams=False)
    else:
        _check_ids("prompt", prompt, vocab_size)
    if mel_bins:
        _check_features(message, max_encoder_len, mel_bins)
    else:
        _check_encoder(message.encoder_token_ids, vocab_size, max_encoder_len)
        if message.encoder_features:
            raise RequestError("This model hears no audio; send text.", "prompt")
    if message.align is not None:
        _check_align(message.align, len(prompt), max_encoder_len, aligns=aligns)
    check_bad_words(message.bad_word_ids)
    for word in message.bad_word_ids:
        _check_ids("bad_words", word, vocab_size)
    if message.thinking is not None:
        end = message.thinking.end_token_ids
        if not end:
            raise RequestError("No token ends this model's reasoning.", "thinking_token_budget")
        _check_ids("thinking_token_budget", end, vocab_size)
    if message.prediction_token_ids:
        _check_ids("prediction", message.prediction_token_ids, vocab_size)
    message.params.check_vocabulary(vocab_size)
    if message.priority and not by_priority:
        raise RequestError("priority needs the setting --scheduling-policy priority.", "priority")
    if abs(message.priority) > MAX_PRIORITY:
        raise RequestError(f"priority must be within +-{MAX_PRIORITY}.", "priority")


def _check_encoder(ids: list[int], vocab_size: int, longest: int) -> None:
    if bool(ids) != bool(longest):
        raise RequestError(
            "The prompt of the encoder is empty: it must hold at least one token."
            if longest
            else "This model has no encoder that could read a prompt of its own.",
            "prompt",
        )
    if len(ids) > longest:
        raise RequestError(
            f"The prompt has {len(ids)} tokens and this model's encoder reads up to {longest}.",
            "prompt",
        )
    if ids:
        _check_ids("prompt", ids, vocab_size)


def _check_features(message: AddRequest, length: int, mel_bins: int) -> None:
    if not message.encoder_features or message.encoder_token_ids:
        raise RequestError(
            "This model's encoder hears audio and reads no text; send a file to "
            "/v1/audio/transcriptions.",
            "prompt",
        )
    expected = 2 * length * mel_bins * 4
    if len(message.encoder_features) != expected:
        raise RequestError(
            f"A spectrogram of this model has {2 * length} frames of {mel_bins} float32, "
            f"{expected} bytes, and this one has {len(message.encoder_features)}.",
            "prompt",
        )


def _check_align(align: AlignRequest, length: int, longest: int, *, aligns: bool) -> None:
    if not aligns:
        raise RequestError(
            "This model does not say when words are said.", "timestamp_granularities"
        )
    if not 0 <= align.first < length or not 0 < align.positions <= longest:
        raise RequestError("There is no text, or no audio, to align.", "prompt")


def _check_ids(param: str, ids: list[int], vocab_size: int) -> None:
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(token for token in ids if not 0 <= token < vocab_size)
        raise RequestError(
            f"{param} holds token id {wrong}, which is no id of this model "
            f"(0 to {vocab_size - 1}).",
            param,
        )
