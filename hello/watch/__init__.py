"""The terminal client: `hello watch URL` shows a relay's stream, reconnects and resumes by the client's rules.

It knows a relay by its outside contract alone (hello/web/README.md). The rules are in `hello/client.py`; connection.py
reconnects, websocket.py and events.py receive a stream over the transport of their name, transport.py has what the two
share, tally.py counts, output.py formats lines, command.py is the command.

Times are UNIX milliseconds, as integers; durations are seconds, as floats, except delays: milliseconds, as integers.
With `--json` a line is one of these objects; `message` and `status` are the relay's frames:

    connection  state: connecting (url, transport: websocket or events, why: empty at the start); open (relay, head,
                channel, transport); resumed (missed: how many messages were missed and have been shown since); or why
                it is not open: moved, slow, lost, dead, unreachable, garbled (detail, attempt, retry_in: seconds); at:
                time
    message     position, id, text, broadcaster, sent_at, relayed_at, relay
    gap         after, before: the messages between these positions are lost, or may be (certain: false); before is null
                where nothing has followed
    repeated    position, id: this message came again, and is not shown
    status      channel, since
    tally       the last line, see `tally.Tally`
"""
