"""What clients of SGLang and vLLM ask a server about itself: its model, its tokenizer, its load."""

import time

from starlette.requests import Request
from starlette.responses import Response

from engine.errors import NotFoundError, RequestError
from serve.http.json_response import json_response
from serve.service import Service
from serve.version import ingot_version


class InfoRoutes:
    """GET routes that cost nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def model(self, _: Request) -> Response:
        """GET /model_info and /get_model_info."""
        info, model = self._service.client.info, self._service.model
        return json_response(
            {
                "model_path": model.root,
                "weight_version": self._service.client.stats.weight_version,
                "tokenizer_path": model.root if model.tokenizer else None,
                "served_model_names": model.names,
                "architectures": [info.architecture],
                "is_generation": info.task == "generate",
                "has_image_understanding": False,
                "has_audio_understanding": info.mel_bins > 0,
                "preferred_sampling_params": dict(model.sampling_defaults) or None,
                "max_model_len": info.max_model_len,
                "vocab_size": info.vocab_size,
            }
        )

    async def world_size(self, request: Request) -> Response:
        """GET /get_world_size: {"world_size": 4}, the devices that the model is spread over; with
        or without replicas (`include_dp`), of which there are none."""
        for name, value in request.query_params.items():
            if name != "include_dp" or value.lower() not in ("true", "false"):
                raise RequestError("Only include_dp may be given, as true or false.", name[:64])
        size = self._service.engine_config.tensor_parallel_size
        return json_response({"world_size": size})

    async def event_sources(self, _: Request) -> Response:
        """GET /kv_event_sources: who tells of pages that come and go, by replica; nobody does."""
        return json_response({})

    async def tokenizer(self, _: Request) -> Response:
        """GET /tokenizer_info, in the words of a tokenizer_config.json."""
        tokenizer = self._service.model.tokenizer
        if tokenizer is None:
            raise NotFoundError("This model has no tokenizer.", "model")
        templates = tokenizer.chat_templates
        several = [{"name": name, "template": text} for name, text in templates.items()]
        return json_response(
            {
                "vocab_size": tokenizer.vocab_size,
                "model_max_length": self._service.client.info.max_model_len,
                **tokenizer.special_tokens,
                "added_tokens_decoder": {
                    str(token_id): {"content": name, "special": True}
                    for name, token_id in tokenizer.special_token_ids.items()
                },
                "chat_template": templates.get("default") if len(several) == 1 else several or None,
            }
        )

    async def loads(self, _: Request) -> Response:
        """GET /v1/loads, as of the engine's last report; SGLang's names."""
        stats, info = self._service.client.stats, self._service.client.info
        used = stats.num_pages - stats.num_free_pages
        load = {
            "dp_rank": 0,
            "num_running_reqs": stats.num_running,
            "num_waiting_reqs": stats.num_waiting,
            "num_total_reqs": self._service.client.num_sequences,
            "max_running_requests": info.max_num_seqs,
            "num_used_tokens": used * info.page_size,
            "max_total_num_tokens": stats.num_pages * info.page_size,
            "token_usage": _share(used, stats.num_pages),
            "cache_hit_rate": _share(stats.prefix_cache_hits, stats.prefix_cache_queries),
        }
        return json_response(
            {
                "timestamp": time.time(),
                "version": ingot_version(),
                "dp_rank_count": 1,
                "loads": [load],
            }
        )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
