"""What it takes to hear."""

from engine.errors import RequestError
from engine.tokenizers.tokenizer import Tokenizer
from serve.audio.tokens import SpeechTokens
from serve.service import Service


def speech_of(service: Service, model_name: str | None) -> tuple[Tokenizer, SpeechTokens]:
    """The tokenizer of the model, and its tokens for speech; raises NotFoundError for one that is
    not served, RequestError for one that hears nothing."""
    service.check_model(model_name)
    service.check_writes()
    model = service.model
    if not service.client.info.mel_bins or model.speech is None or model.tokenizer is None:
        raise RequestError("This model hears no audio; serve one such as Whisper.", "model")
    return model.tokenizer, model.speech
