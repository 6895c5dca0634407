"""What a body is replayed against: its deliveries in order, each with what is recorded of it.

A body meets its record in order and lets go of it as it goes, so a fold is read when the body gets there, and no
earlier: what a replay keeps in memory does not grow with history. An operation that is to be completed later than the
next one is looked for by its place, which reads the one fold that it is in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat

from .folding import Fold
from .operation import Cells, Recorded

Delivery = tuple[str | None, int, Cells | None]
"""An id, its instant in milliseconds, and what is recorded: nothing of a timer that has no record of its own."""

_END: Delivery = (None, 0, None)


class Past:
    """The delivery history of a run.

    Args:
        ids, instants: what follows the folds, in order, and when (milliseconds).
        known: what is recorded, by id, of that and of what the folds hold no record of.
        folds: the beginning of history.
    """

    def __init__(
        self,
        ids: Sequence[str] = (),
        instants: Sequence[int] = (),
        known: Mapping[str, Recorded] | None = None,
        folds: Sequence[Fold] = (),
    ) -> None:
        self._ids = ids
        self._instants = instants
        self._known: Mapping[str, Recorded] = known if known is not None else {}
        self._folds = folds
        self._places: dict[str, int] | None = None
        self._starts: list[int] = []
        self._read: dict[int, tuple[list[int], Sequence[Cells | None]]] = {}

    def __len__(self) -> int:
        return sum([len(fold.ids) for fold in self._folds]) + len(self._ids)

    def ids(self) -> list[str]:
        """What is delivered, in order."""
        return [*chain.from_iterable([fold.ids for fold in self._folds]), *self._ids]

    def then(self, ids: Sequence[str], at: int) -> Past:
        """This history, and these deliveries at one instant."""
        return Past([*self._ids, *ids], [*self._instants, *[at] * len(ids)], self._known, self._folds) if ids else self

    def __iter__(self) -> Iterator[Delivery]:
        """Each delivery, and then the end, again and again.

        Raises DecodeError where what is recorded cannot be read.
        """
        parts: Iterator[Iterator[Delivery]] = map(self._part, range(len(self._folds) + 1))
        return chain(chain.from_iterable(parts), repeat(_END))

    def _part(self, number: int) -> Iterator[Delivery]:
        """The deliveries of a fold, or of what follows them; what was read of those before is let go."""
        self._read = {ahead: read for ahead, read in self._read.items() if ahead >= number}
        if number == len(self._folds):
            return zip(self._ids, self._instants, map(self._known.get, self._ids), strict=True)
        instants, records = self._entries(number)
        return zip(self._folds[number].ids, instants, records, strict=True)

    def _entries(self, number: int) -> tuple[list[int], Sequence[Cells | None]]:
        read = self._read.get(number)
        if read is None:
            fold = self._folds[number]
            instants, records = fold.entries()
            if None in records:
                known = self._known
                records = [one or known.get(id) for id, one in zip(fold.ids, records, strict=True)]
            read = self._read[number] = instants, records
        return read

    def __contains__(self, id: object) -> bool:
        return id in self._by_place()

    def find(self, id: str) -> Recorded | None:
        """What is recorded under an id, wherever in history it is delivered. Raises DecodeError."""
        place = self._by_place().get(id)
        if place is None:
            return None
        if not self._folds or place >= self._starts[-1]:
            return self._known.get(id)
        number = bisect_right(self._starts, place) - 1
        found = self._entries(number)[1][place - self._starts[number]]
        return None if found is None else Recorded._make(found)

    def _by_place(self) -> dict[str, int]:
        if self._places is None:
            ids = self.ids()
            self._places = dict(zip(ids, range(len(ids)), strict=True))
            at = 0
            for fold in self._folds:
                self._starts.append(at)
                at += len(fold.ids)
            self._starts.append(at)
        return self._places
