"""Tiny folders of pooling models: weights, a tokenizer of whole words, and what lies beside."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.pooling_cases import CASES
from tests.parity.pooling_goldens import read
from tests.parity.weights import tensor

WORDS = ["the", "dog", "cat", "sat", "on", "a", "mat", "ran", "over", "hill", "far", "away", "in"]


def write_tokenizer(folder: Path) -> None:
    """BERT's way: [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with types 0 and 1."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "##s"]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    backend.save(str(folder / "tokenizer.json"))


def write_folder(folder: Path, case: str, **changes: Any) -> Path:
    """The checkpoint of a parity case with a tokenizer; `changes` go into its config.json."""
    config = {**CASES[case].config, **changes}
    tensors = {
        name: tensor(CASES[case].seed, name, shape, CASES[case].spread)
        for name, shape in read(case).tensors
    }
    write_checkpoint(folder, config, tensors)
    write_tokenizer(folder)
    return folder


def write_modules(folder: Path, pooling: Mapping[str, Any], *kinds: str, **settings: Any) -> None:
    """What sentence-transformers writes: a Transformer, a Pooling, and then `kinds`."""
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(
            [("Transformer", ""), ("Pooling", "1_Pooling"), *((k, f"2_{k}") for k in kinds)]
        )
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
