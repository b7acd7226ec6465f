"""Posts each message on the Redis channel to nchan, over one connection, without waiting for the answers."""

import socket
import sys
import threading

import redis

PORT, REDIS_PORT = map(int, sys.argv[1:])


def discard(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def main() -> None:
    with socket.create_connection(("127.0.0.1", PORT)) as nchan, redis.Redis(port=REDIS_PORT).pubsub() as pubsub:
        nchan.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=discard, args=(nchan,), daemon=True).start()
        pubsub.subscribe("hello")
        for message in pubsub.listen():
            if message["type"] == "message":
                body = message["data"]
                nchan.sendall(
                    b"POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )


main()
