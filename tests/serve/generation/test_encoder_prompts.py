"""Where a model has an encoder, a prompt is what that reads; the decoder begins by itself."""

import pytest

from engine.config import EngineConfig
from tests.fake_engine import ENCODED, ENCODER
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
CONFIG = EngineConfig(model=ENCODER)


async def test_a_completion_goes_to_the_encoder(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        answer = (await served.complete(prompt="Hello", max_tokens=4)).json()
        [request] = served.core.added
        assert request.prompt_token_ids == [97, 98]
        assert len(request.encoder_token_ids) == 5
        assert answer["usage"]["prompt_tokens"] == 7
        assert answer["usage"]["completion_tokens"] == 4


async def test_the_answer_has_all_of_the_decoders_context(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        room = served.core.info.max_model_len - 2
        answer = await served.complete(prompt="x" * ENCODED, max_tokens=room)
        assert answer.json()["usage"]["completion_tokens"] == room


async def test_a_long_prompt_is_cut_to_what_the_encoder_reads(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        ids = list(range(65, 65 + ENCODED + 1))
        cut = await served.complete(prompt=ids, truncate_prompt_tokens=-1, max_tokens=1)
        assert cut.status_code == 200
        assert served.core.added[-1].encoder_token_ids == ids[1:]


async def test_an_encoders_prompt_is_not_echoed(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        answer = await served.complete(prompt="Hello", echo=True)
        assert answer.status_code == 400
        assert "encoder" in answer.json()["error"]["message"]


async def test_a_conversation_goes_to_the_encoder(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        answer = (await served.chat("Hello", max_tokens=3)).json()
        [request] = served.core.added
        assert request.prompt_token_ids == [97, 98]
        assert answer["usage"]["prompt_tokens"] == 2 + len(request.encoder_token_ids)
