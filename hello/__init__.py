"""A broadcaster says "Hello world" at random moments; every open browser shows it: live, in order, exactly once.

    broadcaster ──publish──▶ channel ──subscribe──▶ relay ──append──▶ audience ──cursor per browser──▶ /ws ──▶ page
                         memory:// or redis://                   log in memory

Read in this order:

    message.py        what travels: Message, Position, Entry, Gap, and the one rule for gaps
    log.py            a bounded log that readers follow by position
    channel/          the channel's promises; memory.py and redis.py keep them
    broadcaster.py    the actor that speaks
    relay.py          the actor that passes on
    supervisor.py     a lost channel is tried again for ever, anything else ends the process; who speaks has the voice
    feed.py           what browsers are sent, as frames, and what comes next after a cursor
    audience.py       the browsers of a relay, each with a cursor
    web/              the page, its two streams, the fast way to write them (line.py), the operators' app, the server
    system.py         one process: who runs, in which order, introduced to each other
    settings.py       what may be configured
    metrics.py        what a process measures of itself
    __main__.py       the command: settings, logging, sockets and signals
    watch.py          the terminal client: the stream and its tally
    testing.py        the whole system in one event loop, for tests
"""
