"""What NVIDIA's driver says about the GPUs, for /metrics: memory, use, temperature, power.

Read by `nvidia-ml-py` (pynvml), which comes with the extras `cuda12` and `cuda13`. Without it,
without a driver or without GPUs there are no such metrics, and no error.
"""

import logging
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

logger = logging.getLogger("ingot.serve")
_LABELS = ("gpu", "name")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
Reading = Callable[[Any, Any], float]
_READINGS: dict[str, Reading] = {
    "ingot:gpu_memory_used_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "ingot:gpu_memory_total_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    "ingot:gpu_utilization_ratio": lambda nvml, gpu: (
        nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100
    ),
    "ingot:gpu_temperature_celsius": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(
        gpu, nvml.NVML_TEMPERATURE_GPU
    ),
    "ingot:gpu_power_watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
}


class Gpus:
    """A collector of Prometheus'; `handles` are NVML's, by the number that CUDA knows them by."""

    def __init__(self, nvml: Any, handles: dict[int, Any]) -> None:
        self._nvml = nvml
        self._handles = handles
        self._names = {number: nvml.nvmlDeviceGetName(gpu) for number, gpu in handles.items()}

    def collect(self) -> Iterator[Metric]:
        """What can be read now; a GPU that does not tell a value is left out of it."""
        for name, read in _READINGS.items():
            gauge = GaugeMetricFamily(
                name, name.partition(":")[2].replace("_", " "), labels=_LABELS
            )
            for number, gpu in self._handles.items():
                try:
                    gauge.add_metric((str(number), self._names[number]), read(self._nvml, gpu))
                except self._nvml.NVMLError:
                    continue
            if gauge.samples:
                yield gauge


def find_gpus() -> Gpus | None:
    """The GPUs of this process; None where there are none, or nobody can say."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handles = _handles(nvml, os.environ.get(_VISIBLE))
        return Gpus(nvml, handles) if handles else None
    except nvml.NVMLError as error:
        logger.info("No metrics of GPUs: %s.", error)
        return None


def _handles(nvml: Any, visible: str | None) -> dict[int, Any]:
    """By numbers from 0, as CUDA counts: all, or those that `visible` lists up to a wrong one."""
    if visible is None:
        count = nvml.nvmlDeviceGetCount()
        return {number: nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)}
    found: dict[int, Any] = {}
    for number, each in enumerate(filter(None, map(str.strip, visible.split(",")))):
        try:
            if each.lstrip("-").isdigit():
                found[number] = nvml.nvmlDeviceGetHandleByIndex(int(each))
            else:
                found[number] = nvml.nvmlDeviceGetHandleByUUID(each)
        except nvml.NVMLError:
            break
    return found
