"""All families that are read from GGUF files, and what the converter did to their tensors."""

from collections.abc import Mapping

from models.gguf.dense import DENSE
from models.gguf.early import EARLY
from models.gguf.fused import FUSED
from models.gguf.gemma4 import GEMMA_4
from models.gguf.gemmas import GEMMAS
from models.gguf.granites import GRANITES
from models.gguf.growing import GROWING
from models.gguf.indexed import INDEXED
from models.gguf.keyed import KEYED
from models.gguf.mixtures import MIXTURES
from models.gguf.names import CONVERTED, Converted
from models.gguf.packed import PACKED
from models.gguf.scaled import SCALED
from models.gguf.single import SINGLE
from models.gguf.stated import Stated
from models.gguf.states import STATES
from models.gguf.windowed import WINDOWED

STATED: Mapping[str, Stated] = {
    **MIXTURES, **STATES, **GEMMAS, **GROWING, **INDEXED, **KEYED, **EARLY, **FUSED, **GRANITES,
    **PACKED, **SCALED, **SINGLE, **WINDOWED, **GEMMA_4,
}  # fmt: skip
FAMILIES: Mapping[str, Converted] = {
    **CONVERTED,
    **{name: one.converted for name, one in DENSE.items()},
    **{name: one.converted for name, one in STATED.items()},
}
