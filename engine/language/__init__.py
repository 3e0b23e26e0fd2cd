"""Programs of text for scripts and notebooks, in the manner of SGLang's language.

A state is a text. What is added to it is text, `gen`, which the model writes, or `choice`, the
likeliest of some texts; each has a name under which it is read.

    from engine import LLM, choice, function, gen

    llm = LLM("demo")
    s = llm.state("Q: What sound does a cow make?\\nA:")
    s += gen("answer", stop="\\n", max_tokens=32)
    s += "\\nThat is" + choice("kind", [" an animal", " a number"])
    s["answer"], s["kind"], s.chosen("kind").scores, s.text

Nothing runs until something is read. Then all that has been asked for runs, of a state and of its
forks side by side in the engine's steps, and what they share is computed once:

    forks = s.fork(3)                                  # three states that go on from here
    forks += "\\nIn other words:"
    forks += gen("words", stop=".", temperature=0.9)   # to each of them
    s += "\\n".join(forks["words"])                    # or forks.join(): all that each has added

A function of a state is run once, or for many arguments side by side, and may decide by what it
reads:

    @function
    def ask(s: State, question: str) -> None:
        s += f"Q: {question}\\nA:" + gen("answer", stop="\\n")

    ask.run(llm, "Who are you?")["answer"]
    [s["answer"] for s in ask.batch(llm, [{"question": q} for q in questions])]

`Remote("http://127.0.0.1:8000")` stands where `llm` does, and asks a server.

A state is text: what was written is tokenised again together with what follows it. Errors are
`RequestError`s that name the part; the error of one fork is no other's.
"""

from engine.language.function import Function, function
from engine.language.parts import Chosen, Gen, Likelihood, Written, choice, gen
from engine.language.remote import Remote
from engine.language.state import Forks, State

__all__ = [
    "Chosen", "Forks", "Function", "Gen", "Likelihood", "Remote", "State", "Written", "choice",
    "function", "gen",
]  # fmt: skip
