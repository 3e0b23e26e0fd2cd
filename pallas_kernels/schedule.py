"""Reads what XLA decided: the schedule of a compiled program, and its optimised HLO.

000: kCommandBuffer [source | next=019 (1)]          one launch of a CUDA graph ...
    001: kCustomKernel [source | ...] fusion_1       ... that holds this kernel
019: kWhile ...                                      the host waits for its condition
  body:
    020: kCustomKernel ...                           inside: not in the straight line
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_THUNK = re.compile(r"^( *)\d+: k(\w+)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z][\w-]*)\((.*)$")
_CALLS = re.compile(r"calls=%?([\w.-]+)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_GRAPH = "CommandBuffer"
_SLICED = "DynamicSliceFusion"  # what is in it reads or writes a slice in place
_BRANCHING = ("While", "Conditional")
# these name memory that exists already
_NO_WRITE = ("parameter", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call")
_IN_PLACE = ("scatter", "dynamic-update-slice")
_ALIASED = re.compile(r"output_to_operand_aliasing=\{(.*?\))\}")  # {{1}: (7, {}), {2}: (8, {})}
_OUTPUT = re.compile(r"\{(\d*)\}: \(")


@dataclass(frozen=True)
class Schedule:
    """What runs in every execution of a program, and what its branches and loops add."""

    command_buffers: int  # in the straight line; each is launched by the host
    outside: dict[str, int]  # thunks of the straight line that are in none, by kind
    loops: int  # that every execution goes through, in command buffers or not
    launches: int  # kernels, products and copies of the straight line
    in_branches: int  # the same, within loops and conditionals


def parse_schedule(text: str) -> Schedule:
    """Count XLA's thunks by where they are."""
    outside: Counter[str] = Counter()
    graphs, loops, launches, in_branches = 0, 0, 0, 0
    for kind, parents in _thunks(text):
        branch = any(parent in _BRANCHING for parent in parents)
        loops += kind == "While" and not branch
        graphs += kind == _GRAPH and not branch
        if not branch and kind not in (_GRAPH, _SLICED) and _GRAPH not in parents:
            outside[kind] += 1
        if kind not in (_GRAPH, _SLICED, *_BRANCHING):
            launches += not branch
            in_branches += branch
    return Schedule(graphs, dict(outside), loops, launches, in_branches)


def _thunks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The kind of each thunk, and the kinds of those that it is nested in."""
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _THUNK.match(line)
        if found is None:
            continue
        indent, kind = len(found[1]), found[2]
        while stack and stack[-1][0] >= indent:
            stack.pop()
        yield kind, [parent for _, parent in stack]
        stack.append((indent, kind))


@dataclass(frozen=True)
class Written:
    """An instruction that writes an array as large as one that should stay where it is."""

    opcode: str
    dtype: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.opcode} {self.dtype}{list(self.dims)}"


def find_copies(hlo: str, shapes: Iterable[tuple[int, ...]]) -> Counter[Written]:
    """What writes anew an array of one of `shapes`, in any order of axes and any dtype.

    Updates in place are none: if XLA could not do one in place, it put a copy before it.
    """
    wanted = {_axes(shape) for shape in shapes}
    computations = dict(_computations(hlo))
    fused = {rest.fused for lines in computations.values() for rest in lines} - {None}
    found: Counter[Written] = Counter()
    for name, lines in computations.items():
        if name in fused:
            continue
        for line in lines:
            updates = line.updates() | {
                axes for inner in computations.get(line.fused or "", ()) for axes in inner.updates()
            }
            for dtype, dims in line.arrays:
                if _axes(dims) in wanted - updates and line.opcode not in _NO_WRITE:
                    found[Written(line.opcode, dtype, dims)] += 1
    return found


@dataclass(frozen=True)
class _Line:
    """One instruction: `%a = (f32[2,3], s32[]) fusion(...), calls=%fused`."""

    opcode: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # what it returns
    fused: str | None  # the computation that a fusion stands for
    aliased: tuple[int, ...]  # those of `arrays` that a custom call takes and gives back

    def updates(self) -> set[tuple[int, ...]]:
        """Axes of the arrays that it changes in place."""
        if self.opcode in _IN_PLACE:
            return {_axes(dims) for _, dims in self.arrays}
        return {_axes(self.arrays[number][1]) for number in self.aliased}


def _computations(hlo: str) -> Iterator[tuple[str, list[_Line]]]:
    lines: list[_Line] = []
    for text in hlo.splitlines():
        head, found = _COMPUTATION.match(text), _INSTRUCTION.match(text)
        if head is not None:
            lines = []
            yield head[1], lines
        elif found is not None:
            result, opcode, rest = found.groups()
            arrays = tuple(
                (dtype, tuple(int(size) for size in dims.split(",") if size))
                for dtype, dims in _ARRAY.findall(result)
            )
            called, aliased = _CALLS.search(rest), _ALIASED.search(rest)
            outputs = _OUTPUT.findall(aliased[1]) if aliased else ()
            numbers = tuple(int(number or 0) for number in outputs)
            lines.append(_Line(opcode, arrays, called[1] if called else None, numbers))


def _axes(shape: Iterable[int]) -> tuple[int, ...]:
    """What tells an array from others: its axes in any order; [1, D] is laid out as [D] is."""
    return tuple(sorted(size for size in shape if size != 1))
