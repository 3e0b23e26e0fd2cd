"""A server that is renewed under load: no client sees it, nor a successor that fails before."""

import asyncio
import errno
import os
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from serve import launcher, succession
from tests.serve.processes.test_engine_process import is_alive
from tests.serve.processes.test_server import ENDLESS, PATIENCE, Running, running
from tests.serve.served import until

BODY = {"prompt": "abc", "max_tokens": 4}


@pytest.mark.anyio
async def test_without_descriptors_there_is_none_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with socket.socket() as listener:
        monkeypatch.setattr(socket, "socketpair", full)
        assert await succession.start_successor(listener) is None


@pytest.mark.anyio
async def test_no_mistake_ends_a_server_that_nobody_has_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[BaseException | int] = [RuntimeError("can't start new thread"), 77]
    said: list[str] = []

    async def start(_: object) -> int:
        found = tries.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(launcher, "start_successor", start)
    server = object.__new__(launcher.Launcher)
    server._server = SimpleNamespace(renewing=asyncio.Event())
    server._listener, server._on_failure = None, said.append
    renewed = asyncio.create_task(server._until_renewed())
    server._server.renewing.set()
    await until(lambda: said)
    assert not renewed.done() and "this one goes on" in said[0]
    server._server.renewing.set()
    await renewed


class Load:
    """Clients that send one short request after another: some on new connections, some on kept."""

    def __init__(self, url: str) -> None:
        self.answers, self.errors, self._end = 0, [], threading.Event()
        self._url = f"{url}/v1/completions"
        kinds = [self._new, self._new, self._kept, self._kept]
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in kinds]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted, deadline = self.answers + count, time.monotonic() + PATIENCE
        while self.answers < wanted and not self.errors:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _run(self, ask) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not self._end.is_set():
                try:
                    answer = ask(client)
                    assert answer.json()["choices"][0]["text"] == "abca", answer.text
                    self.answers += 1
                except Exception as error:
                    self.errors.append(error)
                    return

    def _new(self, _: httpx.Client) -> httpx.Response:
        return httpx.post(self._url, json=BODY, timeout=PATIENCE)

    def _kept(self, client: httpx.Client) -> httpx.Response:
        return client.post(self._url, json=BODY)


def start_successor(server: Running) -> int:
    """Send the signal; the process that the server has started."""
    own, deadline = server.children(), time.monotonic() + PATIENCE
    server.process.send_signal(signal.SIGUSR2)
    while not (new := server.children() - own):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return new.pop()


def wait_for_end(pid: int) -> None:
    """Until a process is gone that is no child of ours; whoever adopted it takes its exit code."""
    deadline = time.monotonic() + PATIENCE
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nobody_is_refused_while_successors_fail_and_take_over(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    long = {"prompt": "xy", "max_tokens": 120, "stream": True}
    with running(folder, "--max-num-seqs", "8", step_seconds=0.002) as server:
        server.wait_until(200)
        with Load(server.url) as load:
            (folder / "tokenizer.json").write_text("{")
            start_successor(server)
            while len(server.children()) > 1:
                load.wait_for_more(1)
            load.wait_for_more(10)
            assert server.process.poll() is None
            shutil.copy(model_folder / "tokenizer.json", folder)
            with httpx.stream("POST", f"{server.url}/v1/completions", json=long) as response:
                pieces = response.iter_text()
                next(pieces)
                successor = start_successor(server)
                assert "".join(pieces).endswith("data: [DONE]\n\n")
            assert server.process.wait(PATIENCE) == 0
            load.wait_for_more(10)
        assert load.errors == []
        os.kill(successor, signal.SIGTERM)
        out, err = server.process.communicate(timeout=PATIENCE)  # once the successor has gone
    assert out.count("curl") == 2
    assert err.count("error: The new server did not become ready; this one goes on.") == 1
    assert "tokenizer.json" in err
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_a_stream_that_outlasts_the_deadline_is_ended(model_folder: Path) -> None:
    flags = ("--shutdown-timeout", "0.5", *ENDLESS)
    with running(model_folder, *flags, step_seconds=0.05) as server:
        server.wait_until(200)
        body, url = {"prompt": "ab", "max_tokens": 90_000, "stream": True}, server.url
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=PATIENCE) as stream:
            pieces = stream.iter_text()
            next(pieces)
            successor = start_successor(server)
            rest = "".join(pieces)
        assert "The server is shutting down." in rest and server.process.wait(PATIENCE) == 0
        assert httpx.get(f"{server.url}/health").status_code == 200
        os.kill(successor, signal.SIGTERM)
        server.process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(("path", "code"), [("sleep", 503), ("pause", 200)])
def test_nobody_waits_for_who_is_replaced_asleep_or_paused(
    model_folder: Path, path: str, code: int
) -> None:
    """Nobody would wake it: its operator reaches the new one."""
    flags = ("--enable-sleep-mode", "--shutdown-timeout", str(10 * PATIENCE), *ENDLESS)
    body = {"prompt": "ab", "max_tokens": 300}
    with (
        running(model_folder, *flags, step_seconds=0.01) as server,
        ThreadPoolExecutor(2) as clients,
    ):
        server.wait_until(200)
        url, asked = f"{server.url}/v1/completions", partial(httpx.post, timeout=PATIENCE)
        kept = clients.submit(asked, url, json=body)
        server.wait_for_load(1)
        paused = asked(f"{server.url}/{path}?mode=keep")
        held = clients.submit(asked, url, json=BODY)
        successor = start_successor(server)
        answers = [each.result() for each in (kept, held)]
        assert server.process.wait(PATIENCE) == 0
        os.kill(successor, signal.SIGTERM)
        server.process.communicate(timeout=PATIENCE)
    assert paused.status_code == 200 and [each.status_code for each in answers] == [code] * 2
    assert code == 200 or all("is shutting down" in each.text for each in answers)


def test_a_server_that_leaves_takes_a_successor_that_loads_along(model_folder: Path) -> None:
    with running(model_folder) as server:
        server.wait_until(200)
        successor = start_successor(server)
        server.process.send_signal(signal.SIGTERM)
        out, _ = server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 0
    wait_for_end(successor)
    assert out.count("curl") == 1
