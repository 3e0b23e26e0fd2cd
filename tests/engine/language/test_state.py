"""States, forks and functions over a scripted backend: what is asked, when, and what is read."""

import pytest

from engine import State, choice, function, gen
from engine.errors import EngineError, RequestError
from engine.language.backend import first_scored
from tests.engine.language.scripted import Scripted


@pytest.fixture
def script():
    return Scripted()


def test_parts_are_written_behind_what_stands_before_them(script):
    s = State(script, "abc")
    s += gen("one", max_tokens=2) + "-" + gen("two", max_tokens=3) + "."
    assert script.asked == [] and repr(s) == "State('abc<one>-<two>.')"
    assert s["two"] == "-bc" and s["one"] == "cb"
    assert [ask.prompt for ask in script.asked] == ["abc", "abccb-"]
    assert s.text == str(s) == "abccb--bc." and s.names == ["one", "two"]
    assert (s.written("one").num_tokens, s.written("one").finish_reason) == (2, "length")
    s += "x" + gen("one", max_tokens=1)
    assert s["one"] == "x" and len(script.asked) == 3


def test_a_context_runs_what_nobody_has_read(script):
    with State(script, "abc") as s:
        s += gen()
    assert len(script.asked) == 1 and s.text == "abccba"
    with pytest.raises(ZeroDivisionError), State(script, "abc") as s:
        s += gen()
        raise ZeroDivisionError
    assert len(script.asked) == 1


def test_choices_are_compared_by_token_or_as_a_whole(script):
    s = State(script, "abc")
    s += choice("mean", ["abcd", "abc"]) + choice("sum", ["abcd", "abc"], normalization="sum")
    assert s["mean"] == "abcd" and s["sum"] == "abc" and s.text == "abcabcdabc"
    assert s.chosen("mean").scores == {"abcd": -2, "abc": -3}
    assert s.chosen("sum").scores == {"abcd": -4, "abc": -3}
    assert s.chosen("sum").likelihoods["abc"].num_tokens == 1
    with pytest.raises(KeyError, match="see chosen"):
        s.written("sum")


def test_forks_share_what_is_before_them_and_run_side_by_side(script):
    s = State(script, "abc")
    s += gen("first", max_tokens=1)
    forks = s.fork(3)
    for number, fork in enumerate(forks):
        fork += str(number)
    forks += gen("own", max_tokens=2)
    assert forks["own"] == ["0c", "1c", "2c"]
    assert script.batches == [1, 3, 2, 1, 0]  # "first" once, then three at a time
    assert forks.join() == ["00c", "11c", "22c"] and s.text == "abcc"
    assert len(forks[1:]) == 2 and forks[0].names == ["first", "own"]
    s += "|".join(forks["own"]) + gen("last", max_tokens=1)
    assert s["last"] == "c" and len(script.asked) == 5


def test_an_error_ends_its_state_and_no_other(script):
    s = State(script, "abc")
    good, refused, failed = forks = s.fork(3)
    refused += "refuse"
    failed += "fail"
    forks += gen("own") + "!" + gen("next")
    assert good["next"].startswith("!")
    with pytest.raises(RequestError, match=r"^own: The prompt is refused\.$") as caught:
        refused["next"]
    assert caught.value.param == "prompt"
    with pytest.raises(RequestError, match="own: The engine does not like it"):
        _ = failed.text
    with pytest.raises(RequestError, match="own: The prompt is refused"):
        forks["own"]
    failed += gen("more")
    with pytest.raises(RequestError, match="own: "):
        failed["more"]
    assert len(script.asked) == 3


def test_what_was_interrupted_can_be_run_again(script):
    s = State(script, "abc")
    s += gen("one", max_tokens=1)
    script.error = "The device is on fire."
    with pytest.raises(EngineError, match="on fire"):
        s["one"]
    assert script.batches == [1, -1]
    script.error = None
    assert s["one"] == "c"


def test_what_could_not_be_begun_can_be_run_again(script, monkeypatch):
    """The engine had ended, say, or Ctrl-C was pressed."""
    s = State(script, "abc")
    s += gen("one", max_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr("tests.engine.language.scripted._Requests.start", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            s["one"]
    assert s["one"] == "c"


def _interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda: gen("a", temperature=-1), "temperature"),
        (lambda: gen("a", max_tokens=0), "max_tokens"),
        (lambda: gen("a", stop=[""]), "stop"),
        (lambda: gen("a", regex="x", json={}), "structured_outputs"),
        (lambda: choice("a", []), "choices"),
        (lambda: choice("a", "yes"), "choices"),
        (lambda: choice("a", ["yes", ""]), "choices"),
        (lambda: choice("a", ["yes", "yes"]), "choices"),
        (lambda: choice("a", ["yes"], normalization="max"), "normalization"),
        (lambda: State(Scripted()).fork(0), "count"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_written(make, param):
    with pytest.raises(RequestError) as caught:
        make()
    assert caught.value.param == param


def test_unknown_names_and_things_that_are_no_text(script):
    s = State(script, "abc")
    s += gen("one")
    with pytest.raises(KeyError, match="no part is called 'two'; there are one"):
        s["two"]
    with pytest.raises(TypeError, match="not int"):
        s += 3


@pytest.mark.parametrize(
    ("prompt", "texts", "first"),
    [
        ([1, 2], [[1, 2, 3], [1, 2, 4, 5]], 2),
        ([1, 2], [[1, 9], [1, 2, 4]], 1),  # the choice changed the prompt's last token
        ([1, 2], [[1, 2], [1, 2, 4]], 1),  # the choice added none
        ([1], [[7, 8], [9]], 1),  # the first token has nothing before it
    ],
)
def test_choices_are_scored_from_where_they_part_from_the_prompt(prompt, texts, first):
    assert first_scored(prompt, texts) == first


class Model:
    def __init__(self, script):
        self.script = script

    def state(self, text=""):
        return State(self.script, text)


@function
def decide(s: State, word: str, more: bool = False) -> None:
    """Writes, reads, and goes on by what it has read."""
    s += word + gen("first", max_tokens=1)
    if s["first"] == "b" or more:
        s += gen("second", max_tokens=1)


@function
def twice(s: State, word: str) -> None:
    decide(s, word)
    decide(s, word)


def test_a_function_runs_and_is_a_part_of_another(script):
    s = decide.run(Model(script), "ab", more=True)
    assert s.text == "abbb" and decide.__doc__.startswith("Writes")
    assert twice.run(Model(script), "ab").text == "abbbabbb"


def test_a_batch_runs_side_by_side_and_each_goes_its_own_way(script):
    states = decide.batch(Model(script), [{"word": "ab"}, {"word": "ac"}, {"word": "bb"}] * 20)
    assert [s.text for s in states] == ["abbb", "acc", "bbbb"] * 20
    assert max(script.batches) > 1
    states[0] += gen("third", max_tokens=1)
    assert states[0]["third"] == "b"
    assert decide.batch(Model(script), []) == []


def test_one_bad_call_of_a_batch_harms_no_other(script):
    calls = [{"word": "ab"}, {"word": "refuse"}, {"word": "fail"}]
    good, refused, failed = decide.batch(Model(script), calls)
    assert good.text == "abbb"
    with pytest.raises(RequestError, match="first: The prompt is refused"):
        refused["first"]
    with pytest.raises(RequestError, match="first: The engine does not like it"):
        failed["second"]


def test_a_batch_ends_with_its_engine_and_with_bugs_in_its_body(script):
    with pytest.raises(TypeError, match="unexpected keyword"):
        decide.batch(Model(script), [{"word": "ab"}, {"text": "ab"}])
    script.error = "The device is on fire."
    with pytest.raises(EngineError, match="on fire"):
        decide.batch(Model(script), [{"word": "ab"}] * 5)
