"""What the outside sees over HTTP: the public app with its page and streams, the operators' app, and their server."""
