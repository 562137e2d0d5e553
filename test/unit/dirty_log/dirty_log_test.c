/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of lib/dirty_log: edges of ranges and maps against a bit-by-bit model, and that nothing is
 * lost while one thread marks and another takes.
 */

#undef NDEBUG

#include "vfe_dirty_log.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
	WORDS = 83, /* no multiple of anything */
	PAGES = WORDS * 64,
	PAGE = VFE_DIRTY_PAGE_SIZE,
	GUARD = 4, /* words behind a log that nobody may touch */
};

static const uint64_t GUARD_VALUE = 0xdeadbeefdeadbeef;

struct fixture {
	uint64_t words[WORDS + GUARD];
	struct vfe_dirty_log log;
	uint64_t map[WORDS + 64];
	uint8_t bytes[PAGES + 64] __attribute__((aligned(8)));
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int i;

	assert_non_null(f);
	for (i = 0; i < GUARD; i++)
		f->words[WORDS + i] = GUARD_VALUE;
	f->log = (struct vfe_dirty_log){f->words, WORDS};
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	int i;

	for (i = 0; i < GUARD; i++)
		assert_true(f->words[WORDS + i] == GUARD_VALUE);
	free(f);
	return 0;
}

static bool
is_dirty(const struct fixture *f, uint64_t page)
{
	return ((const uint8_t *)f->words)[page / 8] >> page % 8 & 1;
}

/* Exactly the pages @first to @last are dirty. */
static void
assert_dirty(const struct fixture *f, uint64_t first, uint64_t last)
{
	uint64_t page;

	for (page = 0; page < PAGES; page++)
		assert_int_equal(is_dirty(f, page), page >= first && page <= last);
}

static uint64_t
random_next(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

static void
mark_has_exact_edges(void **state)
{
	static const struct {
		uint64_t addr, len, first, last;
	} cases[] = {
		{0, 1, 0, 0},
		{PAGE - 1, 1, 0, 0},
		{PAGE - 1, 2, 0, 1},
		{PAGE, PAGE, 1, 1},
		{63 * PAGE, PAGE + 1, 63, 64},
		{64 * PAGE, 64 * PAGE, 64, 127},
		{10 * PAGE, 300 * PAGE, 10, 309},
		{0, (uint64_t)PAGES * PAGE, 0, PAGES - 1},
		{(uint64_t)(PAGES - 1) * PAGE + PAGE - 1, 1, PAGES - 1, PAGES - 1},
	};
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(cases); i++) {
		memset(f->words, 0, WORDS * sizeof(f->words[0]));
		assert_int_equal(vfe_dirty_log_mark(&f->log, cases[i].addr, cases[i].len), 0);
		assert_dirty(f, cases[i].first, cases[i].last);
	}
}

static void
mark_of_nothing_marks_nothing(void **state)
{
	struct fixture *f = *state;
	struct vfe_dirty_log empty = {NULL, 0};

	assert_int_equal(vfe_dirty_log_mark(&f->log, 5 * PAGE + 17, 0), 0);
	assert_int_equal(vfe_dirty_log_mark(&f->log, UINT64_MAX, 0), 0);
	assert_int_equal(vfe_dirty_log_mark(&empty, 0, 1), -ERANGE);
	assert_dirty(f, 1, 0);
}

static void
mark_outside_the_log_is_told(void **state)
{
	const uint64_t end = (uint64_t)PAGES * PAGE;
	struct fixture *f = *state;

	assert_int_equal(vfe_dirty_log_mark(&f->log, end, 1), -ERANGE);
	assert_int_equal(vfe_dirty_log_mark(&f->log, UINT64_MAX, 1), -ERANGE);
	assert_int_equal(vfe_dirty_log_mark(&f->log, UINT64_MAX, 2), -ERANGE);
	assert_int_equal(vfe_dirty_log_mark(&f->log, UINT64_MAX - 7, UINT64_MAX), -ERANGE);
	assert_dirty(f, 1, 0);
	assert_int_equal(vfe_dirty_log_mark(&f->log, end - PAGE - 1, PAGE + 2), -ERANGE);
	assert_dirty(f, PAGES - 2, PAGES - 1);
	/* around the end of the address space: what is inside is marked */
	assert_int_equal(vfe_dirty_log_mark(&f->log, 3 * PAGE, UINT64_MAX), -ERANGE);
	assert_dirty(f, 3, PAGES - 1);
}

/* @f->map has @words random words, of which most are clean; returns the number of bits. */
static uint64_t
fill_map(struct fixture *f, size_t words, uint64_t *seed)
{
	uint64_t pages = 0;
	size_t i;

	for (i = 0; i < words; i++) {
		f->map[i] = random_next(seed) % 5 == 0
				    ? VFE_BIT(random_next(seed) % 64) | random_next(seed)
				    : 0;
		pages += (uint64_t)__builtin_popcountll(f->map[i]);
	}
	return pages;
}

static void
merge_equals_a_plain_or(void **state)
{
	struct fixture *f = *state;
	uint64_t expected[WORDS], before[WORDS + 64], seed = 7, pages;
	size_t words, at, i;

	for (words = 0; words <= 70; words++) {
		at = words % 5 * 3;
		pages = fill_map(f, words, &seed);
		memcpy(before, f->map, sizeof(before));
		for (i = 0; i < WORDS; i++)
			expected[i] = f->words[i] = random_next(&seed) % 3;
		for (i = 0; i < words && at + i < WORDS; i++)
			expected[at + i] |= f->map[i];

		assert_true(vfe_dirty_log_merge(&f->log, f->map, words, at * 64) == pages);
		assert_memory_equal(f->words, expected, sizeof(expected));
		assert_memory_equal(f->map, before, sizeof(before));
		/* taken: the same, and the map is clean up to its end and no further */
		f->map[words] = 1;
		assert_true(vfe_dirty_log_take(&f->log, f->map, words, at * 64) == pages);
		assert_memory_equal(f->words, expected, sizeof(expected));
		for (i = 0; i < words; i++)
			assert_true(f->map[i] == 0);
		assert_true(f->map[words] == 1);
	}
}

static void
merge_beyond_the_log_counts_and_marks_not(void **state)
{
	struct fixture *f = *state;

	memset(f->map, 0xff, sizeof(f->map));
	assert_int_equal(vfe_dirty_log_merge(&f->log, f->map, 40, PAGES - 64), 40 * 64);
	assert_dirty(f, PAGES - 64, PAGES - 1);
	assert_int_equal(vfe_dirty_log_merge(&f->log, f->map, 1, UINT64_MAX - 63), 64);
	assert_int_equal(vfe_dirty_log_take(&f->log, f->map, 2, PAGES), 128);
	assert_dirty(f, PAGES - 64, PAGES - 1);
}

static void
merge_sees_each_single_bit(void **state)
{
	struct fixture *f = *state;
	uint64_t page;

	for (page = 0; page < PAGES; page++) {
		f->map[page / 64] = VFE_BIT(page % 64);
		assert_int_equal(vfe_dirty_log_take(&f->log, f->map, WORDS, 0), 1);
		assert_true(f->words[page / 64] == VFE_BIT(page % 64));
		f->words[page / 64] = 0;
		f->bytes[page] = (uint8_t)(page % 255 + 1);
		assert_int_equal(vfe_dirty_log_take_bytes(&f->log, f->bytes, PAGES, 0), 1);
		assert_true(f->words[page / 64] == VFE_BIT(page % 64));
		assert_int_equal(f->bytes[page], 0);
		f->words[page / 64] = 0;
	}
}

static void
bytes_equal_a_plain_or(void **state)
{
	struct fixture *f = *state;
	uint64_t seed = 99, pages, first;
	uint8_t before[PAGES + 64];
	size_t n, i;

	for (n = 0; n <= 300; n += 1 + n / 130 * 7) {
		first = n % 3 * 64;
		pages = 0;
		memset(f->words, 0, WORDS * sizeof(f->words[0]));
		for (i = 0; i < n; i++) {
			f->bytes[i] = random_next(&seed) % 9 == 0 ? (uint8_t)random_next(&seed) : 0;
			pages += f->bytes[i] != 0;
		}
		f->bytes[n] = 1;
		memcpy(before, f->bytes, sizeof(before));
		assert_true(vfe_dirty_log_merge_bytes(&f->log, f->bytes, n, first) == pages);
		assert_memory_equal(f->bytes, before, sizeof(before));
		for (i = 0; i < PAGES; i++)
			assert_int_equal(is_dirty(f, i),
				i >= first && i - first < n && before[i - first] != 0);

		memset(f->words, 0, WORDS * sizeof(f->words[0]));
		assert_true(vfe_dirty_log_take_bytes(&f->log, f->bytes, n, first) == pages);
		for (i = 0; i < n; i++) {
			assert_int_equal(is_dirty(f, first + i), before[i] != 0);
			assert_int_equal(f->bytes[i], 0);
		}
		assert_int_equal(f->bytes[n], 1);
	}
}

static void
bytes_beyond_the_log_count_and_mark_not(void **state)
{
	struct fixture *f = *state;

	memset(f->bytes, 1, sizeof(f->bytes));
	assert_int_equal(vfe_dirty_log_merge_bytes(&f->log, f->bytes, 200, PAGES - 64), 200);
	assert_dirty(f, PAGES - 64, PAGES - 1);
	assert_int_equal(vfe_dirty_log_take_bytes(&f->log, f->bytes, 70, PAGES), 70);
	assert_dirty(f, PAGES - 64, PAGES - 1);
}

/*
 * A device changes pages and marks them in its map; a collector takes that map into the log, and
 * a migration source copies what the log says. In the end the copy is equal.
 */
struct race {
	struct fixture *f;
	bool bytes;
	atomic_bool stop;
	_Atomic uint32_t data[PAGES];
	uint32_t copy[PAGES];
};

static void *
device(void *arg)
{
	struct race *r = arg;
	const struct vfe_dirty_log map = {r->f->map, WORDS};
	uint64_t seed = 4711, page;
	uint32_t i;

	for (i = 1; i <= 300000; i++) {
		page = i % 3 == 0 ? random_next(&seed) % PAGES : i % 64;
		atomic_store_explicit(&r->data[page], i, memory_order_relaxed);
		if (r->bytes)
			__atomic_store_n(&r->f->bytes[page], 1, __ATOMIC_RELEASE);
		else
			vfe_dirty_log_mark(&map, page * PAGE, 1);
	}
	atomic_store(&r->stop, true);
	return NULL;
}

static void
collect_and_copy(struct race *r)
{
	uint64_t bits;
	uint32_t i, page;

	if (r->bytes)
		vfe_dirty_log_take_bytes(&r->f->log, r->f->bytes, PAGES, 0);
	else
		vfe_dirty_log_take(&r->f->log, r->f->map, WORDS, 0);
	for (i = 0; i < WORDS; i++) {
		bits = __atomic_exchange_n(&r->f->words[i], 0, __ATOMIC_SEQ_CST);
		for (; bits != 0; bits &= bits - 1) {
			page = i * 64 + (uint32_t)__builtin_ctzll(bits);
			r->copy[page] = atomic_load(&r->data[page]);
		}
	}
}

static void
run_race(struct fixture *f, bool bytes)
{
	struct race *r = calloc(1, sizeof(*r));
	pthread_t thread;
	uint32_t i;
	bool last;

	assert_non_null(r);
	r->f = f;
	r->bytes = bytes;
	assert_int_equal(pthread_create(&thread, NULL, device, r), 0);
	do {
		last = atomic_load(&r->stop);
		collect_and_copy(r);
	} while (!last);
	pthread_join(thread, NULL);
	for (i = 0; i < PAGES; i++)
		assert_int_equal(r->copy[i], atomic_load(&r->data[i]));
	free(r);
}

static void
no_bit_is_lost_between_mark_and_take(void **state)
{
	run_race(*state, false);
}

static void
no_byte_is_lost_between_mark_and_take(void **state)
{
	run_race(*state, true);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mark_has_exact_edges),
		TEST(mark_of_nothing_marks_nothing),
		TEST(mark_outside_the_log_is_told),
		TEST(merge_equals_a_plain_or),
		TEST(merge_beyond_the_log_counts_and_marks_not),
		TEST(merge_sees_each_single_bit),
		TEST(bytes_equal_a_plain_or),
		TEST(bytes_beyond_the_log_count_and_mark_not),
		TEST(no_bit_is_lost_between_mark_and_take),
		TEST(no_byte_is_lost_between_mark_and_take),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
