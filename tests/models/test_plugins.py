"""Models of other packages: found by name, loaded when asked for, named when they are broken."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import plugins, registry
from models.plugins import PluginError

FAMILY = """
from models.architectures import llama
ARCHITECTURES = ("OwnForCausalLM", "LlamaForCausalLM")
ENCODERS = ("OwnModel",)
config, weights = llama.config, llama.weights
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with one module and one entry point on the path."""

    def put(module: str, source: str, name: str, group: str = plugins.MODELS) -> None:
        folder = tmp_path / module
        about = folder / f"{module}-1.2.dist-info"
        about.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module, raising=False)
        plugins._entries.cache_clear()

    yield put
    plugins._entries.cache_clear()


def find(name: str) -> registry.Architecture:
    return registry.find_architecture({"architectures": [name]})


def test_a_module_of_another_package_is_found_and_loaded_when_asked_for(install: Install) -> None:
    install("own_family", FAMILY, "OwnForCausalLM")
    assert "OwnForCausalLM" in registry.supported()
    assert find("LlamaForCausalLM").__name__ == "models.architectures.llama"
    assert "own_family" not in sys.modules
    assert find("OwnForCausalLM").__name__ == "own_family"


def test_an_encoder_is_found_too(install: Install) -> None:
    install("own_encoder", FAMILY, "OwnModel", plugins.ENCODERS)
    assert "OwnModel" in registry.supported_encoders()
    found = registry.find_encoder({"architectures": ["OwnModel"]})
    assert found is not None and found.__name__ == "own_encoder"


def test_one_that_is_there_already_is_an_error_that_names_both(install: Install) -> None:
    install("own_llama", FAMILY, "LlamaForCausalLM")
    with pytest.raises(PluginError, match=r"Ingot itself and own_llama 1\.2 \(own_llama\) both"):
        find("LlamaForCausalLM")
    install("one_more", FAMILY, "OwnForCausalLM")
    install("another", FAMILY, "OwnForCausalLM")
    with pytest.raises(PluginError, match=r"another 1\.2 .* and one_more 1\.2 .* both offer"):
        find("OwnForCausalLM")
    assert find("Qwen3ForCausalLM")  # others are not touched


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be"),
        ("def", "SyntaxError"),
        ("raise RuntimeError", r"\(RuntimeError\)"),
        ("def config(raw): ...", "it has no function weights"),
        (FAMILY.replace("OwnForCausalLM", "Other"), "its ARCHITECTURES does not list OwnForCaus"),
    ],
)
def test_a_broken_one_is_an_error_that_names_its_package(
    install: Install, source: str, message: str
) -> None:
    install("broken_family", source, "OwnForCausalLM")
    with pytest.raises(PluginError, match=rf"^broken_family 1\.2 .*{message}"):
        find("OwnForCausalLM")
