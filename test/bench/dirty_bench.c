/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * How fast maps of dirty pages are merged into a log. A line per run: what, how dirty, GB of guest
 * memory per second of the merge, of its floor, and of a plain scan of the same map.
 *
 * The floor is the scan, and then the atomic operations on the words that are dirty, which are
 * known without looking: OR into the log, and exchange in the map if a device writes to that.
 *
 * usage: dirty-bench GIB RUNS
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfe_dirty_log.h"

enum {
	WORD_PAGES = 64,
	SPARSE = 1000,    /* one page of so many is dirty */
	MIN_NS = 4000000, /* of one measurement */
	MIN_PASSES = 9,
	MAX_PASSES = 4096,
};

struct maps {
	size_t words;
	uint64_t *log;
	uint64_t *bits, *bits_copy;
	uint8_t *bytes, *bytes_copy;
	size_t *dirty; /* words of the log */
	size_t nr_dirty;
	size_t *dirty8; /* words of the map of bytes */
	size_t nr_dirty8;
};

enum density { CLEAN, SPARSELY, HALF, NR_DENSITIES };
static const char *const density_names[] = {"clean", "sparse", "half"};

static volatile uint64_t sink; /* so that the compiler does not leave the scans out */

static uint64_t
random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void
fill(struct maps *m, enum density density)
{
	uint64_t state = 88172645463325252, pages = (uint64_t)m->words * WORD_PAGES, i;
	bool dirty;

	for (i = 0; i < pages; i++) {
		dirty = density != CLEAN &&
			random_next(&state) % (density == HALF ? 2 : SPARSE) == 0;
		if (i % WORD_PAGES == 0)
			m->bits_copy[i / WORD_PAGES] = 0;
		m->bits_copy[i / WORD_PAGES] |= (uint64_t)dirty << i % WORD_PAGES;
		m->bytes_copy[i] = dirty;
	}
	m->nr_dirty = 0;
	m->nr_dirty8 = 0;
	for (i = 0; i < m->words; i++) {
		if (m->bits_copy[i] != 0)
			m->dirty[m->nr_dirty++] = i;
	}
	for (i = 0; i < pages / 8; i++) {
		if (((const uint64_t *)(const void *)m->bytes_copy)[i] != 0)
			m->dirty8[m->nr_dirty8++] = i;
	}
}

static void
refill(struct maps *m)
{
	memcpy(m->bits, m->bits_copy, m->words * sizeof(*m->bits));
	memcpy(m->bytes, m->bytes_copy, m->words * WORD_PAGES);
}

/* --- what is measured: one pass over the maps --- */

static uint64_t
scan(const uint64_t *map, size_t words)
{
	uint64_t any = 0;
	size_t i;

	for (i = 0; i < words; i++)
		any |= map[i];
	return any;
}

static void
scan_bits(struct maps *m)
{
	sink = scan(m->bits, m->words);
}

static void
scan_bytes(struct maps *m)
{
	sink = scan(
		(const uint64_t *)(const void *)m->bytes, m->words * WORD_PAGES / sizeof(uint64_t));
}

static void
merge(struct maps *m)
{
	const struct vfe_dirty_log log = {m->log, m->words};

	sink = vfe_dirty_log_merge(&log, m->bits, m->words, 0);
}

static void
take(struct maps *m)
{
	const struct vfe_dirty_log log = {m->log, m->words};

	sink = vfe_dirty_log_take(&log, m->bits, m->words, 0);
}

static void
merge_bytes(struct maps *m)
{
	const struct vfe_dirty_log log = {m->log, m->words};

	sink = vfe_dirty_log_merge_bytes(&log, m->bytes, m->words * WORD_PAGES, 0);
}

static void
take_bytes(struct maps *m)
{
	const struct vfe_dirty_log log = {m->log, m->words};

	sink = vfe_dirty_log_take_bytes(&log, m->bytes, m->words * WORD_PAGES, 0);
}

static void
or_dirty(struct maps *m)
{
	size_t i;

	for (i = 0; i < m->nr_dirty; i++)
		__atomic_fetch_or(
			&m->log[m->dirty[i]], m->bits_copy[m->dirty[i]], __ATOMIC_RELEASE);
}

static void
floor_merge(struct maps *m)
{
	scan_bits(m);
	or_dirty(m);
}

static void
floor_take(struct maps *m)
{
	size_t i;

	scan_bits(m);
	for (i = 0; i < m->nr_dirty; i++)
		sink = __atomic_exchange_n(&m->bits[m->dirty[i]], 0, __ATOMIC_ACQUIRE);
	or_dirty(m);
}

static void
floor_merge_bytes(struct maps *m)
{
	scan_bytes(m);
	or_dirty(m);
}

static void
floor_take_bytes(struct maps *m)
{
	uint64_t *words = (uint64_t *)(void *)m->bytes;
	size_t i;

	scan_bytes(m);
	for (i = 0; i < m->nr_dirty8; i++)
		sink = __atomic_exchange_n(&words[m->dirty8[i]], 0, __ATOMIC_ACQUIRE);
	or_dirty(m);
}

static const struct bench {
	const char *name;
	void (*run)(struct maps *m);
	void (*floor)(struct maps *m);
	void (*scan)(struct maps *m);
	bool takes; /* the map is to be filled again */
} benches[] = {
	{"merge", merge, floor_merge, scan_bits, false},
	{"take", take, floor_take, scan_bits, true},
	{"merge_bytes", merge_bytes, floor_merge_bytes, scan_bytes, false},
	{"take_bytes", take_bytes, floor_take_bytes, scan_bytes, true},
};

static int
compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* GB of guest memory per second, of the median pass. */
static double
measure(struct maps *m, void (*run)(struct maps *m), bool takes)
{
	static uint64_t times[MAX_PASSES];
	const double bytes = (double)m->words * WORD_PAGES * VFE_DIRTY_PAGE_SIZE;
	uint64_t total = 0, begin;
	size_t n;

	run(m);
	for (n = 0; n < MAX_PASSES && (total < MIN_NS || n < MIN_PASSES); n++) {
		if (takes)
			refill(m);
		begin = vfe_clock_ns();
		run(m);
		times[n] = vfe_clock_ns() - begin;
		total += times[n];
	}
	qsort(times, n, sizeof(*times), compare);
	return bytes / (double)times[n / 2];
}

static void
bench_all(struct maps *m, enum density density, unsigned int runs)
{
	double ours, floor, scanned;
	const struct bench *b;
	unsigned int i, run;

	fill(m, density);
	for (i = 0; i < VFE_ARRAY_SIZE(benches); i++) {
		b = &benches[i];
		for (run = 0; run < runs; run++) {
			refill(m);
			scanned = measure(m, b->scan, b->takes);
			floor = measure(m, b->floor, b->takes);
			ours = measure(m, b->run, b->takes);
			printf("%s %s %.1f %.1f %.1f\n", b->name, density_names[density], ours,
				floor, scanned);
		}
	}
}

int
main(int argc, char **argv)
{
	struct maps m = {0};
	unsigned long gib, runs;
	int density, ret = 1;

	if (argc != 3) {
		fprintf(stderr, "usage: dirty-bench GIB RUNS\n");
		return 2;
	}
	gib = strtoul(argv[1], NULL, 10);
	runs = strtoul(argv[2], NULL, 10);
	if (gib == 0 || gib > 16384 || runs == 0 || runs > 1000) {
		fprintf(stderr, "dirty-bench: GIB is 1 to 16384, RUNS 1 to 1000\n");
		return 2;
	}
	m.words = (gib << 30) / VFE_DIRTY_PAGE_SIZE / WORD_PAGES;
	m.log = aligned_alloc(4096, m.words * sizeof(uint64_t));
	m.bits = aligned_alloc(4096, m.words * sizeof(uint64_t));
	m.bits_copy = aligned_alloc(4096, m.words * sizeof(uint64_t));
	m.bytes = aligned_alloc(4096, m.words * WORD_PAGES);
	m.bytes_copy = aligned_alloc(4096, m.words * WORD_PAGES);
	m.dirty = calloc(m.words, sizeof(*m.dirty));
	m.dirty8 = calloc(m.words * WORD_PAGES / 8, sizeof(*m.dirty8));
	if (m.dirty == NULL || m.dirty8 == NULL || m.log == NULL || m.bits == NULL ||
		m.bits_copy == NULL || m.bytes == NULL || m.bytes_copy == NULL) {
		fprintf(stderr, "dirty-bench: out of memory\n");
		goto err_free;
	}
	memset(m.log, 0, m.words * sizeof(uint64_t));
	for (density = CLEAN; density < NR_DENSITIES; density++)
		bench_all(&m, (enum density)density, (unsigned int)runs);
	ret = 0;

err_free:
	free(m.log);
	free(m.bits);
	free(m.bits_copy);
	free(m.bytes);
	free(m.bytes_copy);
	free(m.dirty);
	free(m.dirty8);
	return ret;
}
