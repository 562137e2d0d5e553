/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Writes and reads a disk inside the test guest and checks that every sector holds what it should.
 *
 * Each sector that is written names itself: its number, a generation, and words that follow from
 * both and from the key of the run. Each extent of the disk belongs to one of the threads, which
 * write and read random pieces of theirs past the page cache, so up to as many requests as there
 * are threads are in flight. What is read must be of the generation that was written last. Now and
 * then a thread flushes. With a pause, all threads make a few requests together and wait for the
 * next multiple of it.
 *
 * A line "at MS: writes=N reads=N ..." tells each second how far it is. On SIGTERM the threads
 * stop, all that was written is read once more, and the last line has the sums; the exit status is
 * 0 when nothing was wrong. A request that fails does not end the run: it is counted, and what its
 * sectors hold is unknown until the next write to them.
 *
 * "check" reads a whole disk on which a run may have ended anyhow: each sector must be one that the
 * run has written, or zeroes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECTOR         512u
#define WORDS          (SECTOR / sizeof(uint64_t))
#define EXTENT_SECTORS 128u
#define EXTENT         (EXTENT_SECTORS * SECTOR)
#define UNKNOWN        UINT32_MAX
#define MAX_THREADS    64ul
#define MAX_SHOWN      10u
#define FLUSH_EVERY    64u
#define READ_EVERY     4u
#define BATCH          8u
#define MAX_PAUSE_MS   1000ul
#define ERROR_PAUSE_US 1000
#define TICK_MS        1000u

struct thread {
	pthread_t id;
	size_t first; /* extent; the next ones are nr_threads apart */
	uint64_t seed;
	uint64_t *buf;
};

static const char *path;
static int fd = -1;
static uint64_t key;
static uint64_t nr_extents;
static size_t nr_threads;
static unsigned long pause_ms;
static uint32_t *last; /* generation that each sector holds; 0: not written */
static atomic_int stop;
static atomic_ulong nr_writes, nr_reads, nr_flushes, nr_errors, nr_bad, nr_shown;
static atomic_ulong gap_ms, last_done_ms;

static unsigned long
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned long)t.tv_sec * 1000 + (unsigned long)t.tv_nsec / 1000000;
}

static bool
may_show(void)
{
	return atomic_fetch_add(&nr_shown, 1) < MAX_SHOWN;
}

static uint64_t
word(uint64_t sector, uint64_t generation, size_t index)
{
	return (sector << 16 | index) * 0x9e3779b97f4a7c15u ^ generation * 0xff51afd7ed558ccdu ^
	       key;
}

static void
sector_fill(uint64_t *p, uint64_t sector, uint32_t generation)
{
	size_t i;

	p[0] = sector;
	p[1] = generation;
	for (i = 2; i < WORDS; i++)
		p[i] = word(sector, generation, i);
}

/* Is it as the sector that it claims to be was written? Returns the first word that is not. */
static size_t
sector_is_whole(const uint64_t *p)
{
	size_t i;

	for (i = 2; i < WORDS && p[i] == word(p[0], p[1], i); i++)
		;
	return i;
}

static void
sector_show(const uint64_t *p, uint64_t sector, uint32_t generation)
{
	size_t i = sector_is_whole(p);

	if (i == WORDS)
		printf("sector %llu: holds sector %llu, generation %llu",
			(unsigned long long)sector, (unsigned long long)p[0],
			(unsigned long long)p[1]);
	else
		printf("sector %llu: says sector %#llx, generation %#llx, word %zu is %#llx",
			(unsigned long long)sector, (unsigned long long)p[0],
			(unsigned long long)p[1], i, (unsigned long long)p[i]);
	if (generation != UNKNOWN)
		printf("; generation %u expected", generation);
	printf("\n");
}

static void
piece_check(const uint64_t *p, uint64_t sector, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++, sector++, p += WORDS) {
		uint32_t want = last[sector];

		if (want == 0 || want == UNKNOWN)
			continue;
		if (p[0] == sector && p[1] == want && sector_is_whole(p) == WORDS)
			continue;
		atomic_fetch_add(&nr_bad, 1);
		if (may_show())
			sector_show(p, sector, want);
	}
}

/* The longest time in which no request at all was completed. */
static void
gap_note(void)
{
	unsigned long now = now_ms(), gap = now - atomic_exchange(&last_done_ms, now);
	unsigned long before = atomic_load(&gap_ms);

	while ((long)gap > (long)before && !atomic_compare_exchange_weak(&gap_ms, &before, gap))
		;
}

/* Returns whether the request went well; one that did not is counted. */
static bool
done(const char *what, uint64_t sector, size_t n, ssize_t got)
{
	int err = errno;

	gap_note();
	if (got == (ssize_t)(n * SECTOR))
		return true;
	atomic_fetch_add(&nr_errors, 1);
	usleep(ERROR_PAUSE_US);
	if (may_show())
		printf("%s of %zu sectors at %llu: %s\n", what, n, (unsigned long long)sector,
			got < 0 ? strerror(err) : "short");
	return false;
}

static bool
piece_read(uint64_t *buf, uint64_t sector, size_t n)
{
	ssize_t got = pread(fd, buf, n * SECTOR, (off_t)(sector * SECTOR));

	if (!done("read", sector, n, got))
		return false;
	atomic_fetch_add(&nr_reads, 1);
	piece_check(buf, sector, n);
	return true;
}

static void
piece_write(uint64_t *buf, uint64_t sector, size_t n, uint32_t generation)
{
	bool good;
	size_t i;

	for (i = 0; i < n; i++)
		sector_fill(buf + i * WORDS, sector + i, generation);
	good = done("write", sector, n, pwrite(fd, buf, n * SECTOR, (off_t)(sector * SECTOR)));
	for (i = 0; i < n; i++)
		last[sector + i] = good ? generation : UNKNOWN;
	atomic_fetch_add(&nr_writes, good);
}

static void
flush(void)
{
	if (done("flush", 0, 0, fdatasync(fd)))
		atomic_fetch_add(&nr_flushes, 1);
}

static uint64_t
next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void
pause_wait(void)
{
	unsigned long next = (now_ms() / pause_ms + 1) * pause_ms;
	const struct timespec t = {(time_t)(next / 1000), (long)(next % 1000) * 1000000};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void *
thread_main(void *arg)
{
	struct thread *t = arg;
	uint64_t mine = (nr_extents - t->first + nr_threads - 1) / nr_threads;
	uint32_t generation = 0;

	while (!atomic_load(&stop)) {
		uint64_t extent = t->first + next_random(&t->seed) % mine * nr_threads;
		size_t at = next_random(&t->seed) % EXTENT_SECTORS;
		size_t n = 1 + next_random(&t->seed) % (EXTENT_SECTORS - at);
		uint64_t sector = extent * EXTENT_SECTORS + at;

		generation++;
		if (generation % READ_EVERY == 0)
			piece_read(t->buf, sector, n);
		else
			piece_write(t->buf, sector, n, generation);
		if (generation % FLUSH_EVERY == 0)
			flush();
		if (pause_ms != 0 && generation % BATCH == 0)
			pause_wait();
	}
	return NULL;
}

static void
show(const char *end)
{
	printf("at %lu: writes=%lu reads=%lu flushes=%lu errors=%lu bad=%lu gap_ms=%lu%s\n",
		now_ms(), atomic_load(&nr_writes), atomic_load(&nr_reads), atomic_load(&nr_flushes),
		atomic_load(&nr_errors), atomic_load(&nr_bad), atomic_load(&gap_ms), end);
}

static void *
allocate(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED) {
		perror("blkverify: mmap");
		exit(2);
	}
	return p;
}

static void
disk_open(int flags)
{
	uint64_t size;

	fd = open(path, flags | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0) {
		perror(path);
		exit(2);
	}
	nr_extents = size / EXTENT;
	if (nr_extents < MAX_THREADS) {
		fprintf(stderr, "%s: too small\n", path);
		exit(2);
	}
}

/* Read all extents, each thread's buffer being free by now. */
static void
disk_verify(uint64_t *buf)
{
	uint64_t sector, i;

	for (sector = 0; sector < nr_extents * EXTENT_SECTORS; sector += EXTENT_SECTORS) {
		for (i = 0; i < EXTENT_SECTORS && last[sector + i] == 0; i++)
			;
		if (i < EXTENT_SECTORS)
			piece_read(buf, sector, EXTENT_SECTORS);
	}
}

static int
run(void)
{
	const struct timespec tick = {.tv_sec = TICK_MS / 1000};
	struct thread threads[MAX_THREADS];
	sigset_t set;
	size_t i;

	disk_open(O_RDWR);
	last = allocate(nr_extents * EXTENT_SECTORS * sizeof(*last));
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	atomic_store(&last_done_ms, now_ms());
	for (i = 0; i < nr_threads; i++) {
		threads[i] = (struct thread){.first = i, .buf = allocate(EXTENT)};
		threads[i].seed = (key + 1) * 0x2545f4914f6cdd1du * (2 * i + 1);
		if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) != 0) {
			fprintf(stderr, "blkverify: no thread\n");
			return 2;
		}
	}
	printf("running\n");
	while (sigtimedwait(&set, NULL, &tick) != SIGTERM)
		show("");
	atomic_store(&stop, 1);
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i].id, NULL);
	flush();
	disk_verify(threads[0].buf);
	show(" end");
	return atomic_load(&nr_bad) != 0;
}

static bool
is_zero(const uint64_t *p)
{
	size_t i;

	for (i = 0; i < WORDS && p[i] == 0; i++)
		;
	return i == WORDS;
}

static int
check(void)
{
	uint64_t sector, i, written = 0, *buf = allocate(EXTENT);

	disk_open(O_RDONLY);
	for (sector = 0; sector < nr_extents * EXTENT_SECTORS; sector += EXTENT_SECTORS) {
		if (!done("read", sector, EXTENT_SECTORS,
			    pread(fd, buf, EXTENT, (off_t)(sector * SECTOR))))
			continue;
		for (i = 0; i < EXTENT_SECTORS; i++) {
			const uint64_t *p = buf + i * WORDS;

			if (is_zero(p))
				continue;
			written++;
			if (p[0] == sector + i && sector_is_whole(p) == WORDS)
				continue;
			atomic_fetch_add(&nr_bad, 1);
			if (may_show())
				sector_show(p, sector + i, UNKNOWN);
		}
	}
	printf("sectors=%llu errors=%lu bad=%lu end\n", (unsigned long long)written,
		atomic_load(&nr_errors), atomic_load(&nr_bad));
	return atomic_load(&nr_bad) != 0;
}

static bool
number(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *ret <= max;
}

int
main(int argc, char **argv)
{
	unsigned long k = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc >= 4 && number(argv[3], UINT32_MAX, &k)) {
		path = argv[2];
		key = k * 0xc2b2ae3d27d4eb4fu;
		if (argc == 4 && strcmp(argv[1], "check") == 0)
			return check();
		if (argc == 6 && strcmp(argv[1], "run") == 0 &&
			number(argv[4], MAX_THREADS, &nr_threads) && nr_threads > 0 &&
			number(argv[5], MAX_PAUSE_MS, &pause_ms))
			return run();
	}
	fprintf(stderr, "usage: blkverify run DISK KEY THREADS PAUSE_MS\n"
			"       blkverify check DISK KEY\n");
	return 2;
}
