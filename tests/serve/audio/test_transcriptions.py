"""OpenAI's client against the routes and a random Whisper, which hears two seconds at a time."""

import asyncio
import dataclasses
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from engine.encoders.log_mel import log_mel
from engine.output_processor import OutputProcessor
from engine.sampling.params import SamplingParams
from serve.audio import routes
from serve.audio.decoding import decode_audio
from serve.commands.batch import call, run_batch
from serve.model import load_served_model
from tests.serve.attacks.test_floods import counted
from tests.serve.audio.application import SETTINGS, application
from tests.serve.audio.speech_model import FRAMES, MELS, file_of, tone
from tests.serve.served import until

pytest.importorskip("soundfile", reason="needs the extra audio")
pytest.importorskip("python_multipart", reason="needs the extra audio")
pytestmark = pytest.mark.anyio


@asynccontextmanager
async def listening(speech: tuple) -> AsyncIterator[openai.AsyncOpenAI]:
    async with application(speech) as app:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
        async with openai.AsyncOpenAI(
            base_url="http://test/v1", api_key="x", http_client=http, max_retries=0
        ) as official:
            yield official


async def test_a_pause_holds_the_windows_that_follow(speech: tuple) -> None:
    core = speech[1]
    body = {"model": "whisper", "language": "en", "response_format": "verbose_json"}
    async with application(speech) as app:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")
        before = core.stats.num_steps
        asked = http.post(
            "/v1/audio/transcriptions", data=body, files={"file": ("a.wav", file_of(tone(9)))}
        )
        running = asyncio.create_task(asked)
        await until(lambda: core.stats.num_steps > before)
        assert (await http.post("/pause?mode=wait")).status_code == 200
        paused = core.stats.num_steps
        await asyncio.sleep(0.3)
        assert core.stats.num_steps == paused and not running.done()
        await http.post("/resume")
        answer = await running
    assert answer.status_code == 200 and len(answer.json()["segments"]) > 1


async def test_files_do_not_take_all_threads(
    speech: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading one may take seconds of a thread in which prompts of others are tokenised."""
    reading: list[int] = []
    most: list[int] = []

    def slow(data: bytes) -> Any:
        reading.append(1)
        time.sleep(0.05)  # for others to come in
        most.append(len(reading))
        reading.pop()
        return decode_audio(data)

    monkeypatch.setattr(routes, "decode_audio", slow)
    monkeypatch.setattr(routes, "FILES_AT_ONCE", 2)
    async with listening(speech) as client:
        file = ("a.wav", file_of(tone(0.1)))
        asked = {"model": "whisper", "file": file, "language": "en", "temperature": 0}
        await asyncio.gather(*(client.audio.transcriptions.create(**asked) for _ in range(5)))
    assert len(most) == 5 and max(most) <= 2


async def test_the_text_is_what_the_engine_writes(speech: tuple) -> None:
    async with listening(speech) as client:
        answer = await client.audio.transcriptions.create(
            model="whisper", file=("a.wav", file_of(tone(1.5))), language="en", temperature=0
        )
    assert answer.usage.type == "duration" and answer.usage.seconds == 2
    prompt = [257, 258, 261, 265]
    features = log_mel((np.round(tone(1.5)[:, 0] * 2**15) / 2**15), MELS, FRAMES)
    never = {65: -100.0, 257: -100.0, 262: -100.0}  # as generation_config.json has it
    params = SamplingParams(temperature=0, max_tokens=60, logit_bias=never)
    processor = OutputProcessor(None)
    core, said = speech[1], []
    for message in processor.add("x", prompt, params, encoder_features=features.tobytes()):
        core.add(message)
    while core.has_work:
        for delta in core.step().deltas:
            said += delta.new_token_ids
    text = load_served_model(speech[0], "w", SETTINGS).tokenizer
    assert answer.text == text.decode([t for t in said if t < 256]).strip()
    assert answer.text
    async with listening(speech) as client:
        short = await client.audio.transcriptions.create(
            model="whisper", file=("a.wav", file_of(tone(1.5))), language="en", temperature=0,
            chunking_strategy="auto",
            extra_body={"max_completion_tokens": 3, "n": 1, "length_penalty": 1.0,
                        "use_beam_search": False, "stream_include_usage": True, "hotwords": ""},
        )  # fmt: skip
    assert short.text == text.decode([t for t in said[:3] if t < 256]).strip()


async def test_a_line_of_a_batch_brings_its_recording(speech: tuple) -> None:
    path = "/v1/audio/transcriptions"
    recording = "data:audio/wav;base64," + b64encode(file_of(tone(1.2))).decode()
    bodies: dict[str, dict[str, object]] = {
        "json": {"model": "whisper", "file_url": recording, "temperature": 0, "language": "en"},
        "verbose": {
            "file_url": recording, "response_format": "verbose_json", "prompt": None,
            "timestamp_granularities": ["segment"],
        },
        "text": {"file_url": recording, "response_format": "srt"},
        "stream": {"file_url": recording, "stream": True},
        "elsewhere": {"file_url": "http://169.254.169.254/a.wav"},
        "odd": {"file_url": recording, 'a"; filename="b': "x"},
        "wrong": {"file_url": "data:audio/wav;base64,!!!"},
    }  # fmt: skip
    lines = [
        json.dumps({"custom_id": name, "url": path, "body": body}) for name, body in bodies.items()
    ]
    output = StringIO()
    async with application(speech) as app:
        counts = await run_batch(lines, output, app, concurrency=2)
    answers = {each["custom_id"]: each for each in map(json.loads, output.getvalue().splitlines())}
    said = {name: each["response"]["body"] for name, each in answers.items() if each["response"]}
    assert counts == (3, 4)
    assert said["json"]["text"] and said["verbose"]["segments"] and "00:00:0" in said["text"]
    params = {"elsewhere": "file_url", "odd": 'a"; filename="b', "wrong": "file_url"}
    for name, param in params.items():
        assert said[name]["error"]["param"] == param
        assert answers[name]["response"]["status_code"] == 400
    assert "streamed" in answers["stream"]["error"]["message"]


async def test_streams_say_the_same(speech: tuple) -> None:
    file = file_of(tone(1.2), kind="FLAC")
    async with listening(speech) as client:
        whole = await client.audio.transcriptions.create(model="whisper", file=("a.flac", file))
        stream = await client.audio.transcriptions.create(
            model="whisper", file=("a.flac", file), stream=True
        )
        events = [event async for event in stream]
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == whole.text == "".join(e.delta for e in events[:-1]).strip()


async def test_alignment_heads_that_are_not_there_are_none(
    speech: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    """A smaller model with its teacher's list is served, without times of words."""
    told = {"alignment_heads": [[0, 1], [10, 12]]}
    model = dataclasses.replace(speech[1].model, generation_config=told)
    assert model.alignment_heads == ()
    assert "the alignment head (10, 12) of 2 layers of 4 heads" in caplog.text


async def test_words_have_times(speech: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {
        "model": "whisper", "file": ("a.wav", file_of(tone(5))), "temperature": 0.9,
        "response_format": "verbose_json", "language": "en", "extra_body": {"seed": 4},
    }  # fmt: skip
    async with listening(speech) as client:
        both, words, usual = [
            await client.audio.transcriptions.create(**asked, **granularities)
            for granularities in (
                {"timestamp_granularities": ["word", "segment"]},
                {"timestamp_granularities": ["word"]},
                {},
            )
        ]
        assert speech[1].stats.num_compiles_after_warmup == 0
        monkeypatch.setattr(speech[1].info, "aligns", False)
        with pytest.raises(openai.BadRequestError, match="names no alignment_heads; use"):
            await client.audio.transcriptions.create(**asked, timestamp_granularities=["word"])
    assert len({segment.seek for segment in both.segments}) > 1
    spoken = "".join(word.word for word in both.words)
    assert spoken == "".join(both.text.split()) and both.text == usual.text
    assert all(0 <= word.start <= word.end <= 5 for word in both.words)
    starts = [word.start for word in both.words]
    windows = len({segment.seek for segment in both.segments})  # which overlap
    back = sum(later < sooner for sooner, later in pairwise(starts))
    assert 0 <= back < windows and starts[-1] > 2
    assert words.words == both.words and words.segments is None
    assert usual.words is None and usual.segments == both.segments


async def test_long_audio_is_heard_in_windows(speech: tuple) -> None:
    async with listening(speech) as client:
        answer = await client.audio.transcriptions.create(
            model="whisper", file=("a.mp3", file_of(tone(7), kind="MP3")),
            response_format="verbose_json", timestamp_granularities=["segment"], temperature=0.9,
            prompt="Tones", extra_body={"seed": 4},
        )  # fmt: skip
    assert answer.language in ("en", "de")
    assert answer.duration == pytest.approx(7, abs=0.1)
    assert len({segment.seek for segment in answer.segments}) > 2
    times = [(s.start, s.end) for s in answer.segments]
    assert all(0 <= start <= end <= 7.1 for start, end in times)
    assert times == sorted(times)
    assert [s.id for s in answer.segments] == list(range(len(times)))
    assert all(s.avg_logprob < 0 and 0 < s.no_speech_prob < 1 for s in answer.segments)
    assert answer.text == "".join(s.text for s in answer.segments).strip()


@pytest.mark.parametrize(("kind", "start"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")])
async def test_subtitles(speech: tuple, kind: str, start: str) -> None:
    async with listening(speech) as client:
        answer = await client.audio.transcriptions.create(
            model="whisper", file=("a.ogg", file_of(tone(2), kind="OGG")), response_format=kind
        )
    assert answer.startswith(start) and " --> 00:00:0" in answer


async def test_translations_are_told_to_translate(speech: tuple) -> None:
    async with listening(speech) as client:
        answer = await client.audio.translations.create(
            model="whisper", file=("a.wav", file_of(tone(1))), response_format="verbose_json"
        )
    assert answer.duration == pytest.approx(1)


async def test_many_files_at_once_are_written_as_each_alone(speech: tuple) -> None:
    files = [file_of(tone(0.5 + 0.7 * i)) for i in range(5)]

    async def ask(client: openai.AsyncOpenAI, file: bytes) -> str:
        answer = await client.audio.transcriptions.create(
            model="whisper", file=("a.wav", file), language="de"
        )
        return answer.text

    async with listening(speech) as client:
        alone = [await ask(client, file) for file in files]
        together = await asyncio.gather(*(ask(client, file) for file in files))
    assert together == alone


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"language": "xx"}, "its languages are de, en"),
        ({"response_format": "xml"}, "response_format must be one of 'json', "),
        ({"temperature": -1}, "temperature must be"),
        ({"timestamp_granularities": ["word"]}, "needs response_format verbose_json"),
        ({"timestamp_granularities": ["letter"]}, "must be one of 'segment', 'word'"),
        ({"timestamp_granularities": ["segment"]}, "needs response_format verbose_json"),
        ({"stream": True, "response_format": "srt"}, "stream needs"),
        ({"include": ["logprobs"]}, "include is not supported here with this value"),
        ({"extra_body": {"hotwords": "Ingot"}}, "hotwords is not supported"),
        ({"extra_body": {"use_beam_search": True}}, "use_beam_search is not supported"),
        ({"extra_body": {"max_completion_tokens": 0}}, "must be at least 1, got 0"),
        ({"extra_body": {"temperatur": 1}}, "no field temperatur; did you mean temperature"),
        ({"file": ("a.wav", b"no audio at all")}, "no audio that can be read; WAV"),
        ({"file": ("a.wav", b"0" * (2**20 + 1))}, "--max-audio-clip-filesize-mb"),
    ],
)
async def test_what_cannot_be_done_is_a_400(speech: tuple, options: dict, sentence: str) -> None:
    given = {"model": "whisper", "file": ("a.wav", file_of(tone(0.3))), **options}
    async with listening(speech) as client:
        with pytest.raises(openai.BadRequestError, match=sentence):
            await client.audio.transcriptions.create(**given)


async def test_other_requests_are_told_that_it_hears(speech: tuple) -> None:
    async with listening(speech) as client:
        with pytest.raises(openai.BadRequestError, match="/v1/audio/transcriptions"):
            await client.completions.create(model="whisper", prompt="Hello")
        with pytest.raises(openai.NotFoundError):
            await client.audio.transcriptions.create(model="x", file=("a.wav", file_of(tone(1))))


async def test_of_many_long_files_few_are_in_memory(
    speech: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours of silence are a small file and 460 MB of samples, as long as they are heard."""
    monkeypatch.setattr("serve.audio.routes.MAX_SAMPLES", 16_000)
    file = ("a.wav", file_of(tone(0.7)))
    async with listening(speech) as client:
        answers = await asyncio.gather(
            *(client.audio.transcriptions.create(model="whisper", file=file) for _ in range(4)),
            return_exceptions=True,
        )
        heard = [each for each in answers if not isinstance(each, Exception)]
        refused = [each for each in answers if isinstance(each, openai.APIStatusError)]
        assert len(heard) == 1 and [each.status_code for each in refused] == [503] * 3
        long = ("a.wav", file_of(tone(1.5)))  # more than there may be, but by itself
        assert (await client.audio.transcriptions.create(model="whisper", file=long)).text


async def test_a_form_that_takes_long_to_read_keeps_nobody_waiting(speech: tuple) -> None:
    """The loop reads the body; its parser, which looks at each letter, is elsewhere."""
    form = "multipart/form-data; boundary=x"
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body += b"\r\n--xa" * 2_000  # 49 lines of the parser each
    async with application(speech) as app:
        await call(app, "/v1/audio/transcriptions", b"", form)
        with counted() as lines:
            status, _, answer = await asyncio.create_task(
                call(app, "/v1/audio/transcriptions", body, form)
            )
    assert status == 400 and b"no file" in answer
    assert 100 < lines.total() < 10_000, lines.most_common(3)


async def test_forms_that_are_none(speech: tuple) -> None:
    async with listening(speech) as client:
        http = client._client
        url = "http://test/v1/audio/transcriptions"
        form = {"content-type": "multipart/form-data; boundary=x"}
        for headers, body, status in (
            ({"content-type": "application/json"}, b"{}", 415),
            (form, b"--x--", 400),
            (form, b"nothing of that kind", 400),
            ({"content-type": "multipart/form-data"}, b"--x--", 400),
            (form, b"0" * (2 * 2**20), 413),
        ):
            answer = await http.post(url, headers=headers, content=body)
            assert answer.status_code == status, body
            assert json.loads(answer.text)["error"]["message"]


async def test_a_window_may_be_kept_from_repeating_itself(speech: tuple) -> None:
    """The penalties of chats, of what one window has written."""
    asked: dict[str, Any] = {"model": "whisper", "file": file_of(tone(2)), "language": "en"}
    texts = []
    async with listening(speech) as client:
        for penalty in (0.0, 2.0):
            answer = await client.audio.transcriptions.create(
                **asked, temperature=0, extra_body={"frequency_penalty": penalty}
            )
            texts.append(answer.text)
    assert texts[0] != texts[1]
