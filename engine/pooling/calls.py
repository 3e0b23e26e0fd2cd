"""The vectors of one call of `LLM`: sequences in, the engine turned until all have answered."""

from collections.abc import Sequence
from itertools import count
from threading import Lock

import numpy as np

from engine.errors import EngineError, RequestError
from engine.messages import PoolRequest
from engine.pooling.core import PoolingCore
from engine.pooling.inputs import (
    InputReader,
    PoolInput,
    check_task,
    match_pairs,
    vector_width,
)
from engine.pooling.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
from engine.pooling_params import PoolingParams
from engine.profiling.profiler import Profiler
from engine.prompts import Prompt
from engine.tokenizers.tokenizer import Tokenizer


class Pooler:
    """One pooling engine in this process."""

    def __init__(self, core: PoolingCore, tokenizer: Tokenizer | None, profiler: Profiler) -> None:
        self.core, self._profiler = core, profiler
        self._reader = InputReader(tokenizer, core.info)
        self._ids, self._lock = count(), Lock()

    def embed(
        self, prompts: Sequence[Prompt], params: PoolingParams, truncate: int | None
    ) -> list[EmbeddingRequestOutput]:
        check_task(self.core.info, "embed")
        return [
            EmbeddingRequestOutput(name, EmbeddingOutput(vector.tolist()), ids)
            for name, vector, ids in self._of_prompts(prompts, params, truncate)
        ]

    def classify(
        self, prompts: Sequence[Prompt], params: PoolingParams, truncate: int | None
    ) -> list[ClassificationRequestOutput]:
        check_task(self.core.info, "classify")
        return [
            ClassificationRequestOutput(name, ClassificationOutput(vector.tolist()), ids)
            for name, vector, ids in self._of_prompts(prompts, params, truncate)
        ]

    def encode(
        self, prompts: Sequence[Prompt], params: PoolingParams, truncate: int | None
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        return [
            PoolingRequestOutput(name, PoolingOutput(vector), ids)
            for name, vector, ids in self._of_prompts(prompts, params, truncate)
        ]

    def reward(
        self, prompts: Sequence[Prompt], params: PoolingParams, truncate: int | None
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        check_task(self.core.info, "reward")
        return self.encode(prompts, params, truncate)

    def score(
        self, first: Sequence[str], second: Sequence[str], params: PoolingParams,
        truncate: int | None,
    ) -> list[ScoringRequestOutput]:  # fmt: skip
        """Of each pair: a cross-encoder's score, or the cosine of the two embeddings."""
        check_task(self.core.info, "score")
        pairs = match_pairs(first, second)
        if self.core.info.task == "classify":
            inputs = [self._reader.text(*pair, truncate=truncate) for pair in pairs]
            return [
                ScoringRequestOutput(name, ScoringOutput(float(vector[0])), ids)
                for name, vector, ids in self._run(inputs, params)
            ]
        texts = list(dict.fromkeys([*first, *second]))
        inputs = [self._reader.text(text, truncate=truncate) for text in texts]
        answers = dict(zip(texts, self._run(inputs, params), strict=True))
        return [
            ScoringRequestOutput(
                answers[b][0],
                ScoringOutput(_cosine(answers[a][1], answers[b][1])),
                answers[a][2] + answers[b][2],
            )
            for a, b in pairs
        ]

    def _of_prompts(
        self, prompts: Sequence[Prompt], params: PoolingParams, truncate: int | None
    ) -> list[tuple[str, np.ndarray, list[int]]]:
        return self._run([self._input(prompt, truncate) for prompt in prompts], params)

    def _input(self, prompt: Prompt, truncate: int | None) -> PoolInput:
        if prompt.embeds is not None or prompt.decoder is not None:
            raise RequestError("A vector is of a text or of token ids, and of one prompt.", "input")
        if prompt.ids is not None:
            return self._reader.ids(prompt.ids, truncate)
        return self._reader.text(prompt.text or "", truncate=truncate)

    def _run(
        self, inputs: Sequence[PoolInput], params: PoolingParams
    ) -> list[tuple[str, np.ndarray, list[int]]]:
        """Id, vector and tokens of each; threads take turns."""
        requests = [
            PoolRequest(
                request_id=next(self._ids), prompt_token_ids=each.token_ids, params=params,
                token_type_ids=each.token_type_ids,
            )
            for each in inputs
        ]  # fmt: skip
        with self._lock:
            vectors = self._vectors(requests, params)
        return [(str(r.request_id), vectors[r.request_id], r.prompt_token_ids) for r in requests]

    def _vectors(
        self, requests: Sequence[PoolRequest], params: PoolingParams
    ) -> dict[int, np.ndarray]:
        """By id; what is unfinished on the way out is forgotten."""
        vectors: dict[int, np.ndarray] = {}
        width = vector_width(self.core.info, params)
        try:
            for request in requests:
                self.core.add(request)
            while len(vectors) < len(requests):
                report = self.core.step()
                self._profiler.see(report.stats.num_steps)
                for delta in report.deltas:
                    if delta.error is not None:
                        raise EngineError(delta.error)
                    if delta.vector is not None:
                        vector = np.frombuffer(delta.vector, "<f4")
                        rows = (-1, width) if self.core.info.per_token else (-1,)
                        vectors[delta.request_id] = vector.reshape(rows)
        finally:
            self.core.abort([request.request_id for request in requests])
        return vectors


def texts_of(data: str | Sequence[str], name: str) -> list[str]:
    """One text or several, as several; raises RequestError naming the argument."""
    texts = [data] if isinstance(data, str) else list(data)
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(f"{name} is a text or a list of texts.", name)
    return texts


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    wide = a.astype(np.float64), b.astype(np.float64)
    lengths = float(np.linalg.norm(wide[0]) * np.linalg.norm(wide[1]))
    return float(wide[0] @ wide[1]) / max(lengths, 1e-12)
