"""BERT's `vocab.txt`, as a `tokenizers` backend: a piece a line, "##ing" for one within a word.

Owns that file and the classes of tokenizers that mean the same by it; any other is refused, for it
may put other tokens around a text.
Source: google-research/bert, tokenization.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from engine.tokenizers.vocabulary_file import VocabularyFile, tokenizer_class
from models.errors import CheckpointError, UnsupportedError

CLASSES = (None, "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
ROLES = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}  # fmt: skip


def read_wordpiece(path: Path, config: Mapping[str, Any]) -> VocabularyFile:
    """Args:
        config: `tokenizer_config.json`.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedError: it is of a tokenizer that is not known.
    """
    name = tokenizer_class(config)
    if name not in CLASSES:
        raise UnsupportedError(
            f"What a {str(name)[:60]} does with {path} is not known; save the tokenizer as "
            "tokenizer.json, with transformers' save_pretrained."
        )
    strip = config.get("strip_accents")
    if strip is not None and not isinstance(strip, bool):
        raise CheckpointError("strip_accents in tokenizer_config.json must be true or false.")
    try:
        lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    ids = {line.removesuffix("\r"): place for place, line in enumerate(lines)}
    if missing := sorted({*ROLES.values()} - ids.keys() - {"[MASK]"}):
        raise CheckpointError(f"{path} is no vocabulary of BERT: it has no {missing[0]}.")
    backend = word_pieces(
        ids,
        lowercase=config.get("do_lower_case") is not False,
        strip_accents=strip,
        chinese=config.get("tokenize_chinese_chars") is not False,
    )
    backend.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    roles = {role: text for role, text in ROLES.items() if text in ids}
    added = {ids[text]: AddedToken(text, special=True, normalized=False) for text in roles.values()}
    return VocabularyFile(backend, added, roles)


def word_pieces(
    ids: Mapping[str, int],
    *,
    unknown: str = "[UNK]",
    lowercase: bool,
    strip_accents: bool | None,
    chinese: bool = True,
) -> Backend:
    """A backend with these pieces; accents go as capitals do where nothing is said of them."""
    backend = Backend(models.WordPiece(dict(ids), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece("##")
    return backend
