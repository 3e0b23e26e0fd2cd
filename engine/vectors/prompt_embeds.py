"""Prompts that come as embeddings instead of tokens: what one may be, and where it waits.

    torch.save, safetensors ┐
    lists of numbers        ├─ rows [n, D], checked ─ bytes ─> engine: `PromptEmbeds` of a request
    an array of Python's    ┘

In token ids a place whose embedding the request gives is GIVEN. Rows stay on the host as long as
their request: it may be preempted, and computed again. Knows no JAX.
"""

import hashlib
import tempfile
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from engine.errors import RequestError
from engine.messages import AddRequest, ModelInfo
from engine.sampling.params import SamplingParams
from models.checkpoints.safetensors import SafetensorsFile
from models.errors import CheckpointError
from models.quantised.tensors import Readable
from models.torch_file.reader import TensorFile

GIVEN = -2  # token id: the embedding that the request gives for this place
FIELD = "prompt_embeds"
MAX_BYTES = 1 << 28  # of one request's; several fit into a frame to the engine
DTYPES = tuple(np.dtype(t) for t in ("<f2", "<f4", "<f8", ml_dtypes.bfloat16))
_ARCHIVES = (b"PK\x03\x04", b"\x80")  # what torch.save begins with, now and before

Rows = NDArray[Any]  # [n, D], in the model's dtype


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class PromptEmbeds:
    """The embeddings of a prompt, one row a token; `digest` stands for them all."""

    rows: Rows
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.rows.tobytes()).hexdigest())

    def __len__(self) -> int:
        return len(self.rows)

    def namespace(self, cache_salt: str) -> str:
        """Of the pages behind them: prompts share these if all their embeddings are the same."""
        salt = hashlib.sha256(cache_salt.encode()).hexdigest()
        return f"embeds {self.digest} {salt}"


class EmbedsAtWork:
    """What requests at work have of it, by the request that brought it; siblings share one."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info
        self._held: WeakValueDictionary[int, PromptEmbeds] = WeakValueDictionary()

    def of(self, message: AddRequest) -> PromptEmbeds | None:
        """A request's, if it has some; raises RequestError."""
        if message.same_embeds_as is not None:
            found = self._held.get(message.same_embeds_as)
            if found is None:
                raise RequestError("The embeddings of this prompt were refused.", FIELD)
            return found
        if not message.prompt_embeds:
            return None
        check_taken(self._info)
        width, dtype = self._info.prompt_embeds_size, np.dtype(self._info.dtype)
        count = len(message.prompt_token_ids)
        if len(message.prompt_embeds) != count * width * dtype.itemsize:
            raise RequestError(f"prompt_embeds are not {count} rows of {width} numbers.", FIELD)
        if any(token != GIVEN for token in message.prompt_token_ids):
            raise RequestError("A prompt is embeddings only or token ids only.", FIELD)
        rows = np.frombuffer(message.prompt_embeds, dtype).reshape(count, width)
        embeds = self._held[message.request_id] = PromptEmbeds(rows)
        return embeds


def check_taken(info: ModelInfo) -> None:
    """Raise RequestError where prompts are tokens only."""
    if not info.prompt_embeds_size:
        raise RequestError(
            "Prompts of embeddings are not taken here; start with --enable-prompt-embeds.", FIELD
        )


def check_options(params: SamplingParams, *, beams: bool) -> None:
    """Raise RequestError for what needs a prompt of tokens."""
    if params.prompt_logprobs is not None:
        raise RequestError(
            "prompt_logprobs score tokens, and a prompt of embeddings has none.", "prompt_logprobs"
        )
    if beams:
        raise RequestError(
            "Beams are searched behind prompts of tokens only; leave out use_beam_search.", FIELD
        )


def rows_of(value: Any, info: ModelInfo) -> Rows:
    """Rows of an array of NumPy, JAX or PyTorch, or of lists of numbers; raises RequestError."""
    check_taken(info)
    if hasattr(value, "detach"):  # a tensor of PyTorch, of which NumPy has no bfloat16
        value = value.detach().cpu().float().numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise RequestError("prompt_embeds is no array of numbers [tokens, D].", FIELD) from None
    if isinstance(value, list) and array.dtype.kind in "iu":
        array = array.astype(np.float32)
    return _checked(array, info)


def decode(text: str, info: ModelInfo) -> Rows:
    """Rows of base64 of a file with one tensor, of `torch.save` or safetensors; RequestError."""
    check_taken(info)
    try:
        content = a2b_base64(text.encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        raise RequestError("prompt_embeds is no base64.", FIELD) from None
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        path = Path(file.name)
        try:
            reader = TensorFile if content.startswith(_ARCHIVES) else SafetensorsFile
            with reader(path) as found:
                [tensor] = found.tensors.values()
                return _read(tensor, info)
        except (CheckpointError, ValueError) as error:
            raise RequestError(
                f"prompt_embeds holds no tensor as torch.save or safetensors writes one"
                f"{_reason(error, path)}.",
                FIELD,
            ) from None


def _reason(error: Exception, path: Path) -> str:
    """What was wrong with it, without the name of a file that nobody knows."""
    said = str(error).partition(": ")[2].partition(";")[0] if str(path) in str(error) else ""
    return f": {said[:200]}" if said and str(path) not in said else ""


def _read(tensor: Readable, info: ModelInfo) -> Rows:
    """Sizes are looked at before anything is made: a view may repeat a number without end."""
    if len(tensor.shape) == 3 and tensor.shape[0] == 1:
        tensor = tensor.entry(0)
    _check_shape(tensor.shape, tensor.dtype, info)
    return _checked(tensor.read(), info)


def _checked(array: NDArray[Any], info: ModelInfo) -> Rows:
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    _check_shape(array.shape, array.dtype, info)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, np.dtype(info.dtype))
    finite = np.isfinite(rows.astype(np.float32, copy=False)).all(axis=1)
    if not finite.all():
        raise RequestError(
            f"prompt_embeds holds a number in row {int(finite.argmin())} that is not finite in "
            f"{info.dtype}.",
            FIELD,
        )
    return rows


def _check_shape(shape: Sequence[int], dtype: np.dtype[Any], info: ModelInfo) -> None:
    width = info.prompt_embeds_size
    if dtype not in DTYPES:
        raise RequestError(
            f"prompt_embeds holds {dtype}; it takes float32, bfloat16, float16 or float64.", FIELD
        )
    if len(shape) != 2 or shape[1] != width:
        raise RequestError(
            f"prompt_embeds has the shape {tuple(shape)}; this model takes [tokens, {width}].",
            FIELD,
        )
    if not shape[0]:
        raise RequestError("The prompt is empty: it must hold at least one row.", FIELD)
    if shape[0] >= info.max_model_len:
        raise RequestError(
            f"prompt_embeds has {shape[0]} rows; this model's context holds {info.max_model_len}, "
            "and at least one must be left to generate.",
            FIELD,
        )
    size = shape[0] * width * np.dtype(info.dtype).itemsize
    if size > MAX_BYTES:
        raise RequestError(
            f"prompt_embeds takes {size} bytes, and at most {MAX_BYTES} can be.", FIELD
        )
