/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Fills one TCP connection in both directions with numbered blocks and checks those that come.
 *
 * One end listens, the other connects; both do the same. A block is a header with its number and
 * the CRC of its contents, and 1 to 8192 bytes. On SIGTERM, or when the peer says good-bye, an end
 * sends a block of length 0 whose number is the count of all blocks before. Each end prints
 * "sent=N received=N errors=N gap_ms=N": gap_ms is the longest time between two blocks received.
 * The exit status is 0 when every block that the peer sent came whole, once, and in order.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_MAX 8192u
#define MAGIC     0x76666562u

struct header {
	uint32_t magic;
	uint32_t len;
	uint64_t number;
	uint32_t crc;
	uint32_t reserved;
};

static uint32_t crc_table[256];
static unsigned long rate; /* bytes per second */
static int sock = -1;
static atomic_int stop;
static uint64_t nr_sent, nr_received, nr_errors, gap_ms;
static int complete;

static void
crc_init(void)
{
	uint32_t i, bit;

	for (i = 0; i < 256; i++) {
		uint32_t c = i;

		for (bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		crc_table[i] = c;
	}
}

static uint32_t
crc(const uint8_t *data, size_t len)
{
	uint32_t c = ~0u;

	while (len-- > 0)
		c = c >> 8 ^ crc_table[(c ^ *data++) & 0xff];
	return ~c;
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int
send_all(const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = send(sock, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Returns 1, 0 at the end of the stream before the first byte, -1 when it ends later or breaks. */
static int
receive_all(void *data, size_t len)
{
	ssize_t n = recv(sock, data, len, MSG_WAITALL);

	if (n == 0 && len > 0)
		return 0;
	return n == (ssize_t)len ? 1 : -1;
}

static void
pace(uint64_t start, uint64_t bytes)
{
	uint64_t due = start + bytes * 1000000000u / rate;
	struct timespec ts = {
		.tv_sec = (time_t)(due / 1000000000u),
		.tv_nsec = (long)(due % 1000000000u),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void *
sender_main(void *arg)
{
	uint8_t block[sizeof(struct header) + BLOCK_MAX];
	uint64_t random = 0x2545f4914f6cdd1du ^ (uint64_t)getpid() << 20;
	uint64_t start = now_ns(), bytes = 0;
	struct header h;

	(void)arg;
	while (!atomic_load(&stop)) {
		size_t i;

		for (i = 0; i < BLOCK_MAX; i += sizeof(random)) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			memcpy(block + sizeof(h) + i, &random, sizeof(random));
		}
		h = (struct header){
			.magic = MAGIC, .len = 1 + random % BLOCK_MAX, .number = nr_sent};
		h.crc = crc(block + sizeof(h), h.len);
		memcpy(block, &h, sizeof(h));
		if (send_all(block, sizeof(h) + h.len) != 0) {
			perror("send");
			return NULL;
		}
		nr_sent++;
		bytes += h.len;
		pace(start, bytes);
	}
	h = (struct header){.magic = MAGIC, .number = nr_sent};
	if (send_all(&h, sizeof(h)) != 0)
		perror("send");
	shutdown(sock, SHUT_WR);
	return NULL;
}

static void
complain(const char *what, uint64_t got, uint64_t expected)
{
	if (nr_errors++ < 10)
		printf("block %llu: %s %llu, expected %llu\n", (unsigned long long)nr_received,
			what, (unsigned long long)got, (unsigned long long)expected);
}

static void
receive(void)
{
	uint8_t data[BLOCK_MAX];
	uint64_t before = now_ns();
	struct header h;

	while (receive_all(&h, sizeof(h)) == 1) {
		uint64_t now = now_ns();

		if ((now - before) / 1000000u > gap_ms)
			gap_ms = (now - before) / 1000000u;
		before = now;
		if (h.magic != MAGIC || h.len > BLOCK_MAX) {
			complain("header", h.magic, MAGIC);
			return;
		}
		if (h.number != nr_received)
			complain("number", h.number, nr_received);
		if (h.len == 0) {
			complete = 1;
			return;
		}
		if (receive_all(data, h.len) != 1)
			return;
		if (crc(data, h.len) != h.crc)
			complain("CRC", crc(data, h.len), h.crc);
		nr_received++;
	}
}

static void *
watch_main(void *arg)
{
	sigset_t *set = arg;
	int signum;

	sigwait(set, &signum);
	atomic_store(&stop, 1);
	return NULL;
}

static int
connection(int listens, const char *address, unsigned long port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int one = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c;

	if (s < 0 || inet_pton(AF_INET, address, &sin.sin_addr) != 1)
		return -1;
	if (!listens)
		return connect(s, (struct sockaddr *)&sin, sizeof(sin)) == 0 ? s : -1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&sin, sizeof(sin)) != 0 || listen(s, 1) != 0)
		return -1;
	printf("listening\n");
	c = accept(s, NULL, NULL);
	close(s);
	return c;
}

int
main(int argc, char **argv)
{
	unsigned long port = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
	pthread_t sender, watch;
	sigset_t set;

	rate = argc == 5 ? strtoul(argv[4], NULL, 10) * 1024 : 0;
	if (port == 0 || port > 65535 || rate == 0) {
		fprintf(stderr, "usage: stream listen|connect ADDRESS PORT KIB_PER_SECOND\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	crc_init();
	sock = connection(strcmp(argv[1], "listen") == 0, argv[2], port);
	if (sock < 0) {
		perror(argv[1]);
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (pthread_create(&watch, NULL, watch_main, &set) != 0 ||
		pthread_create(&sender, NULL, sender_main, NULL) != 0) {
		fprintf(stderr, "stream: no thread\n");
		return 2;
	}
	printf("running\n");
	receive();
	atomic_store(&stop, 1);
	pthread_join(sender, NULL);
	printf("sent=%llu received=%llu errors=%llu gap_ms=%llu%s\n", (unsigned long long)nr_sent,
		(unsigned long long)nr_received, (unsigned long long)nr_errors,
		(unsigned long long)gap_ms, complete ? "" : " incomplete");
	return nr_errors != 0 || !complete;
}
