"""Whose request it is: `serve.http.auth` finds it out, and what lies behind it may ask."""

from starlette.types import Scope


def set_owner(scope: Scope, owner: str) -> None:
    """Remember the digest of the key that the request came with."""
    scope.setdefault("state", {})["owner"] = owner


def owner_of(scope: Scope) -> str:
    """The digest of the request's key, or "" where no key is needed."""
    owner: str = scope.get("state", {}).get("owner", "")
    return owner
