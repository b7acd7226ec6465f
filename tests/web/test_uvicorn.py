"""The members of uvicorn that hello/web overrides: a release that renames one fails here, with its name.

A member that hello/web reads, sets or calls needs no such test: without it, most tests in this folder fail.
"""

import inspect

import pytest
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hello.web.http_protocol import HttpProtocol
from hello.web.server import _Server

OVERRIDES: dict[type, tuple[type, set[str]]] = {
    HttpProtocol: (
        HttpToolsProtocol,
        {
            *("connection_made", "connection_lost", "data_received", "on_message_begin", "on_header"),
            *("on_headers_complete", "on_body", "on_message_complete", "send_400_response", "_should_upgrade"),
            *("on_response_complete", "_unset_keepalive_if_required"),
        },
    ),
    _Server: (Server, {"startup", "capture_signals"}),
}


@pytest.mark.parametrize("ours", OVERRIDES, ids=lambda ours: ours.__name__)
def test_uvicorn_has_what_we_override(ours: type) -> None:
    """Every overridden member is there with the same parameters, and every override is listed above."""
    theirs, names = OVERRIDES[ours]
    renamed = [f"{theirs.__name__}.{name}" for name in names if not hasattr(theirs, name)]
    assert renamed == [], f"uvicorn has no {', '.join(renamed)}: adapt {ours.__module__}"
    found = {name for name in vars(ours) if hasattr(theirs, name) and not name.startswith("__")}
    assert found == names, "list every override above"
    for name in names - {"on_header"}:
        parameters = [list(inspect.signature(getattr(each, name)).parameters) for each in (ours, theirs)]
        assert parameters[0] == parameters[1], f"the parameters of {theirs.__name__}.{name} changed"
