import asyncio

from support.patience import PATIENCE
from tablefeed.news import Blocked, News, Rest

LONG = 3_600.0
ITEM = Blocked("orders", "delivery", "reason", "remedy")


async def test_a_rest_ends_when_something_happens() -> None:
    """Also what happened while the shortest time was not over; and that is heard once."""
    news = News()
    rest = Rest(news, LONG)
    news.tell(ITEM)
    await asyncio.wait_for(rest(0.0), PATIENCE)
    resting = asyncio.create_task(rest(0.0))
    done, _ = await asyncio.wait([resting], timeout=0.05)
    assert not done
    news.tell(ITEM)
    await asyncio.wait_for(resting, PATIENCE)


async def test_a_rest_ends_though_nothing_happens() -> None:
    """What is not told as news shows after a while too."""
    await asyncio.wait_for(Rest(News(), 0.01)(0.0), PATIENCE)
