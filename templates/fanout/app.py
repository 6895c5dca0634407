"""Many items at once, a few at a time: each is a checkpoint, and the results come in the order of the items.

A crash in the middle repeats what was under way and nothing else. `asyncio` is the ordinary one: a semaphore bounds how
many run together, `gather` collects.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from everstep import App, Context, Retry

app = App("fanout", retry=Retry(attempts=3, first=0.5))


@app.step
def list_files(folder: str, pattern: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob(pattern) if path.is_file())


@app.step
def digest(path: str) -> str:
    """The work on one item; here a checksum of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@app.workflow
async def checksums(ctx: Context, folder: str = ".", pattern: str = "*", together: int = 8) -> dict[str, str]:
    """Checksums of the files of a folder, `together` at a time; a file that cannot be read gets its error's text."""
    paths = await ctx.run(list_files, folder, pattern)  # recorded: a file that appears later is not in it
    free = asyncio.Semaphore(together)

    async def one(path: str) -> str:
        async with free:
            try:
                return await ctx.run(digest, path)
            except OSError as error:
                return f"error: {error}"

    return dict(zip(paths, await asyncio.gather(*[one(path) for path in paths]), strict=True))
