"""What is in `serve/deploy` names metrics, paths and flags that exist."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serve import cli
from serve.operations.gpus import Gpus
from tests.fake_server import ROOT
from tests.serve.operations.test_gpus import FakeNvml
from tests.serve.served import Serve

DEPLOY = Path(ROOT) / "serve" / "deploy"
METRIC = re.compile(r"\b(?:(?:vllm|ingot):|http_|process_)\w+")


@pytest.mark.anyio
async def test_every_metric_that_is_drawn_or_scaled_by_exists(serve: Serve) -> None:
    async with serve() as served:
        await served.chat("Hi", max_tokens=3)
        text = (await served.http.get("/metrics")).text
    text += generate_latest(Gpus(FakeNvml(), {0: 0})).decode()  # where there are some
    families = list(text_string_to_metric_families(text))
    known = {sample.name for family in families for sample in family.samples}
    known |= {family.name + "_total" for family in families if family.type == "counter"}
    dashboard = (DEPLOY / "grafana.json").read_text()
    drawn = {name for name in METRIC.findall(dashboard)}
    scaled = set(METRIC.findall((DEPLOY / "kubernetes.yaml").read_text()))
    assert len(drawn) > 15 and scaled
    assert drawn | scaled <= known


def test_the_dashboard_is_one() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    drawn = [target["expr"] for panel in panels for target in panel["targets"]]
    assert [each for each in drawn if 'model_name=~"$model"' not in each] == []  # others' numbers
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len({panel["id"] for panel in panels}) == len(places) == len(panels)


@pytest.mark.anyio
async def test_the_manifest_probes_paths_that_answer(serve: Serve) -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert [each["kind"] for each in documents] == [
        "Deployment", "Service", "HorizontalPodAutoscaler",
    ]  # fmt: skip
    pod = documents[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [drain] = [int(each.split("=")[1]) for each in container["args"] if "shutdown-timeout" in each]
    _, before = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(before) + drain
    paths = [p["httpGet"]["path"] for key, p in container.items() if key.endswith("Probe")]
    async with serve() as served:
        for path in paths:
            assert (await served.http.get(path)).status_code == 200
    assert _flags(container["args"]) <= _known_flags()


def test_the_images_command_is_one() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    entry: list[Any] = json.loads(dockerfile.split("ENTRYPOINT ")[1].splitlines()[0])
    assert entry[:2] == ["ingot", "serve"] and _flags(entry) <= _known_flags()
    assert "mkdir -p /home/ingot/.cache/ingot" in dockerfile.split("USER ingot")[1]  # else root's


def _flags(args: list[str]) -> set[str]:
    return {arg.split("=")[0] for arg in args if arg.startswith("--")}


def _known_flags() -> set[str]:
    return {f"--{name.replace('_', '-')}" for name in inspect.signature(cli.serve).parameters}
