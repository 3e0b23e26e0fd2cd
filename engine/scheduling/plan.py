"""What one step computes: which tokens of which requests. Knows no array.

Made by the scheduler, packed for the device, and read again when the step's results arrive.
"""

from dataclasses import dataclass, field

from engine.request import Request


@dataclass(slots=True)
class Chunk:
    """Tokens start .. start+count-1 of one request, to be computed in a step."""

    request: Request
    start: int
    count: int
    samples: bool  # the last one's logits choose the next token
    scored: range  # positions whose logits score the prompt token after them
    slot: int
    admitted: bool  # the request took its slot in this step
    source: int | None = None  # the slot of the state it goes on from, if not its own
    kept: tuple[int, int] | None = None  # behind so many of its tokens the state goes to a slot
    late: bool = False  # one token, whose logits are kept until it is known what they may choose

    @property
    def num_logit_rows(self) -> int:
        return len(self.scored) + self.samples + self.late


@dataclass(slots=True)
class Draft:
    """Tokens that may follow a row that decodes, each computed in a row of its own."""

    request: Request
    row: int  # of those that decode
    slot: int
    token_ids: list[int]
    accepted: range = range(0)  # rows of logits behind the right ones, once the step is read


@dataclass(slots=True)
class Plan:
    """One step: rows that decode, then chunks, then drafts. Rows that decode are nearly all there
    are in nearly all steps, so they are bare requests and nothing is made for each."""

    decoding: list[Request] = field(default_factory=list)  # one token each, which samples
    counts: list[int] = field(default_factory=list)  # tokens that each of them samples, in turns
    chunks: list[Chunk] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)  # none in a step of several turns
    forks: list[tuple[int, int]] = field(default_factory=list)  # pages copied first: from, to
    num_tokens: int = 0  # side by side: those of the first turn
    window: int = 1  # turns: several if there are no chunks, and a program does so many
    decode: bool = True  # chunks are of one token too: the shape of a decode program

    @property
    def wants_logprobs(self) -> bool:
        """Whether a row's log-probabilities are to be read."""
        scored = any(chunk.scored for chunk in self.chunks)
        return scored or any([r.params.logprobs is not None for r in self.sampling])

    @property
    def wants_scored(self) -> bool:
        """Whether some of those are of tokens that a request names."""
        return any([r.params.logprob_token_ids is not None for r in self.sampling])

    @property
    def wants_hidden(self) -> bool:
        """Whether some row's hidden states are to be read."""
        return any([r.num_states is not None for r in self.rows])

    @property
    def wants_routed(self) -> bool:
        """Whether some row's experts are to be read."""
        return any([r.num_routed is not None for r in self.rows])

    @property
    def rows(self) -> list[Request]:
        """Whose tokens are computed, without drafts."""
        return [*self.decoding, *(chunk.request for chunk in self.chunks)]

    @property
    def first_draft_row(self) -> int:
        """The row of logits behind all others, with which those of drafts begin."""
        return len(self.decoding) + sum(chunk.num_logit_rows for chunk in self.chunks)

    @property
    def late(self) -> list[tuple[Request, int]]:
        """Who is sampled later, and which row of the logits is kept for it."""
        found, row = [], len(self.decoding)
        for chunk in self.chunks:
            row += chunk.num_logit_rows
            if chunk.late:
                found.append((chunk.request, row - 1))
        return found

    @property
    def sampling(self) -> list[Request]:
        """Who samples in this step, in the order of their rows."""
        return self.decoding + [chunk.request for chunk in self.chunks if chunk.samples]
