"""Pool, prefix cache and host tier together: a page found by its key holds those tokens.

The model of a device is a list: what each page holds is the tuple of all tokens up to its end.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.cache.block_pool import BlockPool
from engine.cache.host_tier import HostTier
from engine.cache.page_key import extend_keys
from engine.cache.prefix_cache import PrefixCache

SIZE = 2
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=9)


class Sequence:
    """A request's tokens, keys and pages."""

    def __init__(self, tokens, salt):
        self.tokens, self.salt, self.keys, self.pages = tokens, salt, [], []
        extend_keys(self.keys, tokens, SIZE, salt)

    def content(self, index):
        """What its page of this index holds once it is computed."""
        return (self.salt, *self.tokens[: (index + 1) * SIZE])


class Pages(RuleBasedStateMachine):
    @initialize(num_pages=st.integers(3, 9), capacity=st.integers(0, 6))
    def start(self, num_pages, capacity):
        self.pool = BlockPool(num_pages)
        self.tier = HostTier(capacity) if capacity else None
        self.cache = PrefixCache(self.pool, self.tier)
        self.device = [None] * num_pages
        self.running = []
        self.planned = []  # requests, and how many of their pages need not be computed

    @rule(tokens=TOKENS, salt=st.sampled_from(["", "a"]))
    def admit(self, tokens, salt):
        """As the scheduler does."""
        request = Sequence(tokens, salt)
        found = self.cache.match(request.keys[: (len(tokens) - 1) // SIZE])
        here = [page for page in found if isinstance(page, int)]
        self.pool.share(here)
        missing = -(-len(tokens) // SIZE) - len(here)
        if missing > self.pool.num_free:
            self.pool.release(here)
            return
        request.pages = self.cache.bring(found)
        request.pages += self.pool.allocate(missing - (len(found) - len(here)))
        for key, page in list(zip(request.keys, request.pages, strict=False))[len(found) :]:
            self.cache.insert(key, page)
        self.planned.append((request, len(found)))

    @rule()
    def interrupt(self):
        """A notebook's stop button before the step was launched."""
        for request, first in self.planned:
            for page in request.pages[first:]:
                self.cache.discard(page)
            self.pool.release(request.pages)
        self.planned.clear()

    @rule()
    def step(self):
        """The copies that are due, then what requests compute; now they read all their pages."""
        for host, page, to_host in self.tier.copies if self.tier else ():
            if not to_host:
                assert host.content is not None
                self.device[page] = host.content
            elif host.wanted:
                host.content = self.device[page]
        if self.tier:
            self.tier.copies.clear()
        for request, first in self.planned:
            for index in range(first, len(request.pages)):
                self.device[request.pages[index]] = request.content(index)
            self.running.append(request)
        self.planned.clear()
        for request in self.running:
            for index, page in enumerate(request.pages):
                assert self.device[page] == request.content(index)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data):
        """Or preempted: both give the pages back."""
        request = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.pool.release(request.pages)

    @precondition(lambda self: not self.planned)
    @rule()
    def reset(self):
        self.cache.clear()
        assert self.pool.num_idle == 0

    @invariant()
    def pages_are_counted(self):
        if hasattr(self, "pool"):
            requests = self.running + [request for request, _ in self.planned]
            owned = {page for request in requests for page in request.pages}
            assert self.pool.num_free == self.pool.capacity - len(owned)
            assert all(self.pool.owners(page) for page in owned) and 0 not in owned
            assert self.tier is None or len(self.tier) <= self.tier.capacity


Pages.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestPages = Pages.TestCase
