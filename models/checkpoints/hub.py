"""Models on the Hugging Face hub: `org/name` as a folder, which is downloaded if it must be.

    Qwen/Qwen3-0.6B               config, tokenizer, templates, and the weights
    bartowski/some-GGUF:Q4_K_M    one GGUF file, all of its parts

Owns which files of a repository are needed, and the sentence for each thing that goes wrong. The
library huggingface_hub has the cache (shared with transformers and vLLM), resuming and progress.
"""

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar

from models.checkpoints.checkpoint import (
    CONFIG,
    INDEX,
    TORCH_INDEX,
    TORCH_WEIGHTS,
    WEIGHTS,
    read_index,
)
from models.errors import ModelError, headline

NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?::(?P<part>[\w.-]+))?")
SMALL = (
    "*.json", "*.jinja", "merges.txt", "additional_chat_templates/*.jinja", "*_Pooling/config.json",
    "vocab.txt", "*.tiktoken", "tiktoken.model", "tokenizer.model", "tokenizer.model.*",
    "spiece.model", "sentencepiece.bpe.model", "spm.model",
)  # fmt: skip
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NUMBERED = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


Answer = TypeVar("Answer")


class HubError(ModelError):
    """A model cannot be had from the hub."""


def is_hub_name(model: str) -> bool:
    """Whether `model` may be a name on the hub, which a path that exists is not."""
    # Path's own would raise for what is too long for a path
    return NAME.fullmatch(model) is not None and not os.path.exists(model)


def fetch(
    model: str,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    weights: bool = True,
) -> Path:
    """The folder of `model`, or its GGUF file; what the cache does not have is downloaded.

    Args:
        revision: a branch, a tag or a commit; main if there is none.
        download_dir: the cache, if it is not Hugging Face's own.
        weights: False leaves them out.

    Raises:
        HubError: there is no such model, it may not be had, or the hub cannot be reached.
        CheckpointError: its index is malformed.
    """
    match = NAME.fullmatch(model)
    if match is None:
        raise HubError(f"{model[:80]!r} is no name on the Hugging Face hub; write org/name.")
    asked = _Repository(match["repo"], revision, download_dir)
    files = asked.files()
    if files is None:
        folder = asked.cached()
        names = [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
        return folder / _gguf(asked.name, match["part"], names)[0] if match["part"] else folder
    if match["part"]:
        parts = _gguf(asked.name, match["part"], files)
        return asked.download(parts) / parts[0]
    if CONFIG not in files:
        raise HubError(_without_config(asked.name, files))
    folder = asked.download([file for file in files if _is_small(file)])
    if weights:
        asked.download(_weights(asked.name, folder, files))
    return folder


def fetch_adapter(name: str, download_dir: str | None = None) -> Path:
    """The folder of an adapter, downloaded if the cache does not have it; raises HubError."""
    if ":" in name:
        raise HubError(f"An adapter is the whole of a repository; write org/name, not {name!r}.")
    asked = _Repository(name, None, download_dir)
    files = asked.files()
    if files is None:
        return asked.cached()
    if ADAPTER_CONFIG not in files:
        raise HubError(f"{name} has no {ADAPTER_CONFIG}, so it is no adapter in PEFT's layout.")
    return asked.download([ADAPTER_CONFIG, *[f for f in ADAPTER_WEIGHTS if f in files][:1]])


class _Repository:
    """One revision of one repository."""

    def __init__(self, name: str, revision: str | None, download_dir: str | None) -> None:
        self.name, self._revision = name, revision
        self._cache = str(Path(download_dir).expanduser()) if download_dir else None
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._why = ""

    def files(self) -> list[str] | None:
        """Their names; None if the hub cannot be asked. Raises HubError if it refuses."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint)
        info = self._asked(lambda: api.model_info(self.name, revision=self._revision))
        return None if info is None else [one.rfilename for one in info.siblings or []]

    def download(self, names: Iterable[str]) -> Path:
        """The folder with these files in it."""
        patterns = [re.sub(r"([\[*?])", r"[\1]", name) for name in names]
        folder = self._asked(lambda: self._snapshot(patterns, local=False))
        if folder is None:
            raise HubError(
                f"The download of {self.name} was interrupted ({self._why}); the same command "
                f"goes on with what is missing."
            )
        return folder

    def cached(self) -> Path:
        """The folder that is there already; raises HubError if there is none."""
        from huggingface_hub import constants
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return self._snapshot([CONFIG], local=True)
        except LocalEntryNotFoundError:
            raise HubError(
                f"{self.name} is not whole in {self._cache or constants.HF_HUB_CACHE} and cannot "
                f"be downloaded ({self._why}); run the command once where the hub can be reached, "
                f"or give a local folder."
            ) from None

    def _snapshot(self, patterns: list[str], *, local: bool) -> Path:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                self.name,
                revision=self._revision,
                cache_dir=self._cache,
                allow_patterns=patterns,
                endpoint=self._endpoint,
                local_files_only=local,
            )
        )

    def _asked(self, what: Callable[[], Answer]) -> Answer | None:
        """What the hub answers; None if it cannot be reached. Raises HubError if it refuses."""
        from huggingface_hub import errors

        where = f"{self._endpoint or 'https://huggingface.co'}/{self.name}"
        try:
            return what()
        except errors.HFValidationError:
            raise HubError(
                f"There is no folder {self.name[:100]!r}, and the hub has no such names; check it."
            ) from None
        except errors.GatedRepoError:
            raise HubError(
                f"The model {self.name} is gated: accept its terms at {where}, and give a token "
                f"of yours in HF_TOKEN or with `hf auth login`."
            ) from None
        except errors.RepositoryNotFoundError:
            raise HubError(
                f"There is no folder {self.name!r}, and no model at {where} that this user may "
                f"see; check the name, or give a token in HF_TOKEN if it is private."
            ) from None
        except errors.RevisionNotFoundError:
            raise HubError(
                f"The model {self.name} has no revision {self._revision!r}; see {where}/tree/main."
            ) from None
        except errors.OfflineModeIsEnabled:
            self._why = "HF_HUB_OFFLINE is set"
        except Exception as error:  # of the HTTP client, which is another in each version
            self._why = headline(error)
        return None


def _is_small(file: str) -> bool:
    return any(fnmatchcase(file, one) and file.count("/") == one.count("/") for one in SMALL)


def _weights(name: str, folder: Path, files: list[str]) -> list[str]:
    """Safetensors before PyTorch's; of several files those that the index names."""
    for index, single in ((INDEX, WEIGHTS), (TORCH_INDEX, TORCH_WEIGHTS)):
        if index in files:
            return sorted(set(read_index(folder / index).values()))
        if single in files:
            return [single]
    raise HubError(
        f"{name} has weights that are not read here (it has {_some(files)}); choose a model with "
        f"{WEIGHTS} or {TORCH_WEIGHTS}."
    )


def _gguf(name: str, part: str, files: list[str]) -> list[str]:
    """The GGUF file in whose name `part` stands, or all parts of it, in order.

    Where it ends the names of some as a word, it is those that are meant: F16 is no BF16.
    """
    known = [file for file in files if file.endswith(".gguf")]
    found = [one for one in known if part.lower() in PurePosixPath(one).name.lower()]
    last = re.compile(rf"(?:.*[-._])?{re.escape(part)}", re.IGNORECASE)
    found = [one for one in found if last.fullmatch(_stem(one))] or found
    whole = sorted({NUMBERED.sub("", one) for one in found})
    if len(whole) != 1:
        raise HubError(
            f"{name} has {len(whole)} GGUF files with {part!r} in their name, and one is needed; "
            f"it has {_some(known)}."
        )
    return sorted(found)


def _stem(file: str) -> str:
    """The name of a GGUF file without the number of its part."""
    return PurePosixPath(NUMBERED.sub("", file)).name.removesuffix(".gguf")


def _without_config(name: str, files: list[str]) -> str:
    known = [file for file in files if file.endswith(".gguf")]
    if known:
        return f"{name} has GGUF files; say which one, as in {name}:Q4_K_M. It has {_some(known)}."
    return f"{name} has no {CONFIG}, so it is no model in Hugging Face layout."


def _some(files: list[str]) -> str:
    shown = ", ".join(sorted(files)[:8]) or "none"
    return f"{shown} and {len(files) - 8} more" if len(files) > 8 else shown
