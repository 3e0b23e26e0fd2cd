"""Every shape decision of the engine: which programs exist, and which one a step runs in.

Two families of programs, so that the grid adds up instead of multiplying:

    decode   one token a row          rows    1 2 4 8 16 24 32 48 64 96 128 ... max_num_seqs
    mixed    rows of any length       tokens  16 32 64 128 ... max_num_batched_tokens,
                                      rows    as many as tokens, at most max_num_seqs

There may be decode programs that do several steps, too: --num-scheduler-steps.

A step is padded up to the smallest program that is ready. Nothing a user can set is a shape.
"""

from dataclasses import dataclass, replace

from engine.errors import ConfigError
from engine.sampling.speech_times import SpeechTimes
from engine.vectors.routed_rows import RoutedRows
from engine.watermarking.contexts import Widths

_SMALLEST_MIXED = 16
_LATE = 4, 16  # rows that are sampled after their step at once: few, and the most
_PIECE = 8  # tokens that GPUs copy to the tensor cores at least


@dataclass(frozen=True, order=True)
class StepShape:
    """Fixed sizes of one program; `rows` is both the attended rows and the rows of logits."""

    tokens: int  # T
    rows: int  # B
    decode: bool
    table_width: int  # MP, pages a sequence can have
    page_size: int  # S
    window: int = 1  # W, tokens that each row of a decode program samples one after another
    extra_fields: int = 0  # int32 of each row besides its sampling options
    snapshots: bool = False  # rows read and leave states in slots besides their own
    adapters: bool = False  # rows have adapters
    keeps_logits: bool = False  # of which rows may be sampled later
    keeps_hidden: bool = False  # gives the hidden states of all tokens
    keeps_routed: bool = False  # gives the experts that they take
    processed_logprobs: bool = False  # are of what tokens are drawn from
    takes: bool = False  # no step: takes `tokens` rows of the logits of an earlier one's `rows`
    late: bool = False  # no step: samples the first `tokens` of `rows` that were taken

    @property
    def page_updates(self) -> int:
        """Most page-table entries that one step can add: row b of t tokens adds ceil(t / S)."""
        return self.rows if self.decode else self.rows + self.tokens // self.page_size

    def __str__(self) -> str:
        if self.takes or self.late:
            return f"{'sample' if self.late else 'take'} {self.tokens} of {self.rows} rows"
        if not self.decode:
            return f"mixed {self.tokens} tokens"
        turns = f", {self.window} steps" if self.window > 1 else ""
        return f"decode {self.rows} rows{turns}"


@dataclass(frozen=True)
class Shapes:
    """The two families for one engine."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    page_size: int
    windows: tuple[int, ...] = ()  # steps that a decode program may do, besides one
    loops: bool = False  # it does them in a loop, with the memory of one
    extra_fields: int = 0  # arguments of logits processors
    snapshots: bool = False  # of states, for the prefix cache
    adapters: bool = False
    max_encoder_len: int = 0  # positions that a request's encoder can have, if there is one
    late: bool = False  # rows may be sampled after their step
    hidden: bool = False  # requests may ask for hidden states
    routed: RoutedRows | None = None  # what is told of the experts that tokens take
    processed_logprobs: bool = False  # are of what tokens are drawn from
    watermark: Widths | None = None  # what slots remember for it
    times: SpeechTimes | None = None  # of a model that writes when something was said

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"--max-num-batched-tokens {self.max_num_batched_tokens} is below "
                f"--max-num-seqs {self.max_num_seqs}: a step could not give every row a token."
            )

    @property
    def table_width(self) -> int:
        """Pages that a sequence of `max_model_len` tokens takes."""
        return -(-self.max_model_len // self.page_size)

    @property
    def encoder_width(self) -> int:
        """Pages that so many positions of an encoder take."""
        return -(-self.max_encoder_len // self.page_size)

    @property
    def sequence_pages(self) -> int:
        """Pages that a request can have."""
        return self.table_width + self.encoder_width

    def longest(self, pages: int) -> int:
        """The context that so many pages would hold; an encoder of texts reads as much again."""
        if self.max_encoder_len == self.max_model_len:
            return max(0, pages) // 2 * self.page_size
        return max(0, pages - self.encoder_width) * self.page_size

    def decode(self) -> list[StepShape]:
        return [self._shape(rows, rows, True) for rows in decode_rows(self.max_num_seqs)]

    def mixed(self) -> list[StepShape]:
        """A token is in one row, and gives it one row of logits at most."""
        sizes = mixed_tokens(self.max_num_seqs, self.max_num_batched_tokens)
        return [self._shape(tokens, min(tokens, self.max_num_seqs), False) for tokens in sizes]

    def windowed(self) -> list[StepShape]:
        """Decode programs of several steps, the most steps first."""
        return [replace(shape, window=window) for window in self.windows for shape in self.decode()]

    def sampled_late(self) -> list[StepShape]:
        """Programs that together sample rows of a step after it. One for each number of rows takes
        their logits out, which compiles in no time; the sampler, which does not, is there twice."""
        if not self.late:
            return []
        few, most = (min(rows, self.max_num_seqs) for rows in _LATE)
        take = [replace(s, tokens=most, keeps_logits=False, takes=True) for s in self.decode()]
        first = replace(take[0], rows=most, takes=False, late=True)
        return [*take, *(replace(first, tokens=tokens) for tokens in sorted({few, most}))]

    def smallest_decode(self, rows: int) -> StepShape:
        """The decode program that so many rows pad least."""
        return next(shape for shape in self.decode() if shape.rows >= rows)

    def largest(self) -> list[StepShape]:
        """With the first two every step can run: serve as soon as they are compiled. No program
        needs more memory than one of these, whose steps of several turns are the longest."""
        decode = self.decode()[-1]
        unrolled = () if self.loops else self.windows[:1]
        windowed = [replace(decode, window=window) for window in unrolled]
        return [self.mixed()[-1], decode, *windowed]

    def fits(self, shape: StepShape, num_tokens: int, decode: bool, window: int = 1) -> bool:
        """Whether a step of so many tokens, one a row if `decode`, runs in `shape`."""
        enough = shape.tokens >= num_tokens and shape.window == window
        return enough and (decode or not shape.decode)

    def _shape(self, tokens: int, rows: int, decode: bool) -> StepShape:
        return StepShape(
            tokens, rows, decode, self.table_width, self.page_size,
            extra_fields=self.extra_fields, snapshots=self.snapshots, adapters=self.adapters,
            keeps_logits=self.late, keeps_hidden=self.hidden,
            keeps_routed=self.routed is not None, processed_logprobs=self.processed_logprobs,
        )  # fmt: skip


def decode_rows(largest: int) -> list[int]:
    """1 2 4 8 16 24 32 48 64 96 ...: powers of two, and half-way between them from 16 on."""
    rows = [1, 2, 4, 8]
    power = 16
    while rows[-1] < largest:
        rows += [power, power + power // 2]
        power *= 2
    return [*(r for r in rows if r < largest), largest]


def decode_windows(most: int) -> tuple[int, ...]:
    """Powers of two from `most` down to 2."""
    return tuple(1 << power for power in range(most.bit_length() - 1, 0, -1))


def mixed_tokens(smallest_useful: int, largest: int) -> list[int]:
    """Powers of two from 16 to the step's token budget, and the budget, up to a multiple of 8."""
    most = -(-max(largest, smallest_useful) // _PIECE) * _PIECE
    sizes = [_SMALLEST_MIXED]
    while sizes[-1] < largest:
        sizes.append(sizes[-1] * 2)
    return [*(s for s in sizes if s < largest), most]
