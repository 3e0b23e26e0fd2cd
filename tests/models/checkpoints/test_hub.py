"""Models by name: which files are fetched, what is kept, and the sentence for what goes wrong."""

import json
import re
from pathlib import Path

import huggingface_hub.constants
import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.model_files import located
from models.checkpoints.hub import HubError, fetch, fetch_adapter, is_hub_name
from tests.models.checkpoints.fake_hub import COMMIT, FakeHub, fake_hub

BIG = bytes(range(256)) * 4000
SMALL_NAMES = (
    "config.json", "tokenizer.json", "chat_template.jinja", "1_Pooling/config.json",
    "additional_chat_templates/tool_use.jinja", "tokenizer.model", "qwen.tiktoken",
)  # fmt: skip
OTHER_NAMES = (
    "README.md", "pytorch_model.bin", "model.onnx", "original/params.json", "onnx/config.json",
    "consolidated.safetensors",
)  # fmt: skip


def made(*names: str) -> dict[str, bytes]:
    """Files of different contents: the cache has one place for equal ones."""
    return {name: name.encode() for name in names}


SMALL = made(*SMALL_NAMES)
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
SHARDS = {
    "model.safetensors.index.json": INDEX.encode(),
    "model-1.safetensors": BIG,
    "model-2.safetensors": b"2",
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 100_000)


def get(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str = "org/name",
        **options: object) -> Path:  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return fetch(name, download_dir=str(cache), **options)


def test_what_is_needed_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub(FakeHub(SMALL | SHARDS | made(*OTHER_NAMES))) as hub:
        folder = get(hub, tmp_path, monkeypatch)
        assert sorted(hub.fetched()) == sorted(SMALL | SHARDS)
        assert (folder / "model-1.safetensors").read_bytes() == BIG
        hub.log.clear()
        assert get(hub, tmp_path, monkeypatch) == folder
        assert hub.fetched() == []


def test_an_adapter_is_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = made("adapter_config.json", "adapter_model.safetensors")
    with fake_hub(FakeHub(wanted | made("adapter_model.bin", "README.md", "config.json"))) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        folder = fetch_adapter("org/name", str(tmp_path))
        assert {path.name for path in folder.iterdir()} == set(wanted)
    with fake_hub(FakeHub(SMALL)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(HubError, match="so it is no adapter"):
            fetch_adapter("org/name", str(tmp_path / "other"))
        with pytest.raises(HubError, match="write org/name"):
            fetch_adapter("org/name:Q4", str(tmp_path))


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (("model.safetensors", "pytorch_model.bin"), "model.safetensors"),
        (("pytorch_model.bin", "tf_model.h5"), "pytorch_model.bin"),
    ],
)
def test_safetensors_go_before_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], wanted: str
) -> None:
    with fake_hub(FakeHub(made("config.json", *files))) as hub:
        get(hub, tmp_path, monkeypatch)
        assert hub.fetched() == ["config.json", wanted]


def test_random_weights_need_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub(FakeHub(made("config.json", "model.safetensors"))) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        config = EngineConfig(model="org/name", load_format="dummy", download_dir=str(tmp_path))
        assert (Path(located(config).model) / "config.json").is_file()
        assert hub.fetched() == ["config.json"]


def test_a_connection_that_breaks_off_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(FakeHub(SMALL | SHARDS, cut={"model-1.safetensors": 300_000})) as hub:
        folder = get(hub, tmp_path, monkeypatch)
    assert (folder / "model-1.safetensors").read_bytes() == BIG
    ranges = [r for m, path, r in hub.log if m == "GET" and path.endswith("model-1.safetensors")]
    assert len(ranges) == 2 and ranges[0] is None
    assert re.fullmatch(r"bytes=[1-9]\d*-.*", ranges[1] or "")


def test_a_download_that_was_given_up_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(FakeHub(SMALL | SHARDS, broken={"model-2.safetensors"})) as hub:
        with pytest.raises(HubError, match=r"interrupted .*; the same command goes on with wh"):
            get(hub, tmp_path, monkeypatch)
        hub.broken.clear()
        hub.log.clear()
        folder = get(hub, tmp_path, monkeypatch)
        assert hub.fetched() == ["model-2.safetensors"]
        assert (folder / "model-1.safetensors").read_bytes() == BIG


def test_one_gguf_file_and_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [f"big-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    with fake_hub(FakeHub(made("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", *parts))) as hub:
        file = get(hub, tmp_path, monkeypatch, "org/name:q4_k_m")
        assert file.name == "m-Q4_K_M.gguf" and file.is_file()
        assert get(hub, tmp_path, monkeypatch, "org/name:Q8_0").name == parts[0]
        assert sorted(hub.fetched()) == [*parts, "m-Q4_K_M.gguf"]
        for name, message in (
            ("org/name:Q4_K", "has 2 GGUF files with 'Q4_K' in their name"),
            ("org/name:Q2_K", "has 0 GGUF files with 'Q2_K'.*it has big-Q8_0-00001"),
            ("org/name", r"say which one, as in org/name:Q4_K_M\. It has big-Q8"),
        ):
            with pytest.raises(HubError, match=message):
                get(hub, tmp_path, monkeypatch, name)


@pytest.mark.parametrize(
    ("part", "file"),
    [("F16", "m-F16.gguf"), ("bf16", "m-BF16.gguf"), ("Q2_K", "m.Q2_K.gguf")],
)
def test_a_gguf_file_may_have_a_name_that_is_in_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, file: str
) -> None:
    names = "m-F16.gguf", "m-BF16.gguf", "m.Q2_K.gguf", "m.Q2_K_L.gguf"
    with fake_hub(FakeHub(made(*names))) as hub:
        assert get(hub, tmp_path, monkeypatch, f"org/name:{part}").name == file


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("org/other", {}, "There is no folder 'org/other', and no model at http.*/org/other that"),
        ("org/name", {"revision": "v9"}, "The model org/name has no revision 'v9'"),
        ("org/name", {}, "org/name has no config.json"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, str],
    message: str,
) -> None:
    with fake_hub(FakeHub(made("README.md"))) as hub, pytest.raises(HubError, match=message):
        get(hub, tmp_path, monkeypatch, name, **options)


def test_a_gated_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        fake_hub(FakeHub(SMALL, gated=True)) as hub,
        pytest.raises(HubError, match=r"gated: accept its terms at .*/org/name, and give a token"),
    ):
        get(hub, tmp_path, monkeypatch)


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_the_cache_is_used_or_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    with fake_hub(FakeHub(SMALL | SHARDS)) as hub:
        folder = get(hub, tmp_path, monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    assert get(hub, tmp_path, monkeypatch) == folder
    assert (folder / "model-2.safetensors").is_file()
    why = "HF_HUB_OFFLINE is set" if offline else "ConnectError|ConnectionError"
    with pytest.raises(HubError, match=rf"is not whole in .*empty and cannot be .*\((?:{why})"):
        get(hub, tmp_path / "empty", monkeypatch)


def test_what_may_be_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "folder").mkdir(parents=True)
    names = ("Qwen/Qwen3-0.6B", "a/b:Q4_K_M")
    paths = ("demo", "here/folder", "./a/b", "/a/b", "a/b/c", "~/a", "../a", "a/", "a:b", "a/b.")
    assert all(map(is_hub_name, names))
    assert [path for path in paths[:-1] if is_hub_name(path)] == []


def test_a_revision_of_a_local_folder_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--revision is for models on the Hugging Face hub"):
        located(EngineConfig(revision="main"))
    assert located(EngineConfig()) == EngineConfig()


def test_a_commit_is_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub(FakeHub(made("config.json", "model.safetensors"))) as hub:
        folder = get(hub, tmp_path, monkeypatch, revision="main")
    assert folder.name == COMMIT
