"""The playground and the admin page in a real Chromium, over the scripted core."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from serve.settings import ServerSettings
from tests.fake_engine import PAGES
from tests.serve.pages.page_checks import faults, unreachable
from tests.serve.processes.test_server import PATIENCE, Running, running
from tests.serve.served import Serve, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
browser_needed = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"
)
NAME = "tiny/<script>alert(1)</script>" + "A-Model-With-A-Long-Name-" * 4
SAYS = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }} {% endfor %}<|im_end|>"


@pytest.fixture(scope="module")
def server(model_folder: Path) -> Iterator[Running]:
    flags = (
        "--chat-template",
        SAYS,
        "--served-model-name",
        NAME,
        "second",
        "--max-model-len",
        "100000",
    )
    keys = ("--api-key", "k", "--admin-api-key", "a")
    parser = ("--tool-call-parser", "hermes", "--reasoning-parser", "qwen3")
    flags += ("--enable-log-requests",)
    with running(model_folder, *flags, *keys, *parser, step_seconds=0.01) as server:
        server.wait_until(200)
        yield server
        server.process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as browser:
        yield browser


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if found := condition():
                return found
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.05)


def open_page(browser: webdriver.Chrome, url: str, key: str) -> None:
    browser.get(url)
    browser.execute_script("sessionStorage.setItem('ingot-key', arguments[0])", key)
    browser.get_log("browser")  # of before there was a key
    browser.get(url)


def answers(browser: webdriver.Chrome) -> list[str]:
    shown = browser.find_elements(By.CSS_SELECTOR, ".turn.assistant .text")
    return [each.get_attribute("textContent") or "" for each in shown]


@contextmanager
def phone(browser: webdriver.Chrome) -> Iterator[None]:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def check_looks(browser: webdriver.Chrome) -> None:
    """As it stands now, by day and by night, on a desk and on a phone."""
    for scheme in ("dark", "light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert faults(browser) == [], scheme
        with phone(browser):
            assert browser.execute_script("return innerWidth") == 390
            assert faults(browser) == [], scheme
    with phone(browser):
        assert unreachable(browser) == []


def focused(browser: webdriver.Chrome) -> WebElement:
    return browser.switch_to.active_element


def pixels(browser: webdriver.Chrome) -> list[str]:
    """By their names, the colours of the cache's first three squares and of its last."""
    return browser.execute_script(  # type: ignore[no-any-return]
        """const canvas = document.getElementById("pages"), draw = canvas.getContext("2d");
        const columns = Math.floor(canvas.clientWidth / 11), side = canvas.width / columns;
        const style = getComputedStyle(document.documentElement);
        const names = {};
        for (const name of ["--used", "--shared", "--idle", "--line"]) {
          draw.fillStyle = style.getPropertyValue(name);
          names[draw.fillStyle] = name;
        }
        return [0, 1, 2, 63].map((cell) => {
          const x = (cell % columns + .4) * side, y = (Math.floor(cell / columns) + .4) * side;
          const [r, g, b] = draw.getImageData(x, y, 1, 1).data;
          return names["#" + [r, g, b].map((v) => v.toString(16).padStart(2, "0")).join("")];
        });"""
    )


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]


@browser_needed
def test_a_conversation_by_keyboard_alone(server: Running, browser: webdriver.Chrome) -> None:
    open_page(browser, server.url, "k")
    eventually(lambda: "tiny" in browser.find_element(By.ID, "model").text)
    say = browser.switch_to.active_element
    assert say.get_attribute("id") == "say"
    say.send_keys("Hi", Keys.ENTER)
    eventually(lambda: answers(browser) == ["u:Hi "])
    eventually(lambda: "tokens/s" in browser.find_element(By.ID, "foot").text)
    browser.switch_to.active_element.send_keys("you", Keys.ENTER)
    eventually(lambda: answers(browser)[1:] == ["u:Hi a:u:Hi  u:you "])
    eventually(lambda: browser.find_element(By.ID, "send").text == "Send")
    browser.switch_to.active_element.send_keys(Keys.TAB, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "clear"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    eventually(lambda: answers(browser) == [])
    assert complaints(browser) == []


@browser_needed
def test_parts_probabilities_and_two_settings(server: Running, browser: webdriver.Chrome) -> None:
    open_page(browser, server.url, "k")
    for name in ("both", "probabilities"):
        browser.find_element(By.ID, name).click()
    systems = browser.find_elements(By.CSS_SELECTOR, "[data-of=system]")
    systems[1].send_keys("S")
    browser.find_element(By.ID, "say").send_keys("<b>Hi</b>", Keys.ENTER)
    eventually(lambda: answers(browser) == ["u:<b>Hi</b> ", "s:S u:<b>Hi</b> "])
    token = browser.find_elements(By.CSS_SELECTOR, ".turn.assistant .token")[2]
    ActionChains(browser).move_to_element(token).perform()
    tip = eventually(lambda: browser.find_element(By.CSS_SELECTOR, ".tip").text)
    assert tip.splitlines()[0].endswith('%  "<"') and len(tip.splitlines()) == 5
    tools = [{"type": "function", "function": {"name": "get_time"}}]
    browser.find_element(By.ID, "both").click()
    browser.find_element(By.CSS_SELECTOR, "[data-of=tools]").send_keys(json.dumps(tools))
    call = '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>'
    browser.find_element(By.ID, "say").send_keys(call, Keys.ENTER)
    eventually(lambda: browser.find_element(By.CSS_SELECTOR, ".call").text == "get_time({})")
    result = eventually(lambda: browser.find_element(By.CSS_SELECTOR, ".turn input"))
    result.send_keys("noon", Keys.ENTER)
    eventually(lambda: answers(browser)[1:] == ["u:a:u: t:noon "])
    eventually(lambda: browser.find_element(By.ID, "send").text == "Send")
    browser.find_element(By.CSS_SELECTOR, "[data-of=schema]").send_keys("{no")
    browser.find_element(By.ID, "say").send_keys("again", Keys.ENTER)
    said = eventually(lambda: browser.find_element(By.CSS_SELECTOR, ".turn .error").text)
    assert said.startswith("The schema is no JSON")
    check_looks(browser)
    eventually(lambda: browser.find_element(By.ID, "say").get_property("value") == "again")
    browser.find_element(By.CSS_SELECTOR, "[data-of=schema]").clear()
    browser.find_element(By.ID, "say").send_keys("!", Keys.ENTER)
    last = "u:a:u: t:noon a:u:a:u: t:noon  u:again! "  # nothing of what had failed
    eventually(lambda: answers(browser)[3] == last)
    assert complaints(browser) == []


@browser_needed
def test_each_conversation_has_its_model(server: Running, browser: webdriver.Chrome) -> None:
    open_page(browser, server.url, "k")
    eventually(lambda: browser.find_element(By.CSS_SELECTOR, "[data-of=model]").is_displayed())
    browser.find_element(By.ID, "both").click()
    first, second = browser.find_elements(By.CSS_SELECTOR, "[data-of=model]")
    second.send_keys("second")
    asked = "return threads.map((thread) => thread.request().model)"
    assert browser.execute_script(asked) == [NAME, "second"]
    browser.execute_script("offer(['alone'])")
    assert not first.is_displayed() and browser.execute_script(asked) == ["alone", "alone"]


@browser_needed
def test_how_an_answer_ended_and_where_it_begins(
    server: Running, browser: webdriver.Chrome
) -> None:
    open_page(browser, server.url, "k")
    browser.find_element(By.CSS_SELECTOR, "[data-of=max_tokens]").send_keys("2")
    browser.find_element(By.ID, "say").send_keys("שלום abc.", Keys.ENTER)
    eventually(lambda: "Cut off" in browser.find_element(By.CSS_SELECTOR, ".turn .soft").text)
    first, last = browser.execute_script(
        """const text = document.querySelector(".turn.user .text").firstChild;
        return [0, text.length - 1].map((at) => {
          const range = document.createRange();
          range.setStart(text, at);
          range.setEnd(text, at + 1);
          return range.getBoundingClientRect().left;
        });"""
    )
    assert last < first  # Hebrew ends on the left, and so does its full stop
    said = browser.execute_async_script(
        """const broken = new ReadableStream({ start: (to) => to.error(new TypeError("x")) });
        events({ body: broken }).next().catch((error) => arguments[0](error.message));"""
    )
    assert said == "The connection broke off."


@browser_needed
def test_a_conversation_that_is_full_may_be_begun_anew(
    server: Running, browser: webdriver.Chrome
) -> None:
    """Of 100,000 tokens, which here are letters."""
    open_page(browser, server.url, "k")
    say, send = browser.find_element(By.ID, "say"), browser.find_element(By.ID, "send")
    fill = "threads[0].turns.push({ role: 'user', content: 'a'.repeat(99990) })"
    browser.execute_script("$('say').value = 'b'.repeat(200000)")
    send.click()
    error = eventually(lambda: browser.find_elements(By.CSS_SELECTOR, ".turn .error"))
    assert "context" in error[0].text  # a new chat has no room for it, either
    assert not browser.find_elements(By.CSS_SELECTOR, ".full")
    browser.execute_script(f"restart(); $('say').value = ''; {fill}")
    say.send_keys("and then?", Keys.ENTER)
    [anew] = eventually(lambda: browser.find_elements(By.CSS_SELECTOR, ".full button"))
    eventually(lambda: say.get_attribute("value") == "and then?")
    check_looks(browser)
    anew.click()
    assert focused(browser) == say and not answers(browser)
    say.send_keys(Keys.ENTER)
    eventually(lambda: answers(browser) == ["u:and then? "])


@browser_needed
def test_probabilities_by_keyboard_and_by_touch(server: Running, browser: webdriver.Chrome) -> None:
    open_page(browser, server.url, "k")
    browser.find_element(By.ID, "probabilities").click()
    browser.find_element(By.ID, "say").send_keys("Hi", Keys.ENTER)
    eventually(lambda: browser.find_element(By.ID, "send").text == "Send")
    tip = browser.find_element(By.ID, "tip")
    focused(browser).send_keys(Keys.SHIFT, Keys.TAB)
    assert focused(browser).text == "u" and '%  "u"' in tip.text
    focused(browser).send_keys(Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
    assert focused(browser).text == ":" and '%  ":"' in tip.text
    assert focused(browser).get_attribute("aria-describedby") == "tip"
    focused(browser).send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    with phone(browser):
        tap(browser, browser.find_elements(By.CSS_SELECTOR, ".token")[2])
        eventually(lambda: '%  "H"' in tip.text)
        assert faults(browser) == []
        tap(browser, browser.find_element(By.ID, "say"))
        eventually(lambda: not tip.is_displayed())


def tap(browser: webdriver.Chrome, element: WebElement) -> None:
    finger = PointerInput(interaction.POINTER_TOUCH, "finger")
    actions = ActionBuilder(browser, mouse=finger)
    actions.pointer_action.move_to(element).pointer_down().pointer_up()
    actions.perform()


@browser_needed
def test_the_admin_page_shows_and_aborts(server: Running, browser: webdriver.Chrome) -> None:
    headers = {"authorization": "Bearer k"}
    body = {"prompt": "ab", "max_tokens": 90_000, "stream": True}
    ended: list[str] = []

    def run() -> None:
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json=body, headers=headers, timeout=PATIENCE
        ) as response:
            ended.append("".join(response.iter_text()))

    request = threading.Thread(target=run)
    request.start()
    browser.get(f"{server.url}/admin")
    browser.execute_script("sessionStorage.clear()")
    browser.get(f"{server.url}/admin")
    eventually(browser.find_element(By.ID, "key").is_displayed)
    check_looks(browser)  # of the error, and of all that is empty
    reach(browser, "#key").send_keys("a", Keys.ENTER)
    eventually(lambda: browser.find_element(By.ID, "state").text == f"{NAME}: ready")
    eventually(lambda: browser.find_element(By.CSS_SELECTOR, "#requests tr button"))
    assert "FakeForCausalLM" in browser.find_element(By.ID, "facts").text
    eventually(lambda: browser.find_element(By.ID, "owned-pages").text == "2")
    shown = browser.find_element(By.CLASS_NAME, "legend").text.splitlines()
    assert [each.split()[0] for each in shown] == ["2", "0", "1", "61"]
    assert pixels(browser) == ["--used", "--used", "--line", "--idle"]
    check_looks(browser)
    abort = reach(browser, "#requests button")
    written = browser.find_element(By.CSS_SELECTOR, "#requests td.n:nth-child(3)")
    before = written.text
    eventually(lambda: written.text != before)  # the row lives on while the keyboard is in it
    assert focused(browser) == abort
    abort.send_keys(Keys.ENTER)
    request.join(timeout=PATIENCE)
    eventually(lambda: "was aborted" in browser.find_element(By.ID, "said").text)
    eventually(lambda: focused(browser).get_attribute("id") == "requests-title")
    assert reach(browser, "#log").is_displayed()
    assert "operator ended this request" in ended[0]
    eventually(lambda: "POST /v1/completions" in browser.find_element(By.ID, "log").text)
    assert "/admin/state" not in browser.find_element(By.ID, "log").text


def reach(browser: webdriver.Chrome, selector: str) -> WebElement:
    """Go on by Tab until the focus is there."""
    for _ in range(20):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return focused(browser)
    raise AssertionError(f"{selector} cannot be reached by Tab")


@browser_needed
def test_a_page_below_a_root_path_asks_for_nothing_outside(
    model_folder: Path, browser: webdriver.Chrome
) -> None:
    with running(model_folder, "--root-path", "/models/small", "--api-key", "k") as server:
        server.wait_until(200)
        root = f"{server.url}/models/small"
        open_page(browser, root, "k")
        eventually(lambda: str(model_folder) in browser.find_element(By.ID, "model").text)
        entries = "return performance.getEntriesByType('resource').map((each) => each.name)"
        asked = browser.execute_script(entries)
        links = [each.get_attribute("href") for each in browser.find_elements(By.CSS_SELECTOR, "a")]
        assert complaints(browser) == []
        server.process.send_signal(signal.SIGTERM)
    browser.execute_script("greet()")
    shown = browser.find_element(By.ID, "model")
    eventually(lambda: shown.text == "The server does not answer.")
    assert f"{root}/v1/models" in asked and links
    assert all(each.startswith((root + "/", "data:")) for each in (*asked, *links))


@pytest.mark.anyio
async def test_the_engine_draws_its_pages_only_while_somebody_looks(serve: Serve) -> None:
    async with serve() as served:
        await served.complete(prompt="ab", max_tokens=3)
        assert served.core.num_maps == 0
        served.engine._heard -= 1000  # an idle night
        assert (await served.http.get("/admin/state")).json()["pages"] is None
        assert served.engine.state == "ready"
        await until(lambda: served.engine.look_at_pages())
        for _ in range(3):  # within a second
            seen = (await served.http.get("/admin/state")).json()["pages"]
        assert served.core.num_maps == 1
    assert seen["num_pages"] == PAGES and seen["pages_per_cell"] == 1
    assert (sum(seen["owned"]), sum(seen["idle"]), seen["idle"][-1]) == (0, 1, 1)


@pytest.mark.anyio
async def test_pages_are_public_and_closed_to_others(serve: Serve) -> None:
    async with serve(ServerSettings(api_keys=("k",), admin_api_key="a")) as served:
        pages = [await served.http.get(path) for path in ("/", "/admin", "/pages/admin.js")]
        missing = await served.http.get("/pages/../admin.py")
        with_key = {
            key: (await served.http.get("/admin/state", headers={"x-api-key": key})).status_code
            for key in ("k", "a")
        }
        models = await served.http.get("/v1/models", headers={"x-api-key": "a"})
        unknown = await served.http.post(
            "/admin/abort", json={"id": "x"}, headers={"x-api-key": "a"}
        )
    for page in pages:
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "http://" not in page.text.replace("http://www.w3.org", "")
        assert "https://" not in page.text
    assert missing.status_code in (401, 404)
    assert with_key == {"k": 401, "a": 200} and models.status_code == 401
    assert unknown.status_code == 404
