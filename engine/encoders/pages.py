"""Pages that hold what decoders attend to of their encoder's input, beside those of their own text.

Every position of an encoder depends on all others, so these pages are found all together or not at
all: under keys of the whole input. Requests with the same input share them while any runs, and
until others need the pages, so n samples and beams of one prompt encode it once.

Owns which request has which of them. Knows no array.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.cache.block_pool import BlockPool
from engine.cache.page_key import PageKey
from engine.cache.prefix_cache import Known, PrefixCache


@dataclass(slots=True, eq=False)
class EncoderInput:
    """What a request's encoder reads, and where the result lies while the request runs."""

    source: np.ndarray  # int32 [length], or float32 [2 length, mels]
    length: int
    digest: bytes  # of its content and its `cache_salt`
    pages: list[int] = field(default_factory=list)
    found: bool = False  # an earlier request wrote them

    @classmethod
    def of(cls, token_ids: list[int], cache_salt: str) -> "EncoderInput":
        """A text."""
        return cls._named(np.array(token_ids, np.int32), len(token_ids), cache_salt)

    @classmethod
    def heard(cls, features: bytes, length: int, cache_salt: str) -> "EncoderInput":
        """A window of audio, as float32 [2 length, mels]."""
        return cls._named(
            np.frombuffer(features, "<f4").reshape(2 * length, -1), length, cache_salt
        )

    @classmethod
    def _named(cls, source: np.ndarray, length: int, cache_salt: str) -> "EncoderInput":
        """By what it holds; the names of two salts never meet."""
        salt = hashlib.sha256(cache_salt.encode()).digest()
        return cls(source, length, hashlib.sha256(salt + source.tobytes()).digest())

    @property
    def namespace(self) -> str:
        """Of the decoder's text: its keys and values depend on what the encoder read."""
        return f"encoder {self.digest.hex()}"

    def keys(self, count: int) -> list[PageKey]:
        """Of its pages; what is equally hashed counts as equal."""
        names = (b"encoder" + self.digest + b"%d" % index for index in range(count))
        digests = (hashlib.sha256(name).digest() for name in names)
        return [PageKey(digest, digest, digest) for digest in digests]  # behind no other page


class Encoded(Protocol):
    """A request, as it is seen from here."""

    encoder: EncoderInput | None


class EncoderPages:
    """The encoder's pages of all requests; those without an encoder's input have none."""

    def __init__(
        self, pool: BlockPool, cache: PrefixCache | None, page_size: int, max_tokens: int
    ) -> None:
        self._pool = pool
        self._cache = cache
        self._page_size = page_size
        self._max_tokens = max_tokens  # that encoders read before a step, but for the last of them
        self._tokens = 0

    def begin_step(self) -> None:
        """Nothing is to be read yet before the step that is planned now."""
        self._tokens = 0

    @property
    def open(self) -> bool:
        """Whether another input may be read before this step; all rows wait for it."""
        return self._tokens < self._max_tokens

    def num_pages(self, request: Encoded) -> int:
        """How many it needs."""
        return -(-request.encoder.length // self._page_size) if request.encoder else 0

    def match(self, request: Encoded) -> Sequence[Known]:
        """All pages that it needs, or none."""
        if request.encoder is None or self._cache is None:
            return ()
        count = self.num_pages(request)
        known = self._cache.match(request.encoder.keys(count))
        return known if len(known) == count else ()

    def take(self, request: Encoded, found: Sequence[Known]) -> None:
        """Own what was found, of which the caller has shared what the device has, or new pages.

        The pool must have room for them. New ones can be found from now: they are written before
        any step that is planned later.
        """
        encoder = request.encoder
        if encoder is None:
            return
        encoder.found = bool(found)
        if self._cache is not None and found:
            encoder.pages = self._cache.bring(found)
            return
        self._tokens += encoder.length
        encoder.pages = self._pool.allocate(self.num_pages(request)) or []
        if self._cache is not None:
            for key, page in zip(encoder.keys(len(encoder.pages)), encoder.pages, strict=True):
                self._cache.insert(key, page)

    def undo(self, request: Encoded) -> None:
        """They may not have been written: nobody is to find them."""
        if request.encoder is not None and self._cache is not None:
            for page in request.encoder.pages:
                self._cache.discard(page)

    def give_back(self, request: Encoded) -> None:
        """Own them no longer."""
        if request.encoder is not None:
            self._pool.release(request.encoder.pages)
            request.encoder.pages = []
