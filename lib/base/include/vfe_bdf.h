/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * PCI function addresses: parsing, printing, and the routing ids of SR-IOV virtual functions.
 */

#ifndef VFE_BDF_H
#define VFE_BDF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VFE_BDF_STR_SIZE = 17 }; /* "ffffffff:ff:1f.7" and its terminator */

struct vfe_bdf {
	uint32_t domain;
	uint8_t bus;
	uint8_t dev; /* 0..31 */
	uint8_t fn;  /* 0..7 */
};

/*
 * Parse "0000:af:00.2" or "af:00.2" (domain 0); hexadecimal, nothing may follow.
 * Returns 0 or -EINVAL, and then @ret is untouched.
 */
int vfe_bdf_parse(const char *str, struct vfe_bdf *ret);

/* Print as "0000:af:00.2" into @dst of VFE_BDF_STR_SIZE bytes; returns @dst. */
char *vfe_bdf_format(const struct vfe_bdf *bdf, char dst[VFE_BDF_STR_SIZE]);

static inline bool
vfe_bdf_equal(const struct vfe_bdf *a, const struct vfe_bdf *b)
{
	return a->domain == b->domain && a->bus == b->bus && a->dev == b->dev && a->fn == b->fn;
}

/* Routing id (PCIe 6.0 section 2.2.4.2): bus in bits 15:8, device in 7:3, function in 2:0. */
static inline uint16_t
vfe_bdf_rid(const struct vfe_bdf *bdf)
{
	return (uint16_t)(bdf->bus << 8 | bdf->dev << 3 | bdf->fn);
}

static inline struct vfe_bdf
vfe_bdf_from_rid(uint32_t domain, uint16_t rid)
{
	return (struct vfe_bdf){
		domain, (uint8_t)(rid >> 8), (uint8_t)(rid >> 3 & 31), (uint8_t)(rid & 7)};
}

#endif /* VFE_BDF_H */
