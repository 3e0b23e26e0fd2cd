"""A `tekken.json` of Mistral, as a `tokenizers` backend: tiktoken's ranks with all they lack.

    config            the pattern that splits words, how many ids are used, how many are special
    vocab             tokens in base64 by rank; an id is the rank behind the special ones
    special_tokens    their names; files before version 7 leave them to a list, which is here

Owns that file. How ranks become merges is `tiktoken_file`'s.
Source: `tokens/tokenizers/tekken.py` of mistral-common.
"""

import binascii
from base64 import b64decode
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Backend

from engine.tokenizers.gguf_words import Words, split_words
from engine.tokenizers.tiktoken_file import rank_model
from engine.tokenizers.vocabulary_file import VocabularyFile
from models.checkpoints.checkpoint import read_object
from models.errors import CheckpointError

MAX_SPECIAL = 2**16
OLD_NAMES = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
    "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)  # fmt: skip
_ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def read_tekken(path: Path) -> VocabularyFile:
    """Raises CheckpointError for a file that is malformed."""
    said = read_object(path)
    try:
        settings: dict[str, Any] = said["config"]
        count = int(settings["default_num_special_tokens"])
        if not 0 < count <= MAX_SPECIAL:
            raise ValueError(f"it cannot have {count} special tokens")
        special = _names(said.get("special_tokens"), count)
        entries = said["vocab"][: int(settings["default_vocab_size"]) - count]
        tokens = [b64decode(entry["token_bytes"], validate=True) for entry in entries]
        if [entry["rank"] for entry in entries] != list(range(len(tokens))):
            raise ValueError("its ranks are not 0, 1, 2, ...")
        known = set(tokens)
        if missing := [one for one in range(256) if bytes([one]) not in known]:
            raise ValueError(f"the byte {missing[0]} is no token")
        backend = Backend(rank_model(tokens, special))
        split_words(backend, Words((settings["pattern"],)))
    except KeyError as error:
        raise CheckpointError(f"{path} is no tekken file: it has no {error}.") from None
    except (binascii.Error, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is no tekken file: {error}.") from None
    except Exception as error:  # the Rust library raises nothing more precise
        raise CheckpointError(f"{path} does not hold a vocabulary: {error}.") from None
    backend.decoder = decoders.ByteLevel()
    added = {
        one: AddedToken(name, special=True, normalized=False) for one, name in enumerate(special)
    }
    roles = {role: name for role, name in _ROLES.items() if name in special}
    return VocabularyFile(backend, added, {**roles, "add_bos_token": True})


def _names(listed: list[dict[str, Any]] | None, count: int) -> list[str]:
    """Names of the first `count` ids."""
    if listed is None:
        known = dict(enumerate(OLD_NAMES))
    else:
        known = {int(entry["rank"]): str(entry["token_str"]) for entry in listed}
    return [known.get(place, f"<SPECIAL_{place}>") for place in range(count)]
