"""What every platform handler must do. The suite grows with the first adapter; the frame is what they subclass."""

from __future__ import annotations


class HandlerSuite:
    """Subclass and implement `open`; each `test_*` runs against a fresh handler."""

    async def open(self) -> object:
        """A handler over an empty store, with a way to feed it platform events."""
        raise NotImplementedError
