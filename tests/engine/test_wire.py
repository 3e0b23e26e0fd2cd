"""Frames survive every way in which a socket may cut them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import AbortRequests, ToEngine
from engine.wire import HEADER, MAX_FRAME_BYTES, FrameBuffer, FrameError, to_frame


@given(st.lists(st.lists(st.integers(0, 2**63)), max_size=5), st.data())
def test_messages_arrive_whole_and_in_order(groups: list[list[int]], data: st.DataObject) -> None:
    sent = [[AbortRequests(ids)] for ids in groups]
    stream = b"".join(map(to_frame, sent))
    buffer, received = FrameBuffer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += buffer.feed(stream[:size])
        stream = stream[size:]
    decoder = msgspec.msgpack.Decoder(list[ToEngine])
    assert [decoder.decode(each) for each in received] == sent


def test_a_length_beyond_reason_is_refused() -> None:
    with pytest.raises(FrameError):
        FrameBuffer().feed(HEADER.pack(MAX_FRAME_BYTES + 1))
