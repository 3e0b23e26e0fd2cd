"""All families that are read from GGUF files, and what the converter did to their tensors."""

from collections.abc import Mapping

from models.gguf.families.dense import DENSE
from models.gguf.families.early import EARLY
from models.gguf.families.fused import FUSED
from models.gguf.families.gemma4 import GEMMA_4
from models.gguf.families.gemmas import GEMMAS
from models.gguf.families.granites import GRANITES
from models.gguf.families.growing import GROWING
from models.gguf.families.indexed import INDEXED
from models.gguf.families.keyed import KEYED
from models.gguf.families.mixtures import MIXTURES
from models.gguf.families.packed import PACKED
from models.gguf.families.scaled import SCALED
from models.gguf.families.single import SINGLE
from models.gguf.families.stated import Stated
from models.gguf.families.states import STATES
from models.gguf.families.windowed import WINDOWED
from models.gguf.tensors.names import CONVERTED, Converted

STATED: Mapping[str, Stated] = {
    **MIXTURES, **STATES, **GEMMAS, **GROWING, **INDEXED, **KEYED, **EARLY, **FUSED, **GRANITES,
    **PACKED, **SCALED, **SINGLE, **WINDOWED, **GEMMA_4,
}  # fmt: skip
FAMILIES: Mapping[str, Converted] = {
    **CONVERTED,
    **{name: one.converted for name, one in DENSE.items()},
    **{name: one.converted for name, one in STATED.items()},
}
