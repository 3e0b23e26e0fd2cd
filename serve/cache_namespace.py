"""Whose cached prompts a request finds: those of the same API key and the same `cache_salt`.

    no keys          the salt, as the client has sent it
    key k, salt s    SHA-256 of k's digest and s

How soon an answer begins tells whether the beginning of its prompt was cached. So nobody can find
out by trying what the holder of another key has asked; no salt that a client sends is another
key's, for its own key is in what becomes of it.
"""

import hashlib

import msgspec

from engine.errors import RequestError
from serve.protocol import RequestT

MAX_SALT_CHARS = 1024
_FIELD = "cache_salt"


def own_namespace(request: RequestT, owner: str) -> RequestT:
    """`request` with a `cache_salt` that only `owner` has, if it has that field and there is one.

    Raises RequestError for a salt that is empty or longer than `MAX_SALT_CHARS`.
    """
    if _FIELD not in request.__struct_fields__:
        return request
    salt: str | None = getattr(request, _FIELD)
    if salt is not None and not 0 < len(salt) <= MAX_SALT_CHARS:
        raise RequestError(f"{_FIELD} must have 1 to {MAX_SALT_CHARS} characters.", _FIELD)
    if not owner:
        return request
    return msgspec.structs.replace(request, cache_salt=namespace(owner, salt or ""))


def namespace(owner: str, salt: str = "") -> str:
    """What the cache knows `salt` of `owner` as; the salt itself where no key is needed."""
    return hashlib.sha256(f"{owner}/{salt}".encode()).hexdigest() if owner else salt
