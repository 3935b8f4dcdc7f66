"""The least that aiohttp can do: ask for the URL, send the file; no ledger, no check, no archive. Prints the seconds.

bare_aiohttp.py BASE_URL CONCURRENCY DIRECTORY; $API_KEY holds the key.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import aiohttp
import uvloop
from yarl import URL


async def send(session: aiohttp.ClientSession, base_url: str, paths: Iterator[Path]) -> None:
    """Send what nobody else has taken."""
    headers = {"x-api-key": os.environ["API_KEY"]}
    for path in paths:
        content = path.read_bytes()
        query = f"datasetid=dataset-1&filename={path.name}&filesize={len(content)}&filelastmodified=1700000000000"
        url = URL(f"{base_url}/tenant/tenant-123/datatable/table-456/uploads/presignedurl?{query}", encoded=True)
        async with session.get(url, headers=headers) as answer:
            answer.raise_for_status()
            target = (await answer.json())["PreSignedUploadUrl"]
        async with session.put(URL(target, encoded=True), data=content) as answer:
            answer.raise_for_status()
            await answer.read()


async def main(base_url: str, concurrency: int, directory: Path) -> None:
    """Send all files of a directory."""
    began = perf_counter()
    paths = iter(sorted(directory.iterdir()))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        await asyncio.gather(*(send(session, base_url, paths) for _ in range(concurrency)))
    print(perf_counter() - began)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
