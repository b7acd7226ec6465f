"""The page's connection in parts, and with a relay that the test plays: events, obstacles, and being offline."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.page.standalone import WELCOME, open_page, run, send

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_parsed(blank: Page, end: str) -> None:
    """Events are read alike, wherever the stream is cut and whatever ends a line."""
    stream = 'id: 1-0\ndata: {"a": "\u2028"}\n\n: x\nevent: y\ndata:x\ndata\ndata:  y\n\nretry: 1\n\ndata: cut\n'
    body = """
        return Array.from(a, (_, size) => {
            const parser = new m.EventParser();
            const found = Array.from(a, (_, i) => parser.push(i % (size + 1) ? "" : a.slice(i, i + size + 1))).flat();
            return JSON.stringify([...found, parser.hasRetry]);
        });
    """
    found = run(blank, "events", body, stream.replace("\n", end))
    assert {*found} == {json.dumps(['{"a": "\u2028"}', "x\n\n y", True], ensure_ascii=False, separators=(",", ":"))}


ANSWER = '{"host": "h", "may_open": %s, "refusal": %s}'


@pytest.mark.parametrize(
    ("status", "answer", "kind", "may_open_events"),
    [
        *((426, ANSWER % ("true", "null"), "upgrade", True), (426, "an older relay's words", "upgrade", True)),
        *((426, ANSWER % ("false", "null"), "origin", True), (426, ANSWER % ("false", '"full"'), "refused", False)),
        *((403, "", "status", True), (502, "", "status", False), (None, "", None, False)),
    ],
)
def test_obstacle(page: Page, status: int | None, answer: str, kind: str | None, may_open_events: bool) -> None:
    """Why a WebSocket does not open is known by a plain answer; events are tried unless they cannot open either."""
    question = re.compile(r"/ws\?origin=http%3A%2F%2Fhello.test$")
    page.route(question, lambda it: it.abort() if status is None else it.fulfill(status=status, body=answer))
    body = "const found = await m.findObstacle(false); return [found?.kind ?? null, m.mayOpenEvents(found)]"
    assert run(page, "diagnosis", body) == [kind, may_open_events]


@pytest.mark.parametrize(("streams", "kind"), [(5, None), (6, "limit")])
def test_connection_limit(page: Page, streams: int, kind: str | None) -> None:
    """A request without an answer is due to the browser's limit where six streams of events are open."""
    page.route(re.compile("/ws"), lambda _: None)
    run(page, "streams", "while (a--) m.announceStream(new AbortController().signal)", streams)
    assert run(page, "diagnosis", "return (await m.findObstacle(false))?.kind ?? null") == kind


def test_offline(page: Page) -> None:
    """A page is offline at once; the next frame shows that the connection works, or else it reconnects when online."""
    opened = open_page(page, [WELCOME], [WELCOME])
    root, events = page.locator("html"), page.locator("#messages > li.event p")
    expect(root).to_have_class("connected")
    page.context.set_offline(True)
    expect(root).to_have_class("offline")
    send(opened[0], {"type": "beat"})
    expect(root).to_have_class("connected")
    page.context.set_offline(False)
    page.context.set_offline(True)
    expect(root).to_have_class("offline")
    assert len(opened) == 1
    page.context.set_offline(False)
    expect(root).to_have_class("connected")
    texts = ["Resumed at", "browser is offline", "connection works", "browser is offline", "Connected to"]
    expect(events).to_contain_text(texts)
    assert len(opened) == 2
