"""`--scheduling-policy lpm`: who has the most of its prompt in the prefix cache goes first.

Of the first 128 that wait; they are compared once in 8 steps, and once for all who are admitted in
those: a comparison costs the host half of what the rest of a step does. Who was to be next and
found no room stays the next one, so that nobody is compared while there is none.

Those whose beginnings are known may keep coming, so one order in eight begins with who came first:
everybody comes to that place, and nobody waits for ever. (SGLang's `lpm`, which looks at all or, if
there are more than 128, at none, has no such rule: there a new prompt waits as long as up to 128
that continue known ones do.)
"""

from engine.cache.page_key import extend_keys
from engine.cache.prefix_cache import PrefixCache
from engine.request import Request, Status
from engine.scheduling.waiting_queue import WaitingQueue

_COMPARED = 128
_STEPS = 8
_ORDERS = 8  # of which one begins with who came first


class LongestFirst(WaitingQueue):
    """By priority, then by what the cache knows, then first come first served."""

    def __init__(self, cache: PrefixCache, page_size: int) -> None:
        super().__init__()
        self._cache = cache
        self._page_size = page_size
        self._order: list[Request] = []  # of those that were compared, the next one last
        self._steps = 0  # in which it was followed
        self._orders = 0  # made so far

    def begin_step(self) -> None:
        """After some steps, forget the order but for the next one."""
        super().begin_step()
        self._steps += 1
        if self._steps >= _STEPS:
            del self._order[:-1]

    def peek(self) -> Request | None:
        first, order = super().peek(), self._order
        while order and order[-1].status is not Status.WAITING:
            order.pop()
        if first is not None and (not order or first.priority < order[-1].priority):
            self._orders, self._steps = self._orders + 1, 0
            before_all = first if self._orders % _ORDERS == 0 else None
            compared = self.first(_COMPARED)
            compared.sort(
                key=lambda each: (each.priority, each is not before_all, -self._known(each))
            )
            order[:] = reversed(compared)
        return order[-1] if order else None

    def set_aside(self, request: Request) -> bool:
        """Whoever is next then was not compared with it."""
        self._order = [each for each in self._order if each is not request]
        return super().set_aside(request)

    def _known(self, request: Request) -> int:
        """Pages of its beginning that it could have from the cache."""
        extend_keys(request.page_keys, request.token_ids, self._page_size, request.namespace)
        return self._cache.num_known(request.page_keys, request.num_reusable // self._page_size)
