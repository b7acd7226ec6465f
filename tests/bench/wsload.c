/*
 * The load tool: opens WebSockets to one server, publishes messages, and prints what was received and when, as JSON.
 * Linux, one thread, no library. It must not know servers or tables: __main__.py starts it.
 *
 *   gcc -O2 -Wall -Wextra -o wsload wsload.c -lm
 *
 * A message is a JSON object as hello publishes it: {"id":"TAG-000123","text":..,"broadcaster":..,"sent_at":MS}. The
 * tool recognises a message by its id, anywhere in a text frame; one frame may hold several messages, one per line.
 * The number gives the order and, by the table of what was published here, the exact time of publishing. All other
 * frames (welcome, status, beat, acknowledgements) are counted and ignored.
 *
 * --url ws://A.B.C.D:PORT/PATH    where to subscribe
 * --conns N                       number of connections (1000)
 * --inflight C                    handshakes in progress at once (100)
 * --timeout S                     seconds that connecting may take (120)
 * --header 'Name: value'          one more request header; may be repeated
 * --greet TEXT                    send this after the handshake; may be repeated
 * --expect TEXT                   after the i-th --greet, wait for a frame that contains this; empty: do not wait
 * --reply PING=PONG               answer the text frame PING with PONG
 * --pub script:HOST:PORT          publish by hello's script; without this option nothing is published
 *   --sha SHA1                    the script, which Redis has loaded
 *   --keys K,K,..  --args A,A,..  its keys, and the arguments before id, text, broadcaster, sent_at, json
 * --tag TEXT                      prefix of the ids of this run (run)
 * --first N                       the number of the first message (1)
 * --size B                        bytes of a message's JSON (120)
 * --no-warmup                     skip the warm-up, which publishes until one message has reached every connection
 * --hold S                        wait S seconds before the phases (0)
 * --phase NAME:KEY=VALUE:..       measure one phase; may be repeated. dur=SECONDS (5) or count=MESSAGES, and one of
 *                                   rate=R    open loop: R messages a second, however late the deliveries are
 *                                   window=W  closed loop: at most W messages that have not reached every connection
 *                                   idle=S    publish nothing for S seconds
 * --drain S                       give up on missing messages after S seconds without a delivery (3) ..
 * --drain-max S                   .. or S seconds after the last message was published (30)
 * --after-file F                  connection i resumes: line i has a position and the number of the message there
 * --until N                       with --after-file: wait until every connection has received message N, or --timeout
 * --server-pid P,P,..             the processes whose CPU time and memory are measured
 *
 * Exit code: 0 if all connections were opened and the warm-up reached them all, else 1; 2 if the tool cannot continue.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_GREETINGS 8
#define MAX_PHASES 16
#define MAX_PIDS 64
#define MAX_CPUS 256
#define MAX_MESSAGE 4096       /* bytes; hello's own limit for the text */
#define MAX_UNANSWERED 512     /* scripts pending in Redis: every other command waits for them */
#define MAX_BURST 256          /* messages published between two reads of the sockets */
#define MAX_EVENTS 32          /* sockets read between two readings of the clock */
#define PER_SOURCE 15000       /* connections from one address, which has some 28,000 ports */
#define READ_BYTES (1 << 16)

/* ---- options ---- */

struct phase { char name[32]; double rate, dur, idle; long window, count; };

static char host[64] = "127.0.0.1", path[512] = "/";
static int port = 80, conns_wanted = 1000, inflight_max = 100, message_size = 120, warm_up = 1;
static double connect_timeout = 120, hold_s, drain_s = 3, drain_max_s = 30;
static char headers[4096], ping_text[128], pong_text[128];
static const char *greetings[MAX_GREETINGS], *expected[MAX_GREETINGS];
static int n_greetings, n_expected;
static char pub_host[64], tag[64] = "run-";
static size_t tag_n = 4;
static int pub_port; /* 0: publish nothing */
static const char *sha = "", *keys = "", *fixed_args = "", *after_file;
static long long next_number = 1, until_number;
static struct phase phases[MAX_PHASES];
static int n_phases, pids[MAX_PIDS], n_pids;

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("wsload: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static double now(void) /* UNIX time, seconds */
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- CPU time and memory of the server and of the machine ---- */

/* Returns CPU seconds from a schedstat file, which has nanoseconds; utime and stime would have ticks of 10 ms. */
static double schedstat(const char *file)
{
    unsigned long long ns = 0;
    FILE *f = fopen(file, "r");
    if (!f)
        return 0;
    if (fscanf(f, "%llu", &ns) != 1)
        ns = 0;
    fclose(f);
    return (double)ns * 1e-9;
}

static double server_cpu(void)
{
    double sum = 0;
    for (int i = 0; i < n_pids; i++) {
        char tasks[64], file[400];
        struct dirent *entry;
        snprintf(tasks, sizeof tasks, "/proc/%d/task", pids[i]);
        DIR *dir = opendir(tasks);
        while (dir && (entry = readdir(dir)))
            if (isdigit((unsigned char)entry->d_name[0])) {
                snprintf(file, sizeof file, "%s/%s/schedstat", tasks, entry->d_name);
                sum += schedstat(file);
            }
        if (dir)
            closedir(dir);
    }
    return sum;
}

static long server_rss_kib(void)
{
    long sum = 0, kib;
    for (int i = 0; i < n_pids; i++) {
        char file[64], line[256];
        snprintf(file, sizeof file, "/proc/%d/status", pids[i]);
        FILE *f = fopen(file, "r");
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "VmRSS: %ld", &kib) == 1)
                sum += kib;
        if (f)
            fclose(f);
    }
    return sum;
}

/*
 * Over loopback the receiving side of TCP runs inside the sender's system call, so that it counts as the server's CPU
 * time. Under load the kernel moves it to ksoftirqd/CPU, whose time is therefore reported too, for each CPU.
 */
static int ksoftirqd_pid[MAX_CPUS];

static void find_ksoftirqd(void)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char file[300], comm[64] = "";
        unsigned cpu;
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(file, sizeof file, "/proc/%s/comm", entry->d_name);
        FILE *f = fopen(file, "r");
        if (!f)
            continue;
        if (fgets(comm, sizeof comm, f) && sscanf(comm, "ksoftirqd/%u", &cpu) == 1 && cpu < MAX_CPUS)
            ksoftirqd_pid[cpu] = atoi(entry->d_name);
        fclose(f);
    }
    if (dir)
        closedir(dir);
}

static double ksoftirqd_cpu(int cpu)
{
    char file[64];
    if (!ksoftirqd_pid[cpu])
        return 0;
    snprintf(file, sizeof file, "/proc/%d/schedstat", ksoftirqd_pid[cpu]);
    return schedstat(file);
}

/* The counters at one moment: the difference of two is the cost of a phase. */
struct usage { double at, server, own, ksoftirqd[MAX_CPUS], busy[MAX_CPUS], total[MAX_CPUS]; int cpus; };

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

static struct usage usage_now(void)
{
    struct usage u = {.at = now(), .server = server_cpu()};
    struct rusage own;
    char line[512];
    getrusage(RUSAGE_SELF, &own);
    u.own = seconds(own.ru_utime) + seconds(own.ru_stime);
    FILE *f = fopen("/proc/stat", "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned cpu;
        unsigned long long v[8] = {0}; /* user nice system idle iowait irq softirq steal */
        int items = sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &v[0], &v[1], &v[2], &v[3], &v[4],
                           &v[5], &v[6], &v[7]);
        if (items < 9 || cpu >= MAX_CPUS)
            continue;
        for (int i = 0; i < 8; i++)
            u.total[cpu] += (double)v[i];
        u.busy[cpu] = u.total[cpu] - (double)v[3] - (double)v[4];
        u.ksoftirqd[cpu] = ksoftirqd_cpu((int)cpu);
        if ((int)cpu >= u.cpus)
            u.cpus = (int)cpu + 1;
    }
    if (f)
        fclose(f);
    return u;
}

/* ---- latencies: a histogram with buckets at most 0.8 % wide ---- */

#define BUCKETS_PER_DOUBLING 128
#define BUCKETS (BUCKETS_PER_DOUBLING * 40)

static struct { uint64_t n, in[BUCKETS]; double max; } latency; /* buckets in microseconds, max in seconds */

static void latency_add(double s)
{
    uint64_t us = s < 0 ? 0 : (uint64_t)(s * 1e6), i = us;
    if (us >= BUCKETS_PER_DOUBLING) {
        int shift = 63 - __builtin_clzll(us) - 7;
        i = (uint64_t)(shift + 1) * BUCKETS_PER_DOUBLING + ((us >> shift) - BUCKETS_PER_DOUBLING);
    }
    latency.in[i < BUCKETS ? i : BUCKETS - 1]++;
    latency.n++;
    if (s > latency.max)
        latency.max = s;
}

static double latency_ms(double quantile)
{
    uint64_t rank = (uint64_t)ceil(quantile * (double)latency.n), seen = 0;
    for (uint64_t i = 0; latency.n && i < BUCKETS; i++) {
        seen += latency.in[i];
        if (seen >= rank && seen) {
            if (i < BUCKETS_PER_DOUBLING)
                return (double)i * 1e-3;
            return (double)((BUCKETS_PER_DOUBLING + i % BUCKETS_PER_DOUBLING) << (i / BUCKETS_PER_DOUBLING - 1)) * 1e-3;
        }
    }
    return 0;
}

/* ---- the messages published in this phase, by number ---- */

struct message { double sent, last; uint32_t reached; }; /* times of publishing and last delivery; connections reached */

static struct message *published;
static long long first_number = 1; /* the number of published[0], the first message of this phase */
static size_t published_room;
static uint64_t deliveries, repeated, reordered, stale, complete; /* in this phase; stale: published before it */
static double last_delivery, last_sent;

static long long published_count(void)
{
    return next_number - first_number;
}

static void phase_begin(void)
{
    first_number = next_number;
    deliveries = repeated = reordered = stale = complete = 0;
    last_delivery = last_sent = 0;
    memset(&latency, 0, sizeof latency);
}

/* ---- connections ---- */

enum state { NEW, CONNECTING, UPGRADING, GREETING, OPEN, DEAD };

struct conn {
    int fd;
    uint8_t state, greeted;
    uint32_t kept, room; /* bytes of an incomplete frame, and of the buffer for it */
    char *input;
    long long start, last; /* numbers of messages: the one before the first to receive, and the highest received */
    uint64_t recent;       /* bit i: message `last - i` was received */
    uint64_t received;     /* messages, without repeated ones */
};

static struct conn *conns;
static char (*after)[48]; /* positions to resume from, with --after-file */
static int ep, n_open, n_started, n_inflight, n_lost, n_failed, n_at_end;
static uint64_t n_bytes, n_other, n_pings, n_closes, n_errors;

static void send_frame(struct conn *c, int opcode, const char *payload, size_t n)
{
    unsigned char frame[2048];
    size_t head = 6;
    if (n > sizeof frame - 8)
        die("a frame of %zu bytes is too long to send", n);
    frame[0] = (unsigned char)(0x80 | opcode);
    if (n < 126)
        frame[1] = (unsigned char)(0x80 | n);
    else {
        frame[1] = 0x80 | 126;
        frame[2] = (unsigned char)(n >> 8);
        frame[3] = (unsigned char)n;
        head = 8;
    }
    memset(frame + head - 4, 0, 4); /* a mask of zeros leaves the payload as it is */
    memcpy(frame + head, payload, n);
    if (send(c->fd, frame, head + n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)(head + n))
        n_errors++;
}

static void drop(struct conn *c)
{
    if (c->state == OPEN) {
        n_open--;
        n_lost++;
    } else {
        n_inflight--;
        n_failed++;
    }
    c->state = DEAD;
    close(c->fd);
    free(c->input);
    c->input = NULL;
    c->kept = c->room = 0;
}

static void greet(struct conn *c)
{
    c->state = GREETING;
    for (; c->greeted < n_greetings; c->greeted++) {
        send_frame(c, 1, greetings[c->greeted], strlen(greetings[c->greeted]));
        if (c->greeted < n_expected && expected[c->greeted][0])
            return; /* on_text continues when the answer has arrived */
    }
    c->state = OPEN;
    n_inflight--;
    n_open++;
}

static void on_message(struct conn *c, long long number, double t)
{
    if (number > c->last) {
        long long ahead = number - c->last;
        c->recent = ahead < 64 ? c->recent << ahead | 1 : 1;
        c->last = number;
        if (number == until_number)
            n_at_end++;
    } else {
        long long behind = c->last - number;
        uint64_t bit = behind < 64 ? 1ull << behind : 0;
        if (number <= c->start)
            stale++;
        else if (c->recent & bit)
            repeated++;
        else
            reordered++;
        if (number <= c->start || c->recent & bit)
            return;
        c->recent |= bit;
    }
    c->received++;
    if (number < first_number || number >= next_number) {
        if (!after)
            stale++;
        return;
    }
    struct message *m = &published[number - first_number];
    m->last = last_delivery = t;
    m->reached++;
    if (m->reached == (uint32_t)n_open)
        complete++;
    deliveries++;
    latency_add(t - m->sent);
}

/* Returns the tag's place; looks first where the tag was the last time, since the frames of a server are alike. */
static const char *find_tag(const char *text, const char *end)
{
    static size_t place;
    size_t n = (size_t)(end - text);
    if (place + tag_n <= n && !memcmp(text + place, tag, tag_n))
        return text + place;
    const char *found = memmem(text, n, tag, tag_n);
    if (found)
        place = (size_t)(found - text);
    return found;
}

static void on_text(struct conn *c, const char *text, size_t n, double t)
{
    const char *end = text + n, *id = find_tag(text, end);
    if (!id) {
        n_other++;
        if (ping_text[0] && n == strlen(ping_text) && !memcmp(text, ping_text, n))
            send_frame(c, 1, pong_text, strlen(pong_text));
        else if (c->state == GREETING && memmem(text, n, expected[c->greeted], strlen(expected[c->greeted]))) {
            c->greeted++;
            greet(c);
        }
        return;
    }
    while (id) {
        long long number = 0;
        for (id += tag_n; id < end && isdigit((unsigned char)*id); id++)
            number = number * 10 + (*id - '0');
        on_message(c, number, t);
        const char *line = memchr(id, '\n', (size_t)(end - id));
        id = line ? find_tag(line + 1, end) : NULL;
    }
}

/* Handles the complete frames in b; returns how many bytes they had, or -1 if the connection has to be dropped. */
static ssize_t take_frames(struct conn *c, char *b, size_t n, double t)
{
    size_t at = 0;
    while (n - at >= 2) {
        const unsigned char *f = (unsigned char *)b + at;
        size_t head = 2;
        uint64_t len = f[1] & 0x7f;
        int opcode = f[0] & 0x0f;
        if (f[1] & 0x80 || f[0] & 0x70) { /* masked, or an extension that was not negotiated */
            n_errors++;
            return -1;
        }
        if (len >= 126) {
            size_t wide = len == 126 ? 2 : 8;
            if (n - at < 2 + wide)
                break;
            len = 0;
            for (size_t i = 0; i < wide; i++)
                len = len << 8 | f[2 + i];
            head += wide;
        }
        if (n - at - head > n || n - at - head < len)
            break;
        const char *payload = b + at + head;
        if (opcode <= 2)
            on_text(c, payload, (size_t)len, t);
        else if (opcode == 9) {
            n_pings++;
            send_frame(c, 10, payload, (size_t)len);
        } else if (opcode == 8) {
            n_closes++;
            return -1;
        }
        at += head + (size_t)len;
    }
    return (ssize_t)at;
}

static void on_readable(struct conn *c)
{
    static char b[READ_BYTES];
    size_t n = c->kept, used = 0;
    memcpy(b, c->input ? c->input : "", n);
    ssize_t n_read = recv(c->fd, b + n, sizeof b - n, MSG_DONTWAIT);
    if (n_read < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n_read <= 0) {
        drop(c);
        return;
    }
    double t = now();
    n_bytes += (uint64_t)n_read;
    n += (size_t)n_read;
    if (c->state == UPGRADING) {
        static int reported;
        char *end = memmem(b, n, "\r\n\r\n", 4);
        if (end) {
            used = (size_t)(end - b) + 4;
            if (strncmp(b, "HTTP/1.1 101", 12) || !memmem(b, used, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28)) {
                if (!reported++)
                    fprintf(stderr, "wsload: rejected: %.*s\n", (int)(used > 300 ? 300 : used), b);
                drop(c);
                return;
            }
            greet(c);
        }
    }
    if (c->state == OPEN || c->state == GREETING) {
        ssize_t taken = take_frames(c, b + used, n - used, t);
        if (taken < 0) {
            drop(c);
            return;
        }
        used += (size_t)taken;
    }
    size_t left = n - used;
    if (left == sizeof b) {
        n_errors++;
        drop(c);
        return;
    }
    if (left > c->room) {
        c->room = (uint32_t)left + 256;
        c->input = realloc(c->input, c->room);
    }
    memcpy(c->input ? c->input : b, b + used, left);
    c->kept = (uint32_t)left;
}

static void on_connected(struct conn *c)
{
    static int reported;
    int error = 0;
    socklen_t size = sizeof error;
    char request[6000];
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error && !reported++)
        fprintf(stderr, "wsload: connect: %s\n", strerror(error));
    int n = snprintf(request, sizeof request,
                     "GET %s%s%s HTTP/1.1\r\nHost: %s:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                     path, after ? "?after=" : "", after ? after[c - conns] : "", host, port, headers);
    if (error || send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
        drop(c);
        return;
    }
    c->state = UPGRADING;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &event);
}

static void start(struct conn *c)
{
    int on = 1, sources = 1 + conns_wanted / PER_SOURCE;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
        die("socket: %s (raise `ulimit -n`)", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on); /* ports are chosen per destination */
    from.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(n_started % sources));
    inet_pton(AF_INET, host, &to.sin_addr);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
        die("bind: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    c->state = CONNECTING;
    n_started++;
    n_inflight++;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &event);
}

/* ---- the publisher: one connection to Redis, scripts pipelined ---- */

static int pub_fd = -1;
static char *pub_prefix; /* EVALSHA, the script, its keys and the fixed arguments, in RESP */
static size_t pub_prefix_n;
static char pub_out[MAX_BURST * (2 * MAX_MESSAGE + 1024)];
static size_t pub_out_n;
static uint64_t unanswered;

static int count_items(const char *list)
{
    int n = 1;
    for (; *list; list++)
        n += *list == ',';
    return n;
}

static void put_items(FILE *f, const char *list)
{
    for (;; list++) {
        size_t n = strcspn(list, ",");
        fprintf(f, "$%zu\r\n%.*s\r\n", n, (int)n, list);
        list += n;
        if (!*list)
            return;
    }
}

static void publisher_open(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)pub_port)};
    int on = 1;
    char count[16];
    snprintf(count, sizeof count, "%d", count_items(keys));
    FILE *f = open_memstream(&pub_prefix, &pub_prefix_n);
    fprintf(f, "*%d\r\n$7\r\nEVALSHA\r\n", 3 + count_items(keys) + count_items(fixed_args) + 5);
    put_items(f, sha);
    put_items(f, count);
    put_items(f, keys);
    put_items(f, fixed_args);
    fclose(f);
    if (pub_prefix_n > 1024)
        die("the script's name, keys and arguments are longer than 1024 bytes");
    inet_pton(AF_INET, pub_host, &to.sin_addr);
    pub_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(pub_fd, (struct sockaddr *)&to, sizeof to))
        die("Redis at %s:%d: %s", pub_host, pub_port, strerror(errno));
    setsockopt(pub_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(ep, EPOLL_CTL_ADD, pub_fd, &event);
}

/* Appends a message with the time t to the output; publisher_flush sends it. */
static void publish(double t)
{
    char id[96], ms[24], json[MAX_MESSAGE], text[MAX_MESSAGE] = "Hello world";
    size_t at = (size_t)published_count(), text_n = strlen(text);
    if (at >= published_room) {
        published_room = published_room ? 2 * published_room : 1 << 14;
        if (!(published = realloc(published, published_room * sizeof *published)))
            die("out of memory");
    }
    published[at] = (struct message){.sent = t};
    snprintf(id, sizeof id, "%s%06lld", tag, next_number++);
    snprintf(ms, sizeof ms, "%lld", (long long)(t * 1e3));
    int n;
    for (;;) { /* the first pass measures the length, the second one pads the text */
        n = snprintf(json, sizeof json, "{\"id\":\"%s\",\"text\":\"%s\",\"broadcaster\":\"bench\",\"sent_at\":%s}", id,
                     text, ms);
        if (n >= message_size)
            break;
        memset(text + text_n, '.', (size_t)(message_size - n));
        text[text_n + (size_t)(message_size - n)] = 0;
    }
    memcpy(pub_out + pub_out_n, pub_prefix, pub_prefix_n);
    pub_out_n += pub_prefix_n;
    const char *words[] = {id, text, "bench", ms, json};
    for (int i = 0; i < 5; i++)
        pub_out_n += (size_t)sprintf(pub_out + pub_out_n, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
    last_sent = t;
    unanswered++;
}

static void publisher_flush(void)
{
    for (size_t sent = 0; sent < pub_out_n;) { /* blocking: Redis always reads, and its answers are short */
        ssize_t n = send(pub_fd, pub_out + sent, pub_out_n - sent, MSG_NOSIGNAL);
        if (n < 0)
            die("Redis: %s", strerror(errno));
        sent += (size_t)n;
    }
    pub_out_n = 0;
}

/* The script answers with a position ($15, then the position), or with an error, which ends this program. */
static void on_answers(void)
{
    static char b[1 << 16];
    static size_t kept;
    ssize_t n_read = recv(pub_fd, b + kept, sizeof b - kept - 1, MSG_DONTWAIT);
    if (n_read < 0 && errno == EAGAIN)
        return;
    if (n_read <= 0)
        die("Redis has closed the publisher's connection");
    kept += (size_t)n_read;
    b[kept] = 0;
    char *p = b, *length_end, *position_end;
    while ((length_end = strstr(p, "\r\n"))) {
        if (*p != '$' || p[1] == '-')
            die("Redis has rejected a message: %.*s", (int)(length_end - p), p);
        if (!(position_end = strstr(length_end + 2, "\r\n")))
            break;
        unanswered--;
        p = position_end + 2;
    }
    kept -= (size_t)(p - b);
    memmove(b, p, kept);
}

/* ---- phases ---- */

/* Waits for 0 or at least 1 ms: a busy loop would take the core from Redis. */
static void poll_once(double wait_s)
{
    static struct epoll_event events[MAX_EVENTS];
    int n = epoll_wait(ep, events, MAX_EVENTS, wait_s <= 0 ? 0 : wait_s < 1e-3 ? 1 : (int)(wait_s * 1e3));
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (!c)
            on_answers();
        else if (c->state == CONNECTING)
            on_connected(c);
        else if (c->state != DEAD)
            on_readable(c);
    }
}

static void wait_for(double s)
{
    for (double end = now() + s; now() < end;)
        poll_once(0.02);
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static void connect_all(void)
{
    double begin = now();
    while (n_open + n_failed + n_lost < conns_wanted && now() - begin < connect_timeout) {
        while (n_started < conns_wanted && n_inflight < inflight_max)
            start(&conns[n_started]);
        poll_once(0.1);
    }
}

/* From now on every connection has to receive each new message; earlier messages are no longer counted. */
static void start_afresh(void)
{
    for (int i = 0; i < conns_wanted; i++) {
        conns[i].start = conns[i].last = next_number - 1;
        conns[i].recent = ~0ull;
    }
}

/* Publishes single messages until one has reached every connection; returns their number, or -1. */
static int reach_all(void)
{
    for (int tries = 1; tries <= 15; tries++) {
        phase_begin();
        publish(now());
        publisher_flush();
        for (double end = now() + 1 + n_open / 5000.0; now() < end && !complete;)
            poll_once(0.02);
        if (complete) {
            wait_for(0.3); /* for the messages that are still on their way */
            return tries;
        }
    }
    return -1;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Returns the sorted times (ms) from publishing to the last connection, of the n messages that have reached all. */
static double *fan_outs(size_t *n)
{
    double *times = malloc(((size_t)published_count() + 1) * sizeof *times);
    *n = 0;
    times[0] = 0;
    for (long long i = 0; i < published_count(); i++)
        if (n_open && published[i].reached >= (uint32_t)n_open)
            times[(*n)++] = (published[i].last - published[i].sent) * 1e3;
    qsort(times, *n, sizeof *times, by_size);
    return times;
}

/* ---- the output: one JSON object, written piece by piece ---- */

static const char *comma = "";

static void put_open(const char *name, char bracket)
{
    printf("%s%s%s%s%c", comma, name ? "\"" : "", name ? name : "", name ? "\":" : "", bracket);
    comma = "";
}

static void put_close(char bracket)
{
    putchar(bracket);
    comma = ",";
}

static void put_count(const char *name, long long value)
{
    printf("%s\"%s\":%lld", comma, name, value);
    comma = ",";
}

static void put_real(const char *name, double value)
{
    printf("%s\"%s\":%.4f", comma, name, value);
    comma = ",";
}

static void put_cpus(const struct usage *a, const struct usage *b)
{
    put_open("cpu_busy", '[');
    for (int i = 0; i < b->cpus; i++, comma = ",") {
        double all = b->total[i] - a->total[i];
        printf("%s%.3f", comma, all > 0 ? (b->busy[i] - a->busy[i]) / all : 0);
    }
    put_close(']');
    put_open("ksoftirqd_cpu_s", '[');
    for (int i = 0; i < b->cpus; i++, comma = ",")
        printf("%s%.4f", comma, b->ksoftirqd[i] - a->ksoftirqd[i]);
    put_close(']');
}

static void run_phase(const struct phase *p)
{
    phase_begin();
    int open_before = n_open;
    uint64_t other_before = n_other;
    struct usage a = usage_now();
    double begin = a.at, due = begin, late_max = 0;
    if (p->idle > 0)
        wait_for(p->idle);
    while (p->idle == 0 && (p->count ? published_count() < p->count : now() - begin < p->dur)) {
        double t = now();
        int n = 0;
        while (n < MAX_BURST && unanswered < MAX_UNANSWERED && !(p->count && published_count() >= p->count) &&
               (p->window ? published_count() - (long long)complete < p->window : due <= t)) {
            if (!p->window && t - due > late_max)
                late_max = t - due;
            publish(t);
            n++;
            due = begin + (double)published_count() / p->rate;
        }
        publisher_flush();
        if (p->window && last_sent && t - last_sent > drain_s && t - last_delivery > drain_s)
            break; /* the missing messages are lost: the window stays full */
        poll_once(n == MAX_BURST ? 0 : p->window ? 0.005 : smaller(due - t, 0.05));
    }
    double end = now();
    long long all = published_count() * open_before;
    while ((long long)deliveries < all && complete < (uint64_t)published_count() && now() - end < drain_max_s &&
           now() - (last_delivery > end ? last_delivery : end) < drain_s)
        poll_once(0.005);
    struct usage b = usage_now();
    double wall = (last_delivery > end ? last_delivery : end) - begin, delivered = deliveries ? (double)deliveries : 1;
    size_t n;
    double *fan_out = fan_outs(&n);
    put_open(NULL, '{');
    printf("\"name\":\"%s\"", p->name);
    comma = ",";
    put_count("published", published_count());
    put_real("publish_late_max_ms", late_max * 1e3);
    put_real("wall_s", wall);
    put_count("deliveries", (long long)deliveries);
    put_real("deliveries_per_s", (double)deliveries / wall);
    put_count("missing", all - (long long)deliveries);
    put_count("repeated", (long long)repeated);
    put_count("reordered", (long long)reordered);
    put_count("stale", (long long)stale);
    put_count("disconnects", open_before - n_open);
    put_count("other_frames", (long long)(n_other - other_before));
    put_real("lag_at_end_ms", last_sent ? (last_delivery - last_sent) * 1e3 : 0);
    put_real("latency_p50_ms", latency_ms(.5));
    put_real("latency_p90_ms", latency_ms(.9));
    put_real("latency_p99_ms", latency_ms(.99));
    put_real("latency_max_ms", latency.max * 1e3);
    put_count("complete", (long long)n);
    put_real("slowest_p50_ms", fan_out[n / 2]);
    put_real("slowest_max_ms", fan_out[n ? n - 1 : 0]);
    put_real("server_cpu_s", b.server - a.server);
    put_real("server_cpu_us_per_delivery", (b.server - a.server) * 1e6 / delivered);
    put_real("server_cpu_share", (b.server - a.server) / (b.at - a.at));
    put_count("server_rss_kib", server_rss_kib());
    put_real("client_cpu_share", (b.own - a.own) / (b.at - a.at));
    put_cpus(&a, &b);
    put_close('}');
    fflush(stdout);
    free(fan_out);
}

/* Waits until every connection that resumed has received message `until`, and prints how many messages are missing. */
static void run_resume(void)
{
    double begin = now();
    long long missing = 0, wrong = 0;
    while (n_at_end < n_open && now() - begin < connect_timeout)
        poll_once(0.02);
    for (int i = 0; i < conns_wanted; i++) {
        long long lacks = until_number - conns[i].start - (long long)conns[i].received;
        missing += lacks > 0 ? lacks : 0;
        wrong += lacks != 0;
    }
    put_open("resume", '{');
    put_real("wait_s", now() - begin);
    put_count("missing", missing);
    put_count("repeated", (long long)repeated);
    put_count("reordered", (long long)reordered);
    put_count("stale", (long long)stale);
    put_count("wrong_conns", wrong);
    put_close('}');
}

/* ---- the command line ---- */

static void parse_phase(const char *text)
{
    if (n_phases == MAX_PHASES)
        die("more than %d phases", MAX_PHASES);
    struct phase *p = &phases[n_phases++];
    char *copy = strdup(text), *rest = NULL, *word = strtok_r(copy, ":", &rest);
    snprintf(p->name, sizeof p->name, "%s", word ? word : "");
    p->dur = 5;
    while ((word = strtok_r(NULL, ":", &rest))) {
        char *value = strchr(word, '=');
        if (!value)
            die("--phase %s: %s has no value", text, word);
        *value++ = 0;
        if (!strcmp(word, "rate"))
            p->rate = atof(value);
        else if (!strcmp(word, "window"))
            p->window = atol(value);
        else if (!strcmp(word, "idle"))
            p->idle = atof(value);
        else if (!strcmp(word, "dur"))
            p->dur = atof(value);
        else if (!strcmp(word, "count"))
            p->count = atol(value);
        else
            die("--phase %s: there is no %s", text, word);
    }
    free(copy);
    if ((p->rate > 0) + (p->window > 0) + (p->idle > 0) != 1)
        die("--phase %s: give one of rate, window and idle", text);
    if (p->idle == 0 && !pub_port)
        die("--phase %s: give --pub before it", text);
}

static void read_after_file(void)
{
    FILE *f = fopen(after_file, "r");
    if (!f)
        die("%s: %s", after_file, strerror(errno));
    after = calloc((size_t)conns_wanted, sizeof *after);
    for (int i = 0; i < conns_wanted; i++) {
        if (fscanf(f, "%47s %lld", after[i], &conns[i].start) != 2)
            die("%s: line %d is not a position and a number", after_file, i + 1);
        conns[i].last = conns[i].start;
        conns[i].recent = ~0ull;
    }
    fclose(f);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        if (!strcmp(option, "--no-warmup")) {
            warm_up = 0;
            continue;
        }
        if (i + 1 == argc)
            die("%s: there is no such option, or its value is missing", option);
        char *value = argv[++i];
        if (!strcmp(option, "--url")) {
            if (sscanf(value, "ws://%63[^:/]:%d%511s", host, &port, path) < 2)
                die("--url is ws://A.B.C.D:PORT/PATH, not %s", value);
        } else if (!strcmp(option, "--conns"))
            conns_wanted = atoi(value);
        else if (!strcmp(option, "--inflight"))
            inflight_max = atoi(value);
        else if (!strcmp(option, "--timeout"))
            connect_timeout = atof(value);
        else if (!strcmp(option, "--header")) {
            size_t n = strlen(headers);
            snprintf(headers + n, sizeof headers - n, "%s\r\n", value);
        } else if (!strcmp(option, "--greet") && n_greetings < MAX_GREETINGS)
            greetings[n_greetings++] = value;
        else if (!strcmp(option, "--expect") && n_expected < MAX_GREETINGS)
            expected[n_expected++] = value;
        else if (!strcmp(option, "--reply")) {
            if (sscanf(value, "%127[^=]=%127s", ping_text, pong_text) != 2)
                die("--reply is PING=PONG, not %s", value);
        } else if (!strcmp(option, "--pub")) {
            if (sscanf(value, "script:%63[^:]:%d", pub_host, &pub_port) != 2)
                die("--pub is script:HOST:PORT, not %s", value);
        } else if (!strcmp(option, "--sha"))
            sha = value;
        else if (!strcmp(option, "--keys"))
            keys = value;
        else if (!strcmp(option, "--args"))
            fixed_args = value;
        else if (!strcmp(option, "--tag"))
            tag_n = (size_t)snprintf(tag, sizeof tag, "%.61s-", value);
        else if (!strcmp(option, "--first"))
            next_number = atoll(value);
        else if (!strcmp(option, "--size"))
            message_size = atoi(value);
        else if (!strcmp(option, "--hold"))
            hold_s = atof(value);
        else if (!strcmp(option, "--phase"))
            parse_phase(value);
        else if (!strcmp(option, "--drain"))
            drain_s = atof(value);
        else if (!strcmp(option, "--drain-max"))
            drain_max_s = atof(value);
        else if (!strcmp(option, "--after-file"))
            after_file = value;
        else if (!strcmp(option, "--until"))
            until_number = atoll(value);
        else if (!strcmp(option, "--server-pid"))
            for (char *word = strtok(value, ","); word && n_pids < MAX_PIDS; word = strtok(NULL, ","))
                pids[n_pids++] = atoi(word);
        else
            die("%s: there is no such option", option);
    }
    if (message_size >= MAX_MESSAGE - 256)
        die("--size is less than %d", MAX_MESSAGE - 256);
    if (conns_wanted < 1)
        die("--conns is 1 or more");
}

int main(int argc, char **argv)
{
    struct rlimit files;
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    find_ksoftirqd();
    if (!(conns = calloc((size_t)conns_wanted, sizeof *conns)))
        die("out of memory");
    if (after_file)
        read_after_file();
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (pub_port)
        publisher_open();

    long rss_before = server_rss_kib();
    struct usage a = usage_now();
    connect_all();
    struct usage b = usage_now();
    put_open(NULL, '{');
    put_count("conns_wanted", conns_wanted);
    put_count("conns_open", n_open);
    put_count("connect_failed", n_failed);
    put_real("connect_s", b.at - a.at);
    put_real("connect_server_cpu_s", b.server - a.server);
    if (after_file)
        run_resume();
    else
        printf(",\"resume\":null");
    int tries = 0;
    if (warm_up && pub_port && n_open) {
        tries = reach_all();
        if (tries < 0)
            fprintf(stderr, "wsload: no message has reached all %d connections\n", n_open);
    }
    wait_for(hold_s);
    long rss = server_rss_kib();
    put_count("warm_up_tries", tries);
    put_count("server_rss_before_kib", rss_before);
    put_count("server_rss_kib", rss);
    put_real("server_rss_kib_per_conn", n_open ? (double)(rss - rss_before) / n_open : 0);
    put_open("phases", '[');
    fflush(stdout);
    for (int i = 0; i < n_phases && tries >= 0 && n_open; i++) {
        if (!after_file)
            start_afresh();
        run_phase(&phases[i]);
    }
    put_close(']');
    put_count("disconnects", n_lost);
    put_count("other_frames", (long long)n_other);
    put_count("pings", (long long)n_pings);
    put_count("closes", (long long)n_closes);
    put_count("protocol_errors", (long long)n_errors);
    put_count("bytes", (long long)n_bytes);
    put_close('}');
    putchar('\n');
    return n_open == conns_wanted && tries >= 0 ? 0 : 1;
}
