/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * virtio-blk (virtio 1.4 section 5.2): features, configuration space, requests. Little-endian.
 */

#ifndef VFE_WIRE_BLK_H
#define VFE_WIRE_BLK_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VFE_BLK_F_SIZE_MAX = 1,
	VFE_BLK_F_SEG_MAX = 2,
	VFE_BLK_F_RO = 5,
	VFE_BLK_F_BLK_SIZE = 6,
	VFE_BLK_F_FLUSH = 9,
	VFE_BLK_F_TOPOLOGY = 10,
	VFE_BLK_F_CONFIG_WCE = 11,
	VFE_BLK_F_MQ = 12,
	VFE_BLK_F_DISCARD = 13,
	VFE_BLK_F_WRITE_ZEROES = 14,
};

/* struct virtio_blk_config (section 5.2.4), without zoned fields. */
struct vfe_wire_blk_config {
	uint64_t capacity; /* sectors of 512 bytes */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads;
	uint8_t sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
	uint32_t max_secure_erase_sectors;
	uint32_t max_secure_erase_seg;
	uint32_t secure_erase_sector_alignment;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_blk_config) == 72, "virtio 5.2.4");
static_assert(offsetof(struct vfe_wire_blk_config, blk_size) == 20, "virtio 5.2.4");
static_assert(offsetof(struct vfe_wire_blk_config, num_queues) == 34, "virtio 5.2.4");
static_assert(offsetof(struct vfe_wire_blk_config, write_zeroes_may_unmap) == 56, "virtio 5.2.4");

/* Type of a request (section 5.2.6). */
enum {
	VFE_BLK_T_IN = 0,
	VFE_BLK_T_OUT = 1,
	VFE_BLK_T_FLUSH = 4,
	VFE_BLK_T_GET_ID = 8,
	VFE_BLK_T_DISCARD = 11,
	VFE_BLK_T_WRITE_ZEROES = 13,
};

/* Status byte at the end of a request. */
enum {
	VFE_BLK_S_OK = 0,
	VFE_BLK_S_IOERR = 1,
	VFE_BLK_S_UNSUPP = 2,
};

enum {
	VFE_BLK_SECTOR_SIZE = 512,
	VFE_BLK_ID_SIZE = 20,
	VFE_BLK_RANGE_F_UNMAP = 1, /* WRITE_ZEROES only */
};

/* Begin of a request. */
struct vfe_wire_blk_hdr {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};
static_assert(sizeof(struct vfe_wire_blk_hdr) == 16, "virtio 5.2.6");

/* Payload of DISCARD and WRITE_ZEROES: an array of these. */
struct vfe_wire_blk_range {
	uint64_t sector;
	uint32_t num_sectors;
	uint32_t flags;
};
static_assert(sizeof(struct vfe_wire_blk_range) == 16, "virtio 5.2.6");

#endif /* VFE_WIRE_BLK_H */
