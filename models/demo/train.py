"""Trains the demo model and writes its folder; run it as

    python -m models.demo.train --books DIR --out models/demo

Owns the command line, the loss and the loop. `--books` is any folder of plain-text English books
(without one, the model learns from the generated texts alone). The same seed, steps and books give
the same tokenizer, and on the same machine the same weights.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tokenizers import Tokenizer

from models.demo import folder, llama, muon
from models.demo.corpus import LATE_SHARES, Corpus, Piece, read_books
from models.demo.packing import Batch, Packer
from models.demo.template import END
from models.demo.vocabulary import END_OF_TEXT, save_tokenizer, token_id, train_tokenizer

LONG_EVERY = 10  # every tenth batch has long rows, so that late positions are learned
Trained = tuple[llama.Params, muon.State]


def loss(
    params: llama.Params, shape: llama.Shape, tokens: Array, segments: Array, weights: Array
) -> Array:
    """Weighted mean of the cross-entropy of every next token, in nats."""
    scores = llama.logits(shape, params, tokens[:, :-1], segments[:, :-1])
    chosen = jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0]
    entropy = jax.nn.logsumexp(scores, axis=-1) - chosen
    return jnp.sum(entropy * weights[:, 1:]) / jnp.sum(weights[:, 1:])


@partial(jax.jit, static_argnums=(2, 3, 4), donate_argnums=(0, 1))
def train_step(
    params: llama.Params,
    state: muon.State,
    shape: llama.Shape,
    steps: int,
    peak: float,
    batch: Batch,
) -> tuple[llama.Params, muon.State, Array]:
    """One update; `steps` and `peak` describe the whole run."""
    value, grads = jax.value_and_grad(loss)(params, shape, *batch)
    rate = muon.schedule(state.step, steps, peak)
    params, state = muon.update(params, grads, state, rate)
    return params, state, value


class Batches:
    """The batches of a run: mostly short rows, sometimes long ones, and late other shares."""

    def __init__(
        self, tokenizer: Tokenizer, books: list[str], seed: int, rows: int, length: int
    ) -> None:
        self.corpora = Corpus(seed + 1, books), Corpus(seed + 3, books)
        self.mixing = Random(seed + 2)
        self.short = Packer(tokenizer, self.corpora[0].document, rows, length)
        self.long = Packer(tokenizer, self._long_document, max(1, rows * length // 1280), 1024)

    def _long_document(self) -> list[Piece]:
        return self.corpora[1].document(long=self.mixing.random() < 0.5)

    def batch(self, step: int, steps: int) -> Batch:
        """The batch of one step of a run of `steps`."""
        if step >= 0.6 * steps:
            for corpus in self.corpora:
                corpus.shares = LATE_SHARES
        return (self.long if step % LONG_EVERY == LONG_EVERY - 1 else self.short).batch()


def save_state(path: Path, trained: Trained) -> None:
    """Everything needed to go on after an interruption."""
    leaves = jax.tree.leaves(trained)
    arrays: dict[str, Any] = {str(index): np.asarray(leaf) for index, leaf in enumerate(leaves)}
    np.savez(path, **arrays)


def load_state(path: Path, like: Trained) -> Trained:
    """What `save_state` saved."""
    with np.load(path, allow_pickle=False) as saved:
        leaves = [jnp.asarray(saved[str(index)]) for index in range(len(saved.files))]
    trained: Trained = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return trained


def train(options: argparse.Namespace) -> None:
    """The whole run; writes the folder every `--save-every` steps and at the end."""
    shape = llama.Shape()
    books = read_books(options.books)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.resume:
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    else:
        sample = Corpus(options.seed, books, drills=False)
        texts = ("".join(text for text, _ in sample.document()) for _ in range(30_000))
        tokenizer = train_tokenizer(texts)
        save_tokenizer(tokenizer, out)
    ends = [token_id(tokenizer, END), token_id(tokenizer, END_OF_TEXT)]
    params = llama.init(shape, jax.random.key(options.seed))
    state = muon.init(params)
    if options.resume:
        params, state = load_state(options.resume, (params, state))
    first = int(state.step)
    source = Batches(tokenizer, books, options.seed + first, options.rows, options.length)
    started, seen, mean = time.monotonic(), 0, 0.0
    for step in range(first, options.steps):
        batch = source.batch(step, options.steps)
        params, state, value = train_step(params, state, shape, options.steps, options.rate, batch)
        seen += batch.tokens.size
        mean += (float(value) - mean) * max(0.03, 1 / (step - first + 1))
        if step % 20 == 0:
            speed = seen / (time.monotonic() - started)
            print(f"step {step} loss {mean:.3f} {speed:.0f} tokens/s", flush=True)
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            folder.save(out, shape, params, ends, ends[1])
            if options.state:
                save_state(options.state, (params, state))


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description="Train Ingot's demo model.")
    parser.add_argument("--books", type=Path, help="folder of plain-text English books")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=7600, help="updates in the whole run")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--length", type=int, default=320, help="tokens of a row")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=100, help="steps between two writes")
    parser.add_argument("--state", type=Path, help="file (.npz) to keep the state of the run in")
    parser.add_argument("--resume", type=Path, help="such a file, to go on from")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
