/* The benchmark's engine and load client: small enough that neither is what is measured.
 *
 *   load engine PORT                                       an OpenAI-shaped engine, paced by the request's own fields
 *   load client PORT STREAMS TOKENS GAP_US FIRST_US EACH   EACH streamed answers on every one of STREAMS connections
 *   load client PORT CONNECTIONS 0 0 0 EACH                the same, not streamed: a closed loop
 *
 * Every token event carries the engine's CLOCK_MONOTONIC nanoseconds of its sending ("s") and of the request's arrival
 * ("r"), so the client knows each event's transit exactly, and what stands between adds
 *     to the first token: (client sent -> engine received) + (engine sent -> client received).
 * The client prints one line "open" when every connection has its first token, then one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define ROOM 16384
#define MARK "\"system_fingerprint\":\"s"

typedef struct {
    int fd, used, active, stream, usage, waiting, whole, opened;
    long tokens, sent, each;
    int64_t gap, next, received, asked;
    char in[ROOM];
} Conn;

static Conn *conns;
static int poller, timer;
/* heap of connections by `next` */
static int *heap, heaped;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void heap_push(int who) {
    int i = heaped++;
    while (i && conns[heap[(i - 1) / 2]].next > conns[who].next) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = who;
}

static int heap_pop(void) {
    int top = heap[0], last = heap[--heaped], i = 0, child;
    while ((child = 2 * i + 1) < heaped) {
        if (child + 1 < heaped && conns[heap[child + 1]].next < conns[heap[child]].next) child++;
        if (conns[heap[child]].next >= conns[last].next) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void arm(void) {
    struct itimerspec at = {0};
    if (heaped) {
        int64_t next = conns[heap[0]].next;
        at.it_value.tv_sec = next / 1000000000LL;
        at.it_value.tv_nsec = next % 1000000000LL;
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void setup(int room) {
    conns = calloc(room, sizeof(Conn));
    heap = calloc(room, sizeof(int));
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = timer};
    if (!conns || !heap || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event)) die("setup");
}

static void watch(int fd) {
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static long field(const char *body, const char *name, long otherwise) {
    const char *at = strstr(body, name);
    return at ? strtol(at + strlen(name), NULL, 10) : otherwise;
}

static void put(int fd, const char *data, int size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != size) shutdown(fd, SHUT_RDWR);
}

/* ---- engine: conns are indexed by file descriptor ---- */

static int chunk(char *into, const char *data) {
    return sprintf(into, "%zx\r\n%s\r\n", strlen(data), data);
}

static void send_token(Conn *c) {
    char event[1024], out[2048];
    int n = 0, e = 0;
    int64_t at = now_ns();
    if (!c->sent) {
        n = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
        e = sprintf(event, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
                           "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n");
    }
    c->sent++;
    sprintf(event + e, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
            "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":%s}],"
            MARK "%lldr%lld\"}\n\n", c->sent == c->tokens ? "\"stop\"" : "null", (long long)at, (long long)c->received);
    n += chunk(out + n, event);
    if (c->sent == c->tokens) {
        if (c->usage) {
            sprintf(event, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
                    "\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"total_tokens\":%ld,"
                    "\"completion_tokens\":%ld}}\n\n", 11 + c->tokens, c->tokens);
            n += chunk(out + n, event);
        }
        n += chunk(out + n, "data: [DONE]\n\n");
        n += sprintf(out + n, "0\r\n\r\n");
    }
    put(c->fd, out, n);
}

static void send_whole(Conn *c) {
    char body[1024], out[2048];
    int size = sprintf(body, "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"bench\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The answer is short.\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":11,\"total_tokens\":16,\"completion_tokens\":5}," MARK "%lldr%lld\"}",
        (long long)now_ns(), (long long)c->received);
    put(c->fd, out, sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, body));
}

static void answer(Conn *c, char *body) {
    c->received = now_ns();
    if (!strstr(body, "\"messages\"")) {
        put(c->fd, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 45);
    } else if (!strstr(body, "\"stream\":true")) {
        send_whole(c);
    } else {
        char *usage = strstr(body, "\"include_usage\"");
        c->usage = usage && strstr(usage, "true") != NULL;
        c->tokens = field(body, "\"max_tokens\":", 100);
        c->gap = field(body, "\"gap_us\":", 20000) * 1000;
        c->next = c->received + field(body, "\"first_us\":", 20000) * 1000;
        c->sent = 0;
        c->active = 1;
        heap_push(c->fd);
    }
}

static void engine_read(Conn *c) {
    int n = recv(c->fd, c->in + c->used, ROOM - 1 - c->used, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        if (c->active) { /* its place in the heap goes by descriptor, which must not be used again before */
            epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
            c->active = 2;
        } else {
            close(c->fd);
        }
        return;
    }
    c->in[c->used += n] = 0;
    char *end;
    while ((end = strstr(c->in, "\r\n\r\n"))) {
        *end = 0;
        char *length = strcasestr(c->in, "\r\ncontent-length:");
        int size = length ? atoi(length + 17) : 0, whole = end + 4 - c->in + size;
        *end = '\r';
        if (c->used < whole) return;
        char kept = c->in[whole];
        c->in[whole] = 0;
        answer(c, end + 4);
        c->in[whole] = kept;
        memmove(c->in, c->in + whole, c->used - whole + 1);
        c->used -= whole;
    }
}

static void engine(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) die("listen");
    setup(16384);
    watch(listener);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            uint64_t ticks;
            if (fd == timer) {
                if (read(timer, &ticks, sizeof ticks) < 0) continue;
            } else if (fd == listener) {
                int peer;
                while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    memset(&conns[peer], 0, offsetof(Conn, in));
                    conns[peer].fd = peer;
                    watch(peer);
                }
            } else {
                engine_read(&conns[fd]);
            }
        }
        while (heaped && conns[heap[0]].next <= now_ns()) {
            Conn *c = &conns[heap_pop()];
            if (c->active == 2) {
                c->active = 0;
                close(c->fd);
                continue;
            }
            send_token(c);
            if (c->sent < c->tokens) {
                c->next += c->gap;
                heap_push(c->fd);
            } else {
                c->active = 0;
            }
        }
        arm();
    }
}

/* ---- client: conns are numbered; the epoll data holds 1 << 20 | number ---- */

static double *transit, *first, *latency;
static long transits, firsts, latencies, answers, errors, opened, finished;
static int count, streamed, port_to;
static char request[2048];
static int request_size;

static void ask(Conn *c) {
    c->asked = now_ns();
    c->used = c->sent = c->whole = 0;
    c->waiting = 1;
    put(c->fd, request, request_size);
}

static void give_up(Conn *c) {
    errors++;
    finished++;
    close(c->fd);
    c->fd = -1;
}

static void over(Conn *c) {
    int64_t at = now_ns();
    latency[latencies++] = (at - c->asked) / 1000.0;
    answers++;
    c->waiting = 0;
    if (--c->each > 0) {
        ask(c);
    } else {
        finished++;
        close(c->fd);
        c->fd = -1;
    }
}

static void client_read(Conn *c) {
    int n = recv(c->fd, c->in + c->used, ROOM - 1 - c->used, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) give_up(c);
        return;
    }
    int64_t at = now_ns();
    c->in[c->used += n] = 0;
    if (!c->whole && !c->sent && c->used >= 12 && memcmp(c->in, "HTTP/1.1 200", 12)) {
        give_up(c);
        return;
    }
    char *from = c->in, *mark, *close_quote;
    while ((mark = strstr(from, MARK)) && (close_quote = strchr(mark + strlen(MARK), '"'))) {
        char *rest;
        int64_t sent = strtoll(mark + strlen(MARK), &rest, 10), received = strtoll(rest + 1, NULL, 10);
        if (!c->sent++) {
            first[firsts++] = (received - c->asked + at - sent) / 1000.0;
            if (!c->opened++) opened++;
        }
        transit[transits++] = (at - sent) / 1000.0;
        from = close_quote;
    }
    if (from == c->in && c->used > ROOM / 2) from = c->in + c->used - 256; /* another engine's events: only the end matters */
    if (!streamed) {
        char *end = strstr(c->in, "\r\n\r\n");
        char *length = end ? strcasestr(c->in, "\r\ncontent-length:") : NULL;
        if (length && c->used >= end + 4 - c->in + atoi(length + 17)) over(c);
        else if (end && !length && c->used >= 5 && !strcmp(c->in + c->used - 5, "0\r\n\r\n")) over(c);
        return;
    }
    c->used -= from - c->in;
    memmove(c->in, from, c->used + 1);
    c->whole = 1; /* the status line is gone */
    if (c->used >= 7 && !strcmp(c->in + c->used - 7, "\r\n0\r\n\r\n") && strstr(c->in, "[DONE]")) over(c);
}

static void dial(int who) {
    Conn *c = &conns[who];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port_to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1ULL << 40 | (unsigned)who};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    ask(c);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void quantiles(const char *name, double *values, long n) {
    qsort(values, n, sizeof *values, by_size);
    printf("\"%s\":{\"p50\":%.1f,\"p99\":%.1f},", name, n ? values[n / 2] : -1, n ? values[n * 99 / 100] : -1);
}

static void client(char **arg) {
    port_to = atoi(arg[0]);
    count = atoi(arg[1]);
    long tokens = atol(arg[2]), gap = atol(arg[3]), each = atol(arg[5]);
    streamed = tokens > 0;
    char body[1024];
    int size = sprintf(body, "{\"model\":\"bench\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
        "{\"role\":\"user\",\"content\":\"Say something short about clocks that do not agree with each other.\"}],"
        "\"temperature\":0.7,\"stream\":%s,\"max_tokens\":%ld,\"gap_us\":%ld,\"first_us\":%s}",
        streamed ? "true" : "false", tokens, gap, arg[4]);
    request_size = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
        "authorization: Bearer none\r\nuser-agent: bench\r\ncontent-length: %d\r\n\r\n%s", port_to, size, body);
    setup(count);
    transit = malloc((count * each * (tokens + 2) + 1) * sizeof(double));
    first = malloc((count * each + 1) * sizeof(double));
    latency = malloc((count * each + 1) * sizeof(double));
    /* the streams begin spread over one answer's duration, so that starts and ends are spread as well */
    int64_t begun = now_ns(), spread = tokens * gap * 1000;
    if (spread > 4000000000LL) spread = 4000000000LL;
    srand(1);
    for (int i = 0; i < count; i++) {
        conns[i].each = each;
        conns[i].next = begun + (int64_t)((double)spread * rand() / RAND_MAX);
        heap_push(i);
    }
    int told = 0;
    while (finished < count) {
        while (heaped && conns[heap[0]].next <= now_ns()) dial(heap_pop());
        arm();
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (events[i].data.u64 >> 40) {
                Conn *c = &conns[(unsigned)events[i].data.u64];
                if (c->fd >= 0) client_read(c);
            } else if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) {
                die("timer");
            }
        }
        if (!told && opened == count) {
            puts("open");
            fflush(stdout);
            told = 1;
        }
    }
    printf("{");
    quantiles("transit_us", transit, transits);
    quantiles("first_us", first, firsts);
    quantiles("latency_us", latency, latencies);
    printf("\"answers\":%ld,\"tokens\":%ld,\"errors\":%ld,\"seconds\":%.3f}\n", answers, transits, errors, (now_ns() - begun) / 1e9);
}

int main(int n, char **arg) {
    if (n == 3 && !strcmp(arg[1], "engine")) engine(atoi(arg[2]));
    else if (n == 8 && !strcmp(arg[1], "client")) client(arg + 2);
    else {
        fprintf(stderr, "usage: load engine PORT | load client PORT CONNECTIONS TOKENS GAP_US FIRST_US EACH\n");
        return 2;
    }
    return 0;
}
