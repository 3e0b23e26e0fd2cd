"""How config.json says that a checkpoint is quantised, and who reads it then.

Owns the names of methods, which are Hugging Face's and vLLM's, and what of their settings is
understood; what is not is an error. Knows neither devices nor decoders.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.checkpoints.safetensors import Tensor
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.quantised.eight_bits import read_eight_bits
from models.quantised.four_bits import read_awq, read_gptq, read_packed
from models.quantised.mxfp4 import read_mxfp4
from models.quantised.tensors import QuantisedTensor, Readable

Tensors = Mapping[str, Tensor]
WHERE = "config.json's quantization_config"


@dataclass(frozen=True)
class Method:
    """One way in which checkpoints are quantised, with its settings."""

    name: str
    fields: Fields

    def read(self, tensors: Mapping[str, Readable]) -> Mapping[str, Readable]:
        """The checkpoint with the tensors that it would have if it were not quantised.

        Raises:
            CheckpointError: scales are missing or have another shape than their weights call for,
                or nothing is quantised.
            UnsupportedError: a setting is not understood.
        """
        stored = {name: one for name, one in tensors.items() if isinstance(one, Tensor)}
        found = METHODS[self.name](self.fields, stored)
        if not any(isinstance(one, QuantisedTensor) for one in found.values()):
            raise CheckpointError(
                f"{WHERE} says that the weights are quantised by {self.name!r}, and none of the "
                f"tensors is; use the config.json that belongs to these weights."
            )
        return found


def quantisation_method(config: Mapping[str, Any]) -> Method | None:
    """How config.json says that the weights are quantised; None if they are not.

    Raises:
        CheckpointError: it says it by something else than an object.
        UnsupportedError: in a way that is not read.
    """
    asked = Fields(config)
    raw = asked.section("quantization_config").raw or asked.section("compression_config").raw
    if not raw:
        return None
    name = raw.get("quant_method")
    if not isinstance(name, str) or name not in METHODS:
        raise UnsupportedError(
            f"The checkpoint is quantised ({name!r}); only {', '.join(METHODS)} are read, so use "
            f"the checkpoint it was made from."
        )
    return Method(name, Fields(raw, WHERE))


def _read_modelopt(fields: Fields, tensors: Tensors) -> dict[str, Readable]:
    fields.option("quant_algo", ("FP8",), "FP8")
    return read_eight_bits(tensors)


def _read_compressed_tensors(fields: Fields, tensors: Tensors) -> dict[str, Readable]:
    sparse = fields.section("sparsity_config").text("format", "dense")
    if sparse != "dense":
        raise UnsupportedError(f"{WHERE}: sparse weights ({sparse!r}) are not read.")
    named = fields.section("config_groups")
    groups = [named.section(name) for name in named.raw]
    if len(groups) != 1:
        raise UnsupportedError(
            f"{WHERE} has {len(groups)} config_groups; checkpoints are read whose linear maps are "
            "all quantised alike."
        )
    (group,), one = groups, groups[0].section("weights")
    bits, kind = one.integer("num_bits"), one.option("type", ("int", "float"))
    form = fields.option("format", _FORMS)
    if form == "pack-quantized" and kind == "int" and bits in (4, 8):
        if "input_activations" not in group:
            return read_packed(bits, tensors)
    elif bits == 8 and group.section("input_activations").raw and one.flag("symmetric", True):
        return read_eight_bits(tensors)
    raise UnsupportedError(
        f"{WHERE} asks for {form!r} of {kind} with {bits} bits; 'pack-quantized' int of 4 and 8 "
        "bits is read, and symmetric weights beside activations, both of 8 bits, int or float."
    )


_FORMS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")

METHODS: Mapping[str, Callable[[Fields, Tensors], dict[str, Readable]]] = {
    "fp8": lambda _, tensors: read_eight_bits(tensors),
    "fbgemm_fp8": lambda _, tensors: read_eight_bits(tensors),
    "modelopt": _read_modelopt,
    "compressed-tensors": _read_compressed_tensors,
    "gptq": read_gptq,
    "awq": read_awq,
    "mxfp4": lambda _, tensors: read_mxfp4(tensors),
}
