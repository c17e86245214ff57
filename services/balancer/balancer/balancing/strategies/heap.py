"""A heap whose entries know their places, so that one may change its key or leave from the middle.

Four children to a node: half as deep as a binary heap, which is what counts when the entries are spread over memory.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar, final

from mypy_extensions import i64

_CHILDREN: Final[i64] = 4


T = TypeVar("T")


@final
class Entry(Generic[T]):
    """Something in a heap: the smallest `key` is on top, among equal keys the smallest `tie`.

    Without subclasses, so that compiled code knows an entry by one comparison: the heap looks at many.
    """

    __slots__ = ("item", "key", "place", "seen", "tie")

    tie: i64
    place: i64
    """Its index in the heap's list; -1 outside."""
    seen: i64
    """For the heap's owner: the item's load when the key was made."""

    def __init__(self, item: T) -> None:
        self.key = 0.0
        self.tie = 0
        self.place = -1
        self.seen = 0
        self.item = item


@final
class Heap(Generic[T]):
    """An indexed heap of entries; an entry is in one heap at a time."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[Entry[T]] = []
        """The heap: `entries[0]` is the top, the children of i are 4 i + 1 … 4 i + 4."""

    def push(self, entry: Entry[T]) -> None:
        """Add an entry by the key and tie it has."""
        entry.place = len(self.entries)
        self.entries.append(entry)
        self._rise(entry)

    def remove(self, entry: Entry[T]) -> None:
        """Take an entry out."""
        place = entry.place
        entry.place = -1
        last = self.entries.pop()
        if last is not entry:
            last.place = place
            self.entries[place] = last
            self.moved(last)

    def moved(self, entry: Entry[T]) -> None:
        """Put an entry right whose key or tie has changed."""
        if not self._rise(entry):
            self._sink(entry)

    def add_children(self, entry: Entry[T], to: list[Entry[T]]) -> None:
        """Append the entries right below `entry` to a list."""
        child: i64 = _CHILDREN * entry.place + 1
        end: i64 = min(child + _CHILDREN, len(self.entries))
        while child < end:
            to.append(self.entries[child])
            child += 1

    # Both loops read `entries[i].key` without holding the entry: compiled, that spares writing its reference count,
    # and with it a cache line of each child.

    def _rise(self, entry: Entry[T]) -> bool:
        entries = self.entries
        place: i64 = entry.place
        key = entry.key
        tie: i64 = entry.tie
        while place > 0:
            above: i64 = (place - 1) // _CHILDREN
            above_key = entries[above].key
            if above_key < key or (above_key == key and entries[above].tie <= tie):
                break
            parent = entries[above]
            entries[place] = parent
            parent.place = place
            place = above
        if place == entry.place:
            return False
        entries[place] = entry
        entry.place = place
        return True

    def _sink(self, entry: Entry[T]) -> None:
        entries = self.entries
        size: i64 = len(entries)
        place: i64 = entry.place
        key = entry.key
        child: i64 = _CHILDREN * place + 1
        while child < size:
            least: i64 = child
            least_key = entries[child].key
            end: i64 = child + _CHILDREN
            if end > size:
                end = size
            child += 1
            while child < end:
                child_key = entries[child].key
                if child_key <= least_key and (child_key < least_key or entries[child].tie < entries[least].tie):
                    least = child
                    least_key = child_key
                child += 1
            if key <= least_key and (key < least_key or entry.tie <= entries[least].tie):
                break
            lower = entries[least]
            entries[place] = lower
            lower.place = place
            place = least
            child = _CHILDREN * place + 1
        entries[place] = entry
        entry.place = place


def take_least(edge: list[Entry[T]]) -> Entry[T]:
    """Remove and return the least of a few entries."""
    least = 0
    for i in range(1, len(edge)):
        entry = edge[i]
        best = edge[least]
        if entry.key < best.key or (entry.key == best.key and entry.tie < best.tie):
            least = i
    taken = edge[least]
    last = edge.pop()
    if last is not taken:
        edge[least] = last
    return taken
