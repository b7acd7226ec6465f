"""A broadcaster publishes "Hello world" at random intervals; every open browser shows it: live, in order, exactly once.

    broadcaster ──publish──▶ channel ──subscribe──▶ relay ──append──▶ hub ──cursor per client──▶ /ws, /events ──▶ page
                         memory:// or redis://                   log in memory

`hello/README.md` has the order in which to read these files.
"""
