"""The tokens by which a model like Whisper is told what to write, and says when it was said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import RequestError
from engine.tokenizers.tokenizer import Tokenizer

SECONDS = 0.02  # from one timestamp to the next
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True, slots=True)
class SpeechTokens:
    """Ids; all from `end` on are special, and those from `first_timestamp` on are times."""

    end: int
    start: int
    transcribe: int
    translate: int
    previous: int
    no_timestamps: int
    no_speech: int | None
    languages: Mapping[str, int]  # "en"; empty where the model knows English only
    suppressed: tuple[int, ...]  # that are never to be written

    @property
    def first_timestamp(self) -> int:
        return self.no_timestamps + 1

    def prompt(
        self, language: str, task: str, before: Sequence[int], *, timestamps: bool
    ) -> list[int]:
        """What the decoder begins with; `before` are ids of what was said before."""
        ids = [self.previous, *before, self.start] if before else [self.start]
        if self.languages:
            ids += [self.languages[language], self.task(task)]
        return ids if timestamps else [*ids, self.no_timestamps]

    def task(self, name: str) -> int:
        return self.translate if name == "translate" else self.transcribe

    def check(self, language: str | None, task: str) -> None:
        """Raise RequestError for a language, or a translation, that the model does not know."""
        if task == "translate" and not self.languages:
            raise RequestError("This model knows English only and does not translate.", "model")
        known = self.languages or ("en",)
        if language is not None and language not in known:
            raise RequestError(
                f"language {language[:20]!r} is not known to this model; its languages are "
                f"{', '.join(sorted(known))}.",
                "language",
            )


def speech_tokens(tokenizer: Tokenizer, generation: Mapping[str, Any]) -> SpeechTokens | None:
    """Those of a tokenizer, None if it lacks one; `generation` is generation_config.json."""
    names = "endoftext", "startoftranscript", "transcribe", "translate", "startofprev"
    ids = {name: tokenizer.token_id(f"<|{name}|>") for name in (*names, "notimestamps")}
    known = {name: id for name, id in ids.items() if id is not None}
    if len(known) < len(ids):
        return None
    no_speech = tokenizer.token_id("<|nospeech|>")
    special = tokenizer.special_token_ids
    languages = {m[1]: id for name, id in special.items() if (m := _LANGUAGE.fullmatch(name))}
    never = generation.get("suppress_tokens")
    return SpeechTokens(
        end=known["endoftext"],
        start=known["startoftranscript"],
        transcribe=known["transcribe"],
        translate=known["translate"],
        previous=known["startofprev"],
        no_timestamps=known["notimestamps"],
        no_speech=tokenizer.token_id("<|nocaptions|>") if no_speech is None else no_speech,
        languages={} if generation.get("is_multilingual") is False else languages,
        suppressed=tuple(never) if isinstance(never, list) else (),
    )
