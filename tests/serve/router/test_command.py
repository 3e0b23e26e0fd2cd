"""`ingot router` as a user starts it, before two `ingot serve`."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.fake_server import ROOT
from tests.serve.processes.test_server import PATIENCE, running


def test_it_serves_until_a_signal(model_folder: Path) -> None:
    flags = ("--served-model-name", "tiny")
    with running(model_folder, *flags) as one, running(model_folder, *flags) as two:
        one.wait_until(200)
        two.wait_until(200)
        command = [sys.executable, "-m", "serve", "router", "--port", "0"]
        backends = ["--backend", one.url, "--backend", two.url]
        with subprocess.Popen(
            [*command, *backends], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT,
        ) as router:  # fmt: skip
            try:
                assert router.stdout is not None
                url = router.stdout.readline().strip()
                body = {"model": "tiny", "prompt": "ab", "max_tokens": 4, "stream": True}
                answer = httpx.post(f"{url}/completions", json=body)
                assert answer.status_code == 200 and "[DONE]" in answer.text
                one.process.kill()
                for _ in range(4):
                    whole = httpx.post(f"{url}/completions", json={**body, "stream": False})
                    assert whole.json()["choices"][0]["text"] == "abab"
                router.send_signal(signal.SIGTERM)
                _, err = router.communicate(timeout=PATIENCE)
            finally:
                router.kill()
    assert router.returncode == 0 and "Traceback" not in err


def test_a_wrong_setting_is_one_sentence() -> None:
    command = [sys.executable, "-m", "serve", "router", "--backend", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: 'nowhere' is no URL")
