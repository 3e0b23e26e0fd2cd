"""The whole server as a user starts it, and the official client against it."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from serve.bench.free_port import free_port
from tests.fake_engine import FAIL_STEP
from tests.fake_server import ROOT

SERVER = (sys.executable, "-m", "tests.fake_server", "serve")
ENDLESS = ("--max-model-len", "100000")  # of steps that take time: nothing ends by itself
PATIENCE = 90.0  # seconds; how long anything may take on a machine that is busy with other things


class Running:
    """A server process, its URL and what it printed."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}"

    def wait_until(self, status: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if httpx.get(f"{self.url}/health").status_code == status:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_for_load(self, count: int) -> None:
        """Until so many sequences run or wait."""
        deadline = time.monotonic() + PATIENCE
        while httpx.get(f"{self.url}/load").json()["server_load"] != count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def children(self) -> set[int]:
        """Its engine, and what it has started to take its place."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}")
        return {int(each) for each in (tasks / "children").read_text().split()}

    @contextmanager
    def engine_stopped(self) -> Iterator[None]:
        """Meanwhile no request gets any further, however long the rest takes."""
        [engine] = self.children()
        os.kill(engine, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(engine, signal.SIGCONT)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def running(
    folder: Path, *flags: str, step_seconds: float = 0.0, last_words: float = 1.0
) -> Iterator[Running]:
    port = free_port()
    seconds = {"FAKE_STEP_SECONDS": str(step_seconds), "LAST_WORDS_SECONDS": str(last_words)}
    environment = {**os.environ, **seconds, "COLUMNS": "200"}
    with subprocess.Popen(
        [*SERVER, str(folder), "--port", str(port), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        try:
            yield Running(process, port)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def server(model_folder: Path) -> Iterator[Running]:
    with running(model_folder, "--served-model-name", "tiny", "--api-key", "k") as server:
        server.wait_until(200)
        yield server
        server.process.send_signal(signal.SIGINT)
        code, out, err = server.end()
        assert code == 0
        assert set(err.splitlines()) <= {"WARNING Invalid HTTP request received."}
        assert f"{server.url}/v1" in out and "curl" in out and "1.24B" in out


def test_the_official_client_completes_and_streams(server: Running) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        whole = client.completions.create(model="tiny", prompt="abc", max_tokens=4, logprobs=1)
        assert whole.choices[0].text == "abca"
        pieces = client.completions.create(model="tiny", prompt="abc", max_tokens=4, stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "abca"


def test_the_official_client_chats_and_streams(server: Running) -> None:
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [
        {"role": "user", "content": "Hi"}
    ]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
        whole = client.chat.completions.create(
            model="tiny", messages=messages, logprobs=True, top_logprobs=2
        )
        assert whole.choices[0].message.content == "user\nHi"
        assert whole.choices[0].logprobs is not None and whole.usage is not None
        again = client.chat.completions.create(
            model="tiny",
            messages=[*messages, whole.choices[0].message, *messages],  # type: ignore[list-item]
            extra_body={"top_k": 3},
        )
        assert again.usage is not None
        assert again.usage.prompt_tokens > whole.usage.prompt_tokens
        with client.chat.completions.stream(
            model="tiny", messages=messages, stream_options={"include_usage": True}
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.content == "user\nHi"
        assert final.usage == whole.usage


@pytest.mark.anyio
async def test_the_official_async_client(server: Running) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
        stream = await client.completions.create(
            model="tiny", prompt=["ab", "c"], max_tokens=3, stream=True, n=2
        )
        texts = ["", "", "", ""]
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == ["aba", "aba", "ccc", "ccc"]


def test_errors_are_the_official_clients_own(server: Running) -> None:
    url = f"{server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.completions.create(model="tiny", prompt="a", temperature=-1)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="gpt-9", prompt="a")
    with (
        openai.OpenAI(base_url=url, api_key="x") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % i for i in range(10_000)) + b"\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"zz\r\n",
        b"\x16\x03\x01 not http at all\r\n\r\n",
    ],
    ids=["large header", "many headers", "bad chunk", "not HTTP"],
)
def test_broken_http_is_refused_and_closed(server: Running, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(request_bytes)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    assert answer.split(b" ")[1:2] in ([b"400"], [b"401"], [])
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_closed_connection_frees_its_rows(model_folder: Path) -> None:
    with running(model_folder, *ENDLESS, step_seconds=0.02) as server:
        server.wait_until(200)
        body = {"prompt": "ab", "max_tokens": 90_000, "stream": True, "n": 4}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            next(response.iter_bytes())
        deadline = time.monotonic() + PATIENCE
        while 'vllm:num_requests_running{engine="0",model_name="' + str(
            model_folder
        ) + '"} 0' not in (httpx.get(f"{server.url}/metrics").text):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_signal_lets_requests_finish_and_refuses_new_ones(
    model_folder: Path, tmp_path: Path
) -> None:
    """A trace that nobody has ended is written then."""
    profiler = json.dumps({"torch_profiler_dir": str(tmp_path)})
    with running(model_folder, "--profiler-config", profiler) as server:
        server.wait_until(200)
        begun = httpx.post(f"{server.url}/start_profile", timeout=PATIENCE)
        assert begun.status_code == 200, begun.text
        answers: list[httpx.Response] = []
        url, body = f"{server.url}/v1/completions", {"prompt": "ab", "max_tokens": 50}
        request = threading.Thread(
            target=lambda: answers.append(httpx.post(url, json=body, timeout=PATIENCE))
        )
        with server.engine_stopped():
            request.start()
            server.wait_for_load(1)
            server.process.send_signal(signal.SIGTERM)
            server.wait_until(503)
            late = httpx.post(url, json=body)
        assert late.status_code == 503 and late.headers["retry-after"]
        request.join()
        assert answers[0].json()["usage"]["completion_tokens"] == 50
        assert server.end()[0] == 0
    assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == 1


@pytest.mark.parametrize("second_signal", [False, True])
def test_the_drain_has_an_end(model_folder: Path, second_signal: bool) -> None:
    deadline = str(10 * PATIENCE) if second_signal else "0.3"
    flags = ("--shutdown-timeout", deadline, *ENDLESS)
    with running(model_folder, *flags, step_seconds=0.1) as server:
        server.wait_until(200)
        body = {"prompt": "ab", "max_tokens": 90_000, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            pieces = response.iter_text()
            next(pieces)
            server.process.send_signal(signal.SIGTERM)
            if second_signal:
                server.wait_until(503)
                server.process.send_signal(signal.SIGTERM)
            try:
                rest = "".join(pieces)
            except httpx.TransportError:
                assert second_signal
                rest = ""
        if not second_signal:
            error = json.loads(rest.split("\n\n")[-3].removeprefix("data: "))["error"]
            assert error["message"] == "The server is shutting down."
        code, _, err = server.end()
        assert code == 0 and err == ""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="lists sockets in /proc")
def test_nothing_listens_but_the_server_itself(server: Running) -> None:
    """The engine and the compilers of grammars are spoken to on sockets without a name."""
    answer = httpx.post(
        f"{server.url}/v1/completions", headers={"authorization": "Bearer k"},
        json={"prompt": "a", "max_tokens": 1, "guided_regex": "a+"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    processes = [server.process.pid, *server.children()]
    assert len(processes) > 2
    held = {
        os.readlink(each)
        for process in processes
        for each in Path(f"/proc/{process}/fd").iterdir()
        if each.is_symlink()
    }
    rows = [
        line.split()
        for name in ("tcp", "tcp6", "udp", "udp6")
        if (table := Path(f"/proc/net/{name}")).exists()
        for line in table.read_text().splitlines()[1:]
    ]
    ours = [row for row in rows if f"socket:[{row[9]}]" in held and row[3] in ("0A", "07")]
    assert [row[1] for row in ours] == [f"0100007F:{server.port:04X}"]
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert not [row for row in named if f"socket:[{row[6]}]" in held and len(row) > 7]


def unsent_bytes(server: Running, client: socket.socket) -> int:
    """What the server has given to the system for `client`, which has no room for it."""
    ends = f":{server.port:04X}", f":{client.getsockname()[1]:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    [queues] = [row[4] for row in rows if (row[1][-5:], row[2][-5:]) == ends]
    return int(queues.partition(":")[0], 16)


def test_a_client_that_does_not_read_is_cut_in_silence(model_folder: Path) -> None:
    with running(model_folder) as server, socket.socket() as client:
        server.wait_until(200)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        before, unsent = -1, 0
        while not unsent or unsent != before:
            while select.select([], [client], [], 0)[1]:
                client.send(b"GET /pages/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for _ in range(10):  # were it not held up, it would send more meanwhile
                assert httpx.get(f"{server.url}/livez").status_code == 200
            before, unsent = unsent, unsent_bytes(server, client)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        code, _, err = server.end()
        assert code == 0 and err == ""


def test_a_dead_engine_is_started_again_once(model_folder: Path) -> None:
    with running(model_folder, last_words=3.0) as server:
        server.wait_until(200)
        for life in range(2):
            answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": [FAIL_STEP]})
            assert answer.status_code == 500
            if life == 1:
                assert httpx.get(f"{server.url}/health").status_code == 503
            else:
                server.wait_until(200)
                body = {"prompt": "ab", "max_tokens": 3}
                answer = httpx.post(f"{server.url}/v1/completions", json=body)
                assert answer.json()["choices"][0]["text"] == "aba"
        code, _, err = server.end()
    failed = "error: The engine failed with RuntimeError: the device is on fire."
    assert code == 1 and err.count(failed) == 2
    again = "It is started again; if it fails within 10 minutes of being ready, the server ends."
    assert err.count(again) == 1


def test_an_engine_that_hangs_is_ended_and_started_again(model_folder: Path) -> None:
    with running(model_folder, "--watchdog-timeout", "1") as server:
        server.wait_until(200)
        [engine] = server.children()
        os.kill(engine, signal.SIGSTOP)
        body = {"prompt": "ab", "max_tokens": 3}
        hung = httpx.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE)
        server.wait_until(200)
        answer = httpx.post(f"{server.url}/v1/completions", json=body)
        assert engine not in server.children()
        server.process.send_signal(signal.SIGTERM)
        code, _, err = server.end()
    assert hung.status_code == 503 and hung.headers["retry-after"] and "hung" in hung.text
    assert answer.json()["choices"][0]["text"] == "aba"
    assert code == 0 and "The engine had to answer and was silent for 1 s. It is started" in err


def test_a_unix_socket_is_taken_over_from_a_server_that_is_gone(
    model_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ingot.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with running(model_folder, "--uds", str(path), "--served-model-name", "tiny") as server:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            deadline = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("http://x/health").status_code == 200:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert client.get("http://x/v1/models").json()["data"][0]["id"] == "tiny"
        second = subprocess.run(
            [*SERVER, str(model_folder), "--uds", str(path)],
            capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE,
        )  # fmt: skip
        server.process.send_signal(signal.SIGTERM)
        code, out, _ = server.end()
    assert not path.exists()
    assert second.returncode == 2 and "Address already in use" in second.stderr
    assert code == 0 and f"unix://{path}" in out


def test_requests_are_logged_without_their_texts(model_folder: Path) -> None:
    flags = ("--enable-log-requests", "--log-format", "json")
    with running(model_folder, *flags) as server:
        server.wait_until(200)
        body = {"prompt": "a secret", "max_tokens": 1}
        said = httpx.post(
            f"{server.url}/v1/completions?key=secret", json=body, headers={"x-request-id": "theirs"}
        )
        httpx.get(f"{server.url}/livez", headers={"x-request-id": "a secret"})
        httpx.get(f"{server.url}/no%0Awhere")
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"a secret, not HTTP\r\n\r\n")
            connection.recv(1)
        httpx.post(f"{server.url}/generate", json={"input_ids": [FAIL_STEP]})
        server.wait_until(200)
        server.process.send_signal(signal.SIGTERM)
        _, _, err = server.end()
    lines = [json.loads(line) for line in err.splitlines()]
    others = {line["logger"]: line["message"] for line in lines if "path" not in line}
    assert others["uvicorn.error"] == "Invalid HTTP request received."
    assert "It is started again" in others["ingot.failures"]
    lines = [line for line in lines if "path" in line]
    [completion] = [line for line in lines if line["path"] == "/v1/completions"]
    assert completion["status"] == 200 and completion["seconds"] > 0
    assert completion["request_id"] == said.headers["x-request-id"] and "secret" not in err
    assert completion["client_request_id"] == "theirs"
    assert [line["status"] for line in lines if line["path"] == "/no\\nwhere"] == [404]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_engines_log_has_level_and_form_of_the_servers(model_folder: Path, form: str) -> None:
    with running(model_folder, "--log-level", "debug", "--log-format", form) as server:
        server.wait_until(200)
        server.process.send_signal(signal.SIGTERM)
        _, _, err = server.end()
    if form == "text":
        assert "DEBUG an engine of 4 rows" in err.splitlines()
        return
    [said] = [line for line in map(json.loads, err.splitlines()) if "an engine" in line["message"]]
    assert (said["level"], said["logger"]) == ("debug", "engine.fake")


def test_an_engine_that_cannot_start_is_one_sentence(model_folder: Path) -> None:
    with running(model_folder, "--seed", "666") as server:
        code, _, err = server.end()
    assert (code, err) == (2, "error: --seed 666 is unlucky; use another.\n")
