"""Whose cached prompts a request finds: those of the same API key, the same `cache_salt` and the
same `extra_key`, which is SGLang's.

    no keys          the salt, as the client has sent it
    key k, salt s    SHA-256 of k's digest and s
    extra key e      with a salt s, no other two of which become the same; else it is the salt

How soon an answer begins tells whether the beginning of its prompt was cached. So nobody can find
out by trying what the holder of another key has asked; no salt that a client sends is another
key's, for its own key is in what becomes of it.
"""

import hashlib

import msgspec

from engine.errors import RequestError
from serve.protocol.decoding import RequestT

MAX_SALT_CHARS = 1024
_FIELD, _OTHER = "cache_salt", "extra_key"


def own_namespace(request: RequestT, owner: str) -> RequestT:
    """`request` with its `extra_key` as a part of its `cache_salt`, and one that only `owner` has,
    if it has those fields and there is an owner.

    Raises RequestError for either that is empty or longer than `MAX_SALT_CHARS`.
    """
    if _FIELD not in request.__struct_fields__:
        return request
    salt, extra = _checked(request, _FIELD), _checked(request, _OTHER)
    if not owner and not extra:
        return request
    both = f"{len(salt)}:{salt}{extra}" if salt and extra else salt or extra
    return msgspec.structs.replace(request, cache_salt=namespace(owner, both), extra_key=None)


def _checked(request: RequestT, name: str) -> str:
    value: str | None = getattr(request, name)
    if value is not None and not 0 < len(value) <= MAX_SALT_CHARS:
        raise RequestError(f"{name} must have 1 to {MAX_SALT_CHARS} characters.", name)
    return value or ""


def namespace(owner: str, salt: str = "") -> str:
    """What the cache knows `salt` of `owner` as; the salt itself where no key is needed."""
    return hashlib.sha256(f"{owner}/{salt}".encode()).hexdigest() if owner else salt
