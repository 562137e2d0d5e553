/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirties memory inside the test guest and checks that every page holds what was written last.
 *
 * Each page belongs to one writer. A writer takes its pages in random order; before it fills one
 * with a new sequence number, it checks all of the old contents. On SIGTERM the writers stop, all
 * pages are checked once more, and one line "pages=N writes=N bad=N" tells the result. The exit
 * status is 0 when no page was wrong.
 *
 * A writer with a rate touches its pages again after a pause: see switches.c for what QEMU would
 * lose of a page that was being filled while it collected dirty bits.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SIZE   4096u
#define WORDS       (PAGE_SIZE / sizeof(uint64_t))
#define BATCH       32u
#define MAX_MIB     65536ul
#define MAX_WRITERS 64ul
#define MAX_SHOWN   10u

struct writer {
	pthread_t thread;
	size_t first; /* page; the next ones are nr_writers apart */
	uint64_t seed;
	uint64_t writes;
};

static uint64_t *memory;
static uint64_t *last; /* sequence number that each page holds */
static size_t nr_pages;
static size_t nr_writers;
static unsigned long rate; /* pages per second and writer; 0: no limit */
static atomic_int stop;
static atomic_ulong nr_bad;

static uint64_t
word(size_t page, uint64_t sequence, size_t index)
{
	return ((uint64_t)page << 32 | index) * 0x9e3779b97f4a7c15u ^
	       sequence * 0xff51afd7ed558ccdu;
}

static void
page_fill(size_t page, uint64_t sequence)
{
	uint64_t *p = memory + page * WORDS;
	size_t i;

	for (i = 0; i < WORDS; i++)
		p[i] = word(page, sequence, i);
	last[page] = sequence;
}

static void
page_check(size_t page)
{
	const uint64_t *p = memory + page * WORDS;
	uint64_t older = 0;
	size_t i;

	for (i = 0; i < WORDS && p[i] == word(page, last[page], i); i++)
		;
	if (i == WORDS || atomic_fetch_add(&nr_bad, 1) >= MAX_SHOWN)
		return;
	/* an older value is what a page looks like whose dirty bit was lost */
	for (older = last[page]; older > 0 && p[i] != word(page, older - 1, i); older--)
		;
	if (older > 0)
		printf("page %zu: word %zu is of sequence %llu, expected %llu\n", page, i,
			(unsigned long long)(older - 1), (unsigned long long)last[page]);
	else
		printf("page %zu: word %zu is %#llx, sequence %llu expected\n", page, i,
			(unsigned long long)p[i], (unsigned long long)last[page]);
}

static void
page_touch(size_t page)
{
	uint64_t *p = memory + page * WORDS;

	__atomic_store_n(p, *p, __ATOMIC_RELAXED);
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
deadline_wait(struct timespec *deadline)
{
	deadline->tv_nsec += (long)(1000000000ull * BATCH / rate % 1000000000u);
	deadline->tv_sec += (time_t)(BATCH / rate);
	if (deadline->tv_nsec >= 1000000000) {
		deadline->tv_nsec -= 1000000000;
		deadline->tv_sec++;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, deadline, NULL) == EINTR)
		;
}

static void *
writer_main(void *arg)
{
	struct writer *w = arg;
	size_t pages = (nr_pages - w->first + nr_writers - 1) / nr_writers;
	size_t written[BATCH];
	struct timespec deadline;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	while (!atomic_load(&stop)) {
		unsigned int i;

		for (i = 0; i < BATCH; i++) {
			size_t page = w->first + next_random(&w->seed) % pages * nr_writers;

			page_check(page);
			page_fill(page, last[page] + 1);
			written[i] = page;
			w->writes++;
		}
		if (rate == 0)
			continue;
		deadline_wait(&deadline);
		for (i = 0; i < BATCH; i++)
			page_touch(written[i]);
	}
	return NULL;
}

static int
number(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return errno != 0 || end == text || *end != '\0' || *ret > max;
}

static void *
allocate(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

int
main(int argc, char **argv)
{
	struct writer writers[MAX_WRITERS];
	unsigned long mib;
	uint64_t writes = 0;
	sigset_t set;
	size_t i;
	int signum;

	if (argc != 4 || number(argv[1], MAX_MIB, &mib) || mib == 0 ||
		number(argv[2], MAX_WRITERS, &nr_writers) || nr_writers == 0 ||
		number(argv[3], 100000000, &rate)) {
		fprintf(stderr,
			"usage: memdirty MIB WRITERS PAGES_PER_SECOND_AND_WRITER (0: no limit)\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	nr_pages = (size_t)mib << 20 >> 12;
	memory = allocate(nr_pages * PAGE_SIZE);
	last = allocate(nr_pages * sizeof(*last));
	for (i = 0; i < nr_pages; i++)
		page_fill(i, 0);

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < nr_writers; i++) {
		writers[i] = (struct writer){.first = i, .seed = 0x2545f4914f6cdd1du * (i + 1)};
		if (pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]) != 0) {
			fprintf(stderr, "memdirty: no thread\n");
			return 2;
		}
	}
	printf("running\n");
	sigwait(&set, &signum);
	atomic_store(&stop, 1);
	for (i = 0; i < nr_writers; i++) {
		pthread_join(writers[i].thread, NULL);
		writes += writers[i].writes;
	}
	for (i = 0; i < nr_pages; i++)
		page_check(i);
	printf("pages=%zu writes=%llu bad=%lu\n", nr_pages, (unsigned long long)writes,
		atomic_load(&nr_bad));
	return atomic_load(&nr_bad) != 0;
}
