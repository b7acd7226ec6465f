"""The members of uvicorn that hello/web overrides or uses: a release that renames one fails here, with its name."""

import asyncio
import inspect

import pytest
from uvicorn import Config, Server
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

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
    for name in names:
        parameters = [list(inspect.signature(getattr(each, name)).parameters) for each in (ours, theirs)]
        if name != "on_header":
            assert parameters[0] == parameters[1], f"the parameters of {theirs.__name__}.{name} changed"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_uvicorn_has_what_we_use() -> None:
    """Every member of uvicorn that hello/web reads, sets or calls is there."""

    async def app(scope: object, receive: object, send: object) -> None: ...

    config, state = Config(app, ws="none"), ServerState()
    protocol = HttpToolsProtocol(config, state, {})
    protocol.on_message_begin()
    used: dict[object, set[str]] = {
        protocol: {
            *("app", "connections", "cycle", "flow", "headers", "loop", "parser", "scheme", "scope", "tasks"),
            *("timeout_keep_alive_task", "transport", "url", "shutdown", "expect_100_continue"),
        },
        Server(config): {"serve", "should_exit", "server_state"},
        config.lifespan_class(config): {"state"},
        state: {"connections", "tasks"},
        FlowControl(asyncio.Transport()): {"write_paused"},
    }
    gone = [
        f"{type(thing).__name__}.{name}" for thing, names in used.items() for name in names if not hasattr(thing, name)
    ]
    # These are called or set in a method's code alone.
    for method, name in (
        (RequestResponseCycle.__init__, "response_complete"),
        (RequestResponseCycle.run_asgi, "send"),
        (RequestResponseCycle.send, "chunked_encoding"),
        (RequestResponseCycle.send, "expected_content_length"),
        (HttpToolsProtocol.on_headers_complete, "_should_upgrade"),
        (Server.serve, "capture_signals"),
        (Server._serve, "lifespan"),
        (Server._serve, "startup"),
    ):
        if name not in method.__code__.co_names:
            gone.append(f"{method.__qualname__} → {name}")
    arguments = {"lifespan", "log_config", "access_log", "http", "ws", "proxy_headers", "server_header"}
    parameters = inspect.signature(Config).parameters
    arguments |= {"timeout_graceful_shutdown", "timeout_keep_alive"}
    gone += [f"Config({name}=)" for name in arguments if name not in parameters]
    assert gone == [], f"uvicorn has no {', '.join(gone)}: adapt hello/web/http_protocol.py and hello/web/server.py"
