/*
 * The floor: a WebSocket server that writes each message from Redis to every socket, with one system call per
 * delivery, and does nothing else. It accepts only the load tool's Sec-WebSocket-Key, and ignores what clients send.
 *
 *   gcc -O2 -Wall -Wextra -o floor floor.c
 *   floor PORT REDIS_PORT CHANNEL
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FD (1 << 20)
#define MAX_ACCEPTS 64 /* connections accepted at a time: messages do not wait for thousands of new clients */

static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static int sockets[MAX_FD], n_sockets, place[MAX_FD]; /* place[fd]: index in sockets, plus 1; 0: not upgraded yet */

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, errno ? strerror(errno) : "closed");
    exit(1);
}

static void watch(int ep, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
}

static int listen_at(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        die("listen");
    return fd;
}

static int subscribe(int port, const char *channel)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        die("Redis");
    dprintf(fd, "SUBSCRIBE %s\r\n", channel);
    return fd;
}

static void accept_some(int ep, int listener)
{
    int on = 1, fd;
    for (int i = 0; i < MAX_ACCEPTS && (fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0; i++) {
        if (fd >= MAX_FD)
            die("too many connections");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(ep, fd);
    }
}

static void on_client(int fd)
{
    char b[4096];
    ssize_t n = recv(fd, b, sizeof b, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (place[fd]) {
            int last = sockets[--n_sockets];
            sockets[place[fd] - 1] = last;
            place[last] = place[fd];
            place[fd] = 0;
        }
        close(fd);
    } else if (n > 4 && !memcmp(b, "GET ", 4) && send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) > 0) {
        sockets[n_sockets++] = fd;
        place[fd] = n_sockets;
    }
}

static void fan_out(const char *payload, size_t n)
{
    char frame[(1 << 16) + 4];
    size_t head = n < 126 ? 2 : 4;
    frame[0] = (char)0x81;
    frame[1] = (char)(n < 126 ? n : 126);
    if (n >= 126) {
        frame[2] = (char)(n >> 8);
        frame[3] = (char)n;
    }
    memcpy(frame + head, payload, n);
    for (int i = 0; i < n_sockets; i++) {
        ssize_t sent = send(sockets[i], frame, head + n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent != (ssize_t)(head + n) && errno != EPIPE && errno != ECONNRESET)
            die("a socket's buffer is full, and the floor has no queue"); /* half a frame would break the stream */
    }
}

/* Returns the end of the RESP value at p, or NULL if it is incomplete; sets text and length for a bulk string. */
static char *value_end(char *p, const char *end, char **text, size_t *length)
{
    char *line = memmem(p, (size_t)(end - p), "\r\n", 2);
    if (!line)
        return NULL;
    if (*p != '$')
        return line + 2;
    *length = strtoul(p + 1, NULL, 10);
    *text = line + 2;
    return (size_t)(end - *text) < *length + 2 ? NULL : *text + *length + 2;
}

/* Redis sends arrays of three: `message`, the channel, the payload; or `subscribe`, the channel, a number. */
static void on_redis(int fd)
{
    static char b[1 << 17];
    static size_t kept;
    ssize_t n = recv(fd, b + kept, sizeof b - 1 - kept, 0);
    if (n <= 0)
        die("Redis");
    kept += (size_t)n;
    char *p = b, *end = b + kept;
    while (p < end) {
        char *text = NULL, *kind = NULL, *q = memmem(p, (size_t)(end - p), "\r\n", 2);
        size_t length = 0;
        q = q ? q + 2 : NULL;
        for (int i = 0; q && i < 3; i++) {
            q = value_end(q, end, &text, &length);
            if (i == 0)
                kind = text;
        }
        if (!q)
            break;
        if (!memcmp(kind, "message", 7))
            fan_out(text, length);
        p = q;
    }
    kept = (size_t)(end - p);
    memmove(b, p, kept);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    struct epoll_event events[256];
    if (argc != 4) {
        fputs("usage: floor PORT REDIS_PORT CHANNEL\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int ep = epoll_create1(0), redis = subscribe(atoi(argv[2]), argv[3]), listener = listen_at(atoi(argv[1]));
    watch(ep, listener);
    watch(ep, redis);
    for (;;) {
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_some(ep, fd);
            else if (fd == redis)
                on_redis(fd);
            else
                on_client(fd);
        }
    }
}
