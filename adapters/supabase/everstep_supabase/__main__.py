"""`python -m everstep_supabase migrate|down|sql [URL]`: apply the migration, undo it, or print it."""

from __future__ import annotations

import asyncio
import sys

from .connections import Pool, trouble
from .migration import apply, sql

USAGE = "python -m everstep_supabase migrate URL | down URL | sql"


async def _apply(url: str, name: str) -> None:
    import psycopg

    pool = Pool(url)
    connection = await pool.connect()
    try:
        await apply(connection, name)
    except psycopg.Error as error:
        raise trouble(error, pool.options.name) from error
    finally:
        await connection.close()


def main(arguments: list[str]) -> int:
    from everstep.errors import EverstepError

    match arguments:
        case ["sql"]:
            sys.stdout.write(sql())
        case ["migrate" | "down" as what, url]:
            try:
                asyncio.run(_apply(url, "everstep" if what == "migrate" else "everstep_down"))
            except EverstepError as error:
                sys.stderr.write(f"{error}\n")
                return 1
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
