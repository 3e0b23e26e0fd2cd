"""Metrics of GPUs, as a driver that is not there would tell them."""

import sys
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serve.operations.gpus import find_gpus
from serve.operations.metrics import Metrics


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml:
    """Two GPUs, of which the second does not tell its temperature."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, count: int = 2, has_driver: bool = True) -> None:
        self.count, self.has_driver = count, has_driver

    def nvmlInit(self) -> None:
        if not self.has_driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"GPU-b": 1}[uuid]

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return f"H200 {gpu}"

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(used=10 + gpu, total=100)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=75)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        if gpu == 1:
            raise NVMLError("Not Supported")
        return 41

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 345_600


def shown(monkeypatch: pytest.MonkeyPatch, nvml: object, visible: str | None = None) -> str:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = find_gpus()
    if gpus is None:
        return ""
    registry = CollectorRegistry()
    registry.register(gpus)
    return generate_latest(registry).decode()


def test_what_each_gpu_says(monkeypatch) -> None:
    text = shown(monkeypatch, FakeNvml())
    first, second = '{gpu="0",name="H200 0"}', '{gpu="1",name="H200 1"}'
    for line in (
        f"ingot:gpu_memory_used_bytes{first} 10.0",
        f"ingot:gpu_memory_used_bytes{second} 11.0",
        f"ingot:gpu_memory_total_bytes{second} 100.0",
        f"ingot:gpu_utilization_ratio{first} 0.75",
        f"ingot:gpu_temperature_celsius{first} 41.0",
        f"ingot:gpu_power_watts{first} 345.6",
    ):
        assert line in text
    assert f"ingot:gpu_temperature_celsius{second}" not in text


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", ["H200 1"]),
        ("GPU-b,0", ["H200 1", "H200 0"]),
        ("0, 7, 1", ["H200 0"]),  # CUDA stops at the first that is none
        ("-1", []),
        ("", []),
    ],
)
def test_only_what_cuda_sees(monkeypatch, visible, names) -> None:
    text = shown(monkeypatch, FakeNvml(), visible)
    lines = [line for line in text.splitlines() if line.startswith("ingot:gpu_power_watts{")]
    assert [line.split('name="')[1].split('"')[0] for line in lines] == names
    assert [line.split('gpu="')[1][0] for line in lines] == [str(i) for i in range(len(names))]


@pytest.mark.parametrize("nvml", [None, FakeNvml(count=0), FakeNvml(has_driver=False)])
def test_where_there_are_none(monkeypatch, nvml) -> None:
    assert shown(monkeypatch, nvml) == ""


def test_they_are_among_the_servers_metrics(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    text = generate_latest(Metrics("tiny", gpus=find_gpus()).registry).decode()
    assert "ingot:gpu_power_watts" in text and "vllm:num_requests_running" in text
