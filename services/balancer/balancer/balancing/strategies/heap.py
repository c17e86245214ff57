"""A heap whose entries know their places, so that one may change its key or leave from the middle.

Four children to a node: half as deep as a binary heap, which is what counts when the entries are spread over memory.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from mypy_extensions import mypyc_attr

_CHILDREN: Final = 4


@mypyc_attr(allow_interpreted_subclasses=True)
class Entry:
    """Something in a heap: the smallest `key` is on top, among equal keys the smallest `tie`."""

    __slots__ = ("key", "place", "tie")

    def __init__(self) -> None:
        self.key = 0.0
        self.tie = 0
        self.place = -1
        """Its index in the heap's list; -1 outside."""


E = TypeVar("E", bound=Entry)


class Heap(Generic[E]):
    """An indexed heap of entries; an entry is in one heap at a time."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[E] = []
        """The heap: `entries[0]` is the top, the children of i are 4 i + 1 … 4 i + 4."""

    def push(self, entry: E) -> None:
        """Add an entry by the key and tie it has."""
        entry.place = len(self.entries)
        self.entries.append(entry)
        self._rise(entry)

    def remove(self, entry: E) -> None:
        """Take an entry out."""
        place = entry.place
        entry.place = -1
        last = self.entries.pop()
        if last is not entry:
            last.place = place
            self.entries[place] = last
            self.moved(last)

    def moved(self, entry: E) -> None:
        """Put an entry right whose key or tie has changed."""
        self._rise(entry)
        self._sink(entry)

    def add_children(self, entry: E, to: list[E]) -> None:
        """Append the entries right below `entry` to a list."""
        child = _CHILDREN * entry.place + 1
        end = min(child + _CHILDREN, len(self.entries))
        while child < end:
            to.append(self.entries[child])
            child += 1

    def _rise(self, entry: E) -> None:
        entries = self.entries
        place = entry.place
        key = entry.key
        tie = entry.tie
        while place > 0:
            above = (place - 1) // _CHILDREN
            parent = entries[above]
            if parent.key < key or (parent.key == key and parent.tie <= tie):
                break
            entries[place] = parent
            parent.place = place
            place = above
        entries[place] = entry
        entry.place = place

    def _sink(self, entry: E) -> None:
        entries = self.entries
        size = len(entries)
        place = entry.place
        key = entry.key
        tie = entry.tie
        child = _CHILDREN * place + 1
        while child < size:
            least = entries[child]
            least_key = least.key
            end = min(child + _CHILDREN, size)
            other = child + 1
            while other < end:
                candidate = entries[other]
                candidate_key = candidate.key
                if candidate_key < least_key or (candidate_key == least_key and candidate.tie < least.tie):
                    least = candidate
                    least_key = candidate_key
                other += 1
            if key < least_key or (key == least_key and tie <= least.tie):
                break
            child = least.place
            entries[place] = least
            least.place = place
            place = child
            child = _CHILDREN * place + 1
        entries[place] = entry
        entry.place = place
