"""The recent messages as a page without JavaScript, for `GET /?plain`. It must not know the server."""

import json
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from hello.feed import Feed

MESSAGES = 50  # on the page, as many as a new client of the page gets
RELOAD_SECONDS = 10
LATEST_MS = 253_402_300_799_000  # UNIX time; the end of the last year that Python has, and messages may be later

STYLE = "body{max-width:50rem;margin:auto;padding:1rem;font:1rem/1.5 system-ui}time,small{color:GrayText}"

_PAGE = Path(__file__).with_suffix(".html").read_text()


def plain_page(feed: Feed) -> str:
    """Return the page: the newest messages first, with times in UTC, from the frames that a new client would get."""
    cursor, entries, state = feed.cursor_at(MESSAGES), [], ""
    while (pending := feed.poll(cursor)) is not None:
        cursor = pending.next
        for frame in (json.loads(each.json) for each in pending.frames):
            if frame["type"] == "welcome":
                reached = f"its channel is {frame['channel']}" if "start" in frame else "has not read its channel yet"
                state = f"The relay is {escape(frame['relay'])}, and {reached}."
            elif frame["type"] == "message":
                at = datetime.fromtimestamp(min(frame["sent_at"], LATEST_MS) // 1000, UTC)
                time = f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%H:%M:%S} UTC</time>'
                text, broadcaster = escape(frame["text"]), escape(frame["broadcaster"])
                entries.append(f"<li>{time} {text} <small>{broadcaster}</small></li>\n")
            elif frame["type"] == "gap":
                entries.append("<li>Messages are lost here.</li>\n")
    return _PAGE.format(state=state, reload=RELOAD_SECONDS, style=STYLE, entries="".join(reversed(entries)))
