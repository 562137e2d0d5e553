/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Maps of dirty pages: marking, and merging one map into another.
 *
 * Most of a map is clean most of the time. So maps are looked at in blocks of two cache lines with
 * the widest loads that every CPU has, and only a block that is not clean is gone through word by
 * word. The look is a hint: a bit that a device sets meanwhile is found by the next one.
 */

#include "vfe_dirty_log.h"

#include <assert.h>
#include <errno.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "maps are little-endian");

typedef uint64_t dirty_vec __attribute__((vector_size(16), aligned(8), may_alias));

enum {
	WORD_PAGES = 64,
	BLOCK_WORDS = 16,
	BLOCK_VECS = BLOCK_WORDS * sizeof(uint64_t) / sizeof(dirty_vec),
	WORD_BYTES = sizeof(uint64_t), /* pages of a word of a map of bytes */
};

static inline void
log_or(const struct vfe_dirty_log *log, uint64_t word, uint64_t bits)
{
	if (word < log->words)
		__atomic_fetch_or(&log->map[word], bits, __ATOMIC_RELEASE);
}

/* Bits @first to @last of a word. */
static inline uint64_t
bits_between(uint64_t first, uint64_t last)
{
	return (UINT64_MAX << first) & (UINT64_MAX >> (WORD_PAGES - 1 - last));
}

int
vfe_dirty_log_mark(const struct vfe_dirty_log *log, uint64_t addr, uint64_t len)
{
	const uint64_t pages = (uint64_t)log->words * WORD_PAGES;
	uint64_t first, last, word, end;
	int rc = 0;

	if (len == 0)
		return 0;
	end = len - 1 > UINT64_MAX - addr ? UINT64_MAX : addr + len - 1;
	if (end != addr + len - 1)
		rc = -ERANGE;
	first = addr >> VFE_DIRTY_PAGE_SHIFT;
	last = end >> VFE_DIRTY_PAGE_SHIFT;
	if (last >= pages)
		rc = -ERANGE;
	if (first >= pages)
		return rc;
	if (last >= pages)
		last = pages - 1;

	for (word = first / WORD_PAGES; word <= last / WORD_PAGES; word++) {
		const uint64_t at = word * WORD_PAGES;

		log_or(log, word,
			bits_between(first > at ? first - at : 0,
				last - at < WORD_PAGES ? last - at : WORD_PAGES - 1));
	}
	return rc;
}

static inline bool
block_is_clean(const uint64_t *words)
{
	const dirty_vec *v = (const dirty_vec *)(const void *)words;
	dirty_vec any = v[0];
	uint32_t i;

	for (i = 1; i < BLOCK_VECS; i++)
		any |= v[i];
	return (any[0] | any[1]) == 0;
}

/* The word at @p; with @take, 0 is there afterwards. */
static inline uint64_t
word_get(uint64_t *p, const bool take)
{
	uint64_t v = __atomic_load_n(p, __ATOMIC_RELAXED);

	if (v == 0 || !take)
		return v;
	return __atomic_exchange_n(p, 0, __ATOMIC_ACQUIRE);
}

/* OR @n words into the log from its word @at on. */
static inline uint64_t
words_merge(const struct vfe_dirty_log *log, uint64_t *map, size_t n, uint64_t at, const bool take)
{
	uint64_t bits, pages = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		bits = word_get(&map[i], take);
		if (bits == 0)
			continue;
		log_or(log, at + i, bits);
		pages += (uint64_t)__builtin_popcountll(bits);
	}
	return pages;
}

/*
 * The same for a block. Which of its words are dirty is not predictable, so they are found without
 * branches first.
 */
static inline uint64_t
block_merge(const struct vfe_dirty_log *log, uint64_t *map, uint64_t at, const bool take)
{
	uint32_t i, dirty = 0;
	uint64_t pages = 0;

	for (i = 0; i < BLOCK_WORDS; i++)
		dirty |= (uint32_t)(map[i] != 0) << i;
	for (; dirty != 0; dirty &= dirty - 1) {
		i = (uint32_t)__builtin_ctz(dirty);
		pages += words_merge(log, &map[i], 1, at + i, take);
	}
	return pages;
}

static inline uint64_t
map_merge(const struct vfe_dirty_log *log, uint64_t *map, size_t words, uint64_t first_page,
	const bool take)
{
	const uint64_t at = first_page / WORD_PAGES;
	uint64_t pages = 0;
	size_t i;

	assert(first_page % WORD_PAGES == 0);
	for (i = 0; words - i >= BLOCK_WORDS; i += BLOCK_WORDS) {
		if (vfe_unlikely(!block_is_clean(&map[i])))
			pages += block_merge(log, &map[i], at + i, take);
	}
	return pages + words_merge(log, &map[i], words - i, at + i, take);
}

uint64_t
vfe_dirty_log_merge(
	const struct vfe_dirty_log *log, const uint64_t *map, size_t words, uint64_t first_page)
{
	/* not written to without take */
	return map_merge(log, (uint64_t *)(uintptr_t)map, words, first_page, false);
}

uint64_t
vfe_dirty_log_take(
	const struct vfe_dirty_log *log, uint64_t *map, size_t words, uint64_t first_page)
{
	return map_merge(log, map, words, first_page, true);
}

/* One bit for each byte of @bytes that is not 0, the first byte's lowest. */
static inline uint64_t
bits_of_bytes(uint64_t bytes)
{
	const uint64_t ones = 0x0101010101010101;

	bytes |= bytes >> 4;
	bytes |= bytes >> 2;
	bytes |= bytes >> 1;
	/* byte i, now 0 or 1, goes to bit 56 + i */
	return ((bytes & ones) * 0x0102040810204080) >> 56;
}

/* Up to WORD_PAGES bytes at @map are one word of the log. */
static inline uint64_t
bytes_merge(const struct vfe_dirty_log *log, uint8_t *map, size_t n, uint64_t at, const bool take)
{
	uint64_t bits = 0;
	size_t i;

	for (i = 0; n - i >= WORD_BYTES; i += WORD_BYTES)
		bits |= bits_of_bytes(word_get((uint64_t *)(void *)&map[i], take)) << i;
	for (; i < n; i++) {
		uint8_t dirty = take ? __atomic_exchange_n(&map[i], 0, __ATOMIC_ACQUIRE)
				     : __atomic_load_n(&map[i], __ATOMIC_RELAXED);

		bits |= (uint64_t)(dirty != 0) << i;
	}
	if (bits == 0)
		return 0;
	log_or(log, at, bits);
	return (uint64_t)__builtin_popcountll(bits);
}

static inline uint64_t
bytemap_merge(const struct vfe_dirty_log *log, uint8_t *map, size_t n, uint64_t first_page,
	const bool take)
{
	const size_t block = BLOCK_WORDS * WORD_BYTES;
	uint64_t pages = 0;
	size_t i, part;

	assert(first_page % WORD_PAGES == 0 && (uintptr_t)map % WORD_BYTES == 0);
	for (i = 0; i < n; i += part) {
		part = n - i < WORD_PAGES ? n - i : WORD_PAGES;
		if (n - i >= block && block_is_clean((const uint64_t *)(void *)&map[i]))
			part = block;
		else
			pages += bytes_merge(
				log, &map[i], part, (first_page + i) / WORD_PAGES, take);
	}
	return pages;
}

uint64_t
vfe_dirty_log_merge_bytes(
	const struct vfe_dirty_log *log, const uint8_t *map, size_t pages, uint64_t first_page)
{
	return bytemap_merge(log, (uint8_t *)(uintptr_t)map, pages, first_page, false);
}

uint64_t
vfe_dirty_log_take_bytes(
	const struct vfe_dirty_log *log, uint8_t *map, size_t pages, uint64_t first_page)
{
	return bytemap_merge(log, map, pages, first_page, true);
}
