"""Every kernel at every shape that people run it at."""

from pallas_kernels.attention import cases as attention
from pallas_kernels.cache import cases as cache
from pallas_kernels.case import Case
from pallas_kernels.mla import cases as mla
from pallas_kernels.moe import cases as moe
from pallas_kernels.quantized import cases as quantized
from pallas_kernels.sampling import cases as sampling
from pallas_kernels.state_space import cases as state_space

CASES: tuple[Case, ...] = (
    *attention.CASES,
    *cache.CASES,
    *mla.CASES,
    *moe.CASES,
    *quantized.CASES,
    *sampling.CASES,
    *state_space.CASES,
)


def find_cases(pattern: str, cases: tuple[Case, ...] = CASES) -> tuple[Case, ...]:
    """Those whose kernel or name contains `pattern`; all for an empty one."""
    return tuple(case for case in cases if pattern in case.kernel or pattern in case.name)
