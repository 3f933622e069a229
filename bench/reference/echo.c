/* The floor of `just bench transceiver`: about the least that an SRTP echo can do. Linux. Not part of the product.

   Compiled as a library, loaded by `bench.reference.srtp_echo`, which hands it the very libsrtp that our transceiver uses (it is
   inside pylibsrtp) as two functions, and a table of calls with keys set beforehand. For ever: recvmmsg, srtp_unprotect,
   srtp_protect, sendmmsg. No ICE, no DTLS, no RTCP, no consent, no statistics, no limits, no agent. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SLOT = 2048, SHORTEST = 12 };

typedef int (*transform)(void *session, void *packet, int *length);

/* As Python lays it out: address(4) port(2) zero(2) of the caller in network order, then the two sessions. */
struct call { uint32_t ip; uint16_t port, zero; void *in, *out; };

static struct call *table;
static unsigned table_bits;
static unsigned char slots[BATCH][SLOT];
static struct sockaddr_in from[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr in[BATCH], out[BATCH];

static struct call *slot_of(uint32_t ip, uint16_t port) {
    uint64_t mask = (1ull << table_bits) - 1, key = (uint64_t)ip << 16 | port;
    uint64_t i = (key * 0x9E3779B97F4A7C15ull) >> (64 - table_bits);
    while (table[i].ip && (table[i].ip != ip || table[i].port != port)) i = (i + 1) & mask;
    return &table[i];
}

int echo(int fd, const struct call *calls, int count, transform unprotect, transform protect) {
    for (table_bits = 4; (1 << table_bits) < 4 * count; table_bits++) {}
    if (!(table = calloc(1ull << table_bits, sizeof *table))) return ENOMEM;
    for (int i = 0; i < count; i++) *slot_of(calls[i].ip, calls[i].port) = calls[i];
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_base = slots[i];
        in[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    for (;;) {
        if (poll(&wait, 1, -1) < 0 && errno != EINTR) return errno;
        for (int i = 0; i < BATCH; i++) { vectors[i].iov_len = SLOT; in[i].msg_hdr.msg_namelen = sizeof from[i]; }
        int received = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL), made = 0;
        for (int i = 0; i < received; i++) {
            struct call *call = slot_of(from[i].sin_addr.s_addr, from[i].sin_port);
            int length = in[i].msg_len;
            if (!call->ip || length < SHORTEST || length > SLOT - 64) continue;
            if (unprotect(call->in, slots[i], &length) || protect(call->out, slots[i], &length)) continue;
            vectors[i].iov_len = length;
            out[made].msg_hdr = in[i].msg_hdr;
            out[made].msg_hdr.msg_namelen = sizeof from[i];
            made++;
        }
        for (int done = 0; done < made;) {
            int sent = sendmmsg(fd, out + done, made - done, MSG_DONTWAIT);
            if (sent <= 0 && errno == EINTR) continue;
            if (sent <= 0) break; /* a full socket: the rest is lost */
            done += sent;
        }
    }
}
