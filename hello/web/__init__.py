"""The HTTP servers: the public app with the page and its streams, the ops app, and the server that serves both."""
