"""How much of what is due at once goes into the stream: little lies ahead of new mail, and nobody is idle for it."""

from __future__ import annotations

from smtp_proxy.worker.sweeper import Pace


def drained(per_second: float, *, seconds: float = 20.0, look: float = 0.05) -> tuple[float, int]:
    """A backlog without end and readers that read so fast: what they read each second at last, and the most unread."""
    pace, unread, most, done = Pace(), 0.0, 0, 0.0
    for step in range(int(seconds / look)):
        room = pace.room(int(unread), step * look)
        pace.added(room)
        unread += room
        most = max(most, int(unread))
        read = min(unread, per_second * look)
        unread -= read
        done += read if step * look >= seconds / 2 else 0.0
    return done / (seconds / 2), most


def test_slow_readers_are_kept_busy_and_little_waits_unread() -> None:
    read, most = drained(300)
    assert read > 295
    assert most <= 120


def test_slow_rounds_keep_readers_busy_too() -> None:
    """The sweeper's own work takes time, the more of it the busier Postgres is."""
    for look in (0.08, 0.12, 0.18):
        read, most = drained(1450, look=look)
        assert read > 1400, look
        assert most <= 1450 * look * 1.5 + 1


def test_a_large_fleet_is_kept_busy_with_a_fifth_of_a_second_of_its_work_at_most() -> None:
    read, most = drained(20_000)
    assert read > 19_500
    assert most <= 4_000


def test_a_stream_that_nobody_reads_is_not_filled() -> None:
    _, most = drained(0)
    assert most <= 1000


def test_new_mail_does_not_keep_out_what_is_due() -> None:
    """5,000 new messages a second keep more unread than there would be of the backlog."""
    pace, given = Pace(), 0
    for look in range(100):
        given += (room := pace.room(150, look * 0.05))
        pace.added(room)
    assert given >= 100 * 10 * 0.9
