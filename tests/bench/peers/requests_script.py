"""What one writes first: files one after the other, with `requests` and one session. Prints the seconds it took.

requests_script.py BASE_URL FILE…; $API_KEY holds the key, $REQUESTS_CA_BUNDLE what to trust.
"""

import os
import sys
from pathlib import Path
from time import perf_counter

import requests


def main(base_url: str, *names: str) -> None:
    """Send all files."""
    began = perf_counter()
    session = requests.Session()
    for path in map(Path, names):
        status = path.stat()
        answer = session.get(
            f"{base_url}/tenant/tenant-123/datatable/table-456/uploads/presignedurl",
            params={
                "datasetid": "dataset-1",
                "filename": path.name,
                "filesize": str(status.st_size),
                "filelastmodified": str(int(status.st_mtime * 1000)),
            },
            headers={"x-api-key": os.environ["API_KEY"]},
            timeout=60,
        )
        answer.raise_for_status()
        with path.open("rb") as file:
            session.put(answer.json()["PreSignedUploadUrl"], data=file, timeout=60).raise_for_status()
    print(perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
