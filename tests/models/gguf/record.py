"""Lets llama.cpp's converter write files of the cases: `python -m tests.models.gguf.record FOLDER`.

FOLDER is a checkout of llama.cpp with `conversion/`. Needs PyTorch and transformers. What it writes
is kept as keys, names, shapes and digests in `recorded.json`, so tests need neither.
"""

import json
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.models.gguf.stated_cases import PATH, STATED_CASES, changed, digest
from tests.parity.paged import write_case

SKIPPED = ("GGUF.", "general.type", "general.name", "general.size_label", "general.file_type")


def convert(name: str, folder: Path) -> Path:
    """Write the case and convert it to float32."""
    import gguf
    import torch
    from conversion import get_model_class

    case, golden = changed(name)
    checkpoint, file = folder / name, folder / f"{name}.gguf"
    write_case(checkpoint, case, golden)
    told = {**case.config, **STATED_CASES[name].stated}
    (checkpoint / "config.json").write_text(json.dumps(told))
    if name.startswith("gemma4"):  # rows behind the last token are left out
        words = {str(token): token for token in range(told["vocab_size"])}
        vocabulary = {"model": {"vocab": words}, "added_tokens": []}
        (checkpoint / "tokenizer.json").write_text(json.dumps(vocabulary))
    kind = get_model_class(told["architectures"][0])
    kind.no_mtp = True
    own = {"hparams": told} if STATED_CASES[name].alone else {}
    with torch.inference_mode():
        model = kind(checkpoint, gguf.LlamaFileType.ALL_F32, file, eager=True, **own)
        model = getattr(model, "impl", model)  # of Mistral's, which have two kinds
        model.set_vocab = lambda: None  # there is no tokenizer
        for which in ("bos", "eos"):
            key = f"tokenizer.ggml.{which}_token_id"
            model.gguf_writer.add_uint32(key, told[f"{which}_token_id"])
        model.write()
    return file


def described(file: Path) -> dict[str, Any]:
    """Keys and tensors of a file."""
    import gguf

    reader = gguf.GGUFReader(file)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    return {
        "keys": {key: one for key, one in keys.items() if not key.startswith(SKIPPED)},
        "tensors": {
            one.name: [[int(size) for size in one.shape[::-1]], digest(one.data)]
            for one in reader.tensors
        },
    }


def _mend_baichuan() -> None:
    """Its converter calls itself with all tensors but those of queries, keys and values."""
    from conversion.baichuan import BaichuanModel
    from conversion.base import TextModel

    packed = BaichuanModel.modify_tensors

    def modified(self: Any, tensor: Any, name: str, layer: int | None) -> Any:
        own = packed if "W_pack" in name else TextModel.modify_tensors
        yield from own(self, tensor, name, layer)

    BaichuanModel.modify_tensors = modified


def main() -> None:
    checkout = Path(sys.argv[1])
    sys.path[:0] = [str(checkout / "gguf-py"), str(checkout)]
    logging.disable(logging.CRITICAL)
    import gguf

    dense = (gguf.MODEL_TENSOR.FFN_GATE, gguf.MODEL_TENSOR.FFN_UP, gguf.MODEL_TENSOR.FFN_DOWN)
    for family in (gguf.MODEL_ARCH.QWEN3NEXT, gguf.MODEL_ARCH.MELLUM):
        gguf.MODEL_TENSORS[family].extend(dense)  # the cases have a dense layer
    _mend_baichuan()
    with TemporaryDirectory() as folder:
        found = {name: described(convert(name, Path(folder))) for name in STATED_CASES}
    lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
