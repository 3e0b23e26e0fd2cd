"""What the GPU is, and the most that it can do: the rates that every other time is held against."""

import platform
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp

from tests.gpu.records import Log
from tests.gpu.timing import seconds


def measure(log: Log, folder: Path, quick: bool) -> None:
    """Record the device and its ceilings; save its description for compiling without it."""
    device = jax.devices()[0]
    log.add(
        "facts",
        device=device.device_kind,
        platform=device.platform,
        driver=_driver(),
        python=platform.python_version(),
        jax=jax.__version__,
        jaxlib=jax.lib.__version__,
    )
    if device.platform == "gpu":
        _save_target(folder)
    size = 2**20 if quick else 2**30
    data = jax.random.normal(jax.random.key(0), (size,), jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    rate = 2 * data.nbytes / seconds(lambda: copy(data), quick=quick)
    side = 256 if quick else 8192
    a = jax.random.normal(jax.random.key(1), (side, side), jnp.bfloat16)
    product = jax.jit(lambda x: x @ x)
    flops = 2 * side**3 / seconds(lambda: product(a), quick=quick)
    log.add("ceilings", copy_gb_s=rate / 1e9, bf16_tflop_s=flops / 1e12)


def _save_target(folder: Path) -> None:
    """The exact description of this GPU, for `pallas_kernels/targets/`."""
    from jax._src.lib import xla_client

    topology = xla_client.get_topology_for_devices(jax.devices())
    name = jax.devices()[0].device_kind.replace(" ", "-").lower()
    (folder / f"{name}.txtpb").write_text(str(topology.target_config))


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
