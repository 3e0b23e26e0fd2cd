"""Writes the keys and values of a step's tokens into their pages, in place."""

from jaxtyping import Array, Int32, Num


def kv_write(
    pages: Num[Array, "P K S *H"],
    new: Num[Array, "T K *H"],
    page: Int32[Array, " T"],
    slot: Int32[Array, " T"],
) -> Num[Array, "P K S *H"]:
    """`pages` with token t's vectors in `page[t]`, `slot[t]`; a page past the end is dropped.

    No two tokens that are kept may share a place. With `pages` donated this is one in-place
    scatter.
    """
    new = new.astype(pages.dtype)
    return pages.at[page, :, slot].set(new, mode="drop", unique_indices=True)
