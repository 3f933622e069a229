/* The reference of `just bench relay`: about the least that a forwarder of UDP packets can do. Linux. Not part of the product.

   forwarder MTU BATCH

   1. Binds two sockets on loopback, "client" and "trunk", and says their ports in a ready line.
   2. Reads the flows from standard input: records of 12 bytes, client address and server address, each port(2) ip(4).
   3. Forwards for ever. A batch is received with recvmmsg, every source is looked up in a hash table, and what it causes leaves
      with sendmmsg.

   MTU 0: one datagram in, one datagram out, both ways: a table entry for each client and each server address.
   else:  towards the server, the frames of a batch share datagrams as our relay's do (protocol/routing/trunk.py: head of 16
          bytes with their number, then length(2) port(2) ip(4) of each, then the payloads, sent from where they were received);
          towards clients each frame names its client. The 8 bytes of tag are left zero and never checked: the difference to our
          relay is the tag, proof, expiry, counters, and Python. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_BATCH = 1024, SLOT = 9216, HEAD = 16, DESCRIPTOR = 8, ROUNDS = 8, MAX_OUT = 4 * MAX_BATCH };

struct entry { uint64_t key; struct sockaddr_in to; };

static struct entry *table;
static unsigned table_bits;
static int batch, mtu;

static unsigned char slots[MAX_BATCH][SLOT], bundles[MAX_BATCH][SLOT];
static struct sockaddr_in from[MAX_BATCH], to[MAX_OUT];
static struct iovec in_vectors[MAX_BATCH], out_vectors[MAX_OUT]; /* at most two for each packet received, or one for each sent */
static struct mmsghdr in[MAX_BATCH], out[MAX_OUT];

static void die(const char *what) { perror(what); exit(1); }

static uint64_t key_of(const struct sockaddr_in *a) { return (uint64_t)a->sin_addr.s_addr << 16 | a->sin_port; }

static struct entry *slot_of(uint64_t key) {
    uint64_t mask = (1ull << table_bits) - 1, i = (key * 0x9E3779B97F4A7C15ull) >> (64 - table_bits);
    while (table[i].key && table[i].key != key) i = (i + 1) & mask;
    return &table[i];
}

static void learn(const unsigned char *a, const unsigned char *b) {
    struct sockaddr_in source = {.sin_family = AF_INET}, target = {.sin_family = AF_INET};
    memcpy(&source.sin_port, a, 2); memcpy(&source.sin_addr, a + 2, 4);
    memcpy(&target.sin_port, b, 2); memcpy(&target.sin_addr, b + 2, 4);
    struct entry *e = slot_of(key_of(&source));
    e->key = key_of(&source);
    e->to = target;
}

static void read_flows(void) {
    size_t used = 0, room = 1 << 16, n;
    unsigned char *records = malloc(room);
    if (!records) die("malloc");
    while ((n = fread(records + used, 1, room - used, stdin)) > 0)
        if ((used += n) == room && !(records = realloc(records, room *= 2))) die("realloc");
    for (table_bits = 8; (1ull << table_bits) < 8 * (used / 12); table_bits++) {}
    if (!(table = calloc(1ull << table_bits, sizeof *table))) die("calloc");
    for (size_t i = 0; i + 12 <= used; i += 12) { learn(records + i, records + i + 6); learn(records + i + 6, records + i); }
    free(records);
}

static int bound(int *port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof a;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, length) || getsockname(fd, (struct sockaddr *)&a, &length)) die("bind");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    *port = ntohs(a.sin_port);
    return fd;
}

static int receive(int fd) {
    for (int i = 0; i < batch; i++) in[i].msg_hdr.msg_namelen = sizeof from[i];
    int n = recvmmsg(fd, in, batch, MSG_DONTWAIT, NULL);
    return n < 0 ? 0 : n;
}

static void send_all(int fd, int count) {
    for (int done = 0; done < count;) {
        int chunk = count - done < MAX_BATCH ? count - done : MAX_BATCH;
        int n = sendmmsg(fd, out + done, chunk, MSG_DONTWAIT);
        if (n <= 0 && errno == EINTR) continue;
        if (n <= 0) return; /* a full socket: the rest is lost, as with our relay */
        done += n;
    }
}

static int put(int count, const struct sockaddr_in *target, struct iovec *vectors, int length) {
    to[count] = *target;
    out[count].msg_hdr.msg_iov = vectors;
    out[count].msg_hdr.msg_iovlen = length;
    return count + 1;
}

static int plain(int n) {
    int count = 0;
    for (int i = 0; i < n; i++) {
        struct entry *e = slot_of(key_of(&from[i]));
        if (!e->key) continue;
        out_vectors[count] = (struct iovec){slots[i], in[i].msg_len};
        count = put(count, &e->to, &out_vectors[count], 1);
    }
    return count;
}

static int finish(int count, const struct sockaddr_in *target, struct iovec *vectors, int frames) {
    unsigned char *head = vectors[0].iov_base;
    memcpy(head, "\xC5\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", HEAD);
    head[4] = frames >> 8; head[5] = frames;
    vectors[0].iov_len = HEAD + frames * DESCRIPTOR;
    return put(count, target, vectors, 1 + frames);
}

static int bundle(int n) {
    int count = 0, frames = 0;
    size_t used = 0;
    struct sockaddr_in target = {0};
    struct iovec *first = out_vectors;
    for (int i = 0; i < n; i++) {
        struct entry *e = slot_of(key_of(&from[i]));
        unsigned length = in[i].msg_len;
        if (!e->key) continue;
        if (frames && (used + DESCRIPTOR + length > (size_t)mtu || key_of(&target) != key_of(&e->to))) {
            count = finish(count, &target, first, frames);
            first += 1 + frames;
            frames = 0;
        }
        if (!frames) { used = HEAD; target = e->to; first[0].iov_base = bundles[count]; }
        unsigned char *descriptor = bundles[count] + HEAD + frames * DESCRIPTOR;
        descriptor[0] = length >> 8; descriptor[1] = length;
        memcpy(descriptor + 2, &from[i].sin_port, 2);
        memcpy(descriptor + 4, &from[i].sin_addr, 4);
        first[1 + frames++] = (struct iovec){slots[i], length};
        used += DESCRIPTOR + length;
    }
    return frames ? finish(count, &target, first, frames) : count;
}

static int unbundle(int n) {
    int count = 0;
    for (int i = 0; i < n; i++) {
        unsigned char *head = slots[i];
        size_t frames = (size_t)head[4] << 8 | head[5], at = HEAD + frames * DESCRIPTOR, end = in[i].msg_len;
        for (size_t frame = 0; frame < frames && count < MAX_OUT; frame++) {
            unsigned char *descriptor = head + HEAD + frame * DESCRIPTOR;
            struct sockaddr_in client = {.sin_family = AF_INET};
            size_t length = (size_t)descriptor[0] << 8 | descriptor[1];
            if (at + length > end) break;
            memcpy(&client.sin_port, descriptor + 2, 2);
            memcpy(&client.sin_addr, descriptor + 4, 4);
            out_vectors[count] = (struct iovec){head + at, length};
            count = put(count, &client, &out_vectors[count], 1);
            at += length;
        }
    }
    return count;
}

int main(int argc, char **argv) {
    if (argc != 3 || (batch = atoi(argv[2])) < 1 || batch > MAX_BATCH) { fputs("usage: forwarder MTU BATCH\n", stderr); return 2; }
    mtu = atoi(argv[1]);
    int (*up)(int) = mtu ? bundle : plain, (*down)(int) = mtu ? unbundle : plain;
    int client_port, trunk_port, client = bound(&client_port), trunk = bound(&trunk_port);
    for (int i = 0; i < MAX_BATCH; i++) {
        in_vectors[i] = (struct iovec){slots[i], SLOT};
        in[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &in_vectors[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < MAX_OUT; i++)
        out[i].msg_hdr = (struct msghdr){.msg_name = &to[i], .msg_namelen = sizeof to[i]};
    read_flows();
    printf("ready {\"listen\":[\"127.0.0.1:%d\"],\"trunk\":\"127.0.0.1:%d\"}\n", client_port, trunk_port);
    fflush(stdout);
    struct pollfd wait[2] = {{.fd = client, .events = POLLIN}, {.fd = trunk, .events = POLLIN}};
    for (;;) {
        if (poll(wait, 2, -1) < 0 && errno != EINTR) die("poll");
        for (int n = batch, i = 0; i < ROUNDS && n == batch && wait[0].revents; i++)
            if ((n = receive(client)) > 0) send_all(trunk, up(n));
        for (int n = batch, i = 0; i < ROUNDS && n == batch && wait[1].revents; i++)
            if ((n = receive(trunk)) > 0) send_all(client, down(n));
    }
}
