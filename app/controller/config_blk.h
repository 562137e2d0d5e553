/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What config.c needs of the configuration of block devices.
 */

#ifndef CONTROLLER_CONFIG_BLK_H
#define CONTROLLER_CONFIG_BLK_H

#include <stddef.h>

#include "config.h"
#include "config_json.h"

enum { CONFIG_MAX_SEG = 1000, CONFIG_MIN_SIZE_MAX = 4096, CONFIG_MAX_SIZE_MAX = 1 << 30 };

/* Keys of a block function, with its struct config_blk at @base of what is read. */
#define CONFIG_BLK_KEYS(base)                                                                      \
	{"bdev", json_read_string, (base) + offsetof(struct config_blk, bdev), 0, BP_NAME_SIZE},   \
		{"num_queues", json_read_u32, (base) + offsetof(struct config_blk, num_queues), 1, \
			BP_MAX_QUEUES},                                                            \
		{"seg_max", json_read_u32, (base) + offsetof(struct config_blk, seg_max), 1,       \
			CONFIG_MAX_SEG},                                                           \
		{"size_max", json_read_u32, (base) + offsetof(struct config_blk, size_max),        \
			CONFIG_MIN_SIZE_MAX, CONFIG_MAX_SIZE_MAX},                                 \
		{"vblk_id", json_read_string, (base) + offsetof(struct config_blk, vblk_id), 0,    \
			BP_ID_SIZE + 1},                                                           \
		{"read_only", json_read_bool, (base) + offsetof(struct config_blk, read_only), 0,  \
			0},                                                                        \
	{                                                                                          \
		"force_in_order", json_read_bool, (base) + offsetof(struct config_blk, in_order),  \
			0, 0                                                                       \
	}

/* "software_dpu.bdevs" into a struct config_bdevs. */
int config_read_bdevs(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err);

/* Is any of the keys there? */
bool config_blk_is_given(const struct config_blk *blk);

/* Defaults of a block function (@pf: of a VF), and checks. 0 or -EINVAL with a text. */
int config_blk_derive(const struct config *config, struct config_function *fn,
	const struct config_function *pf, struct vfe_error *err);

/* "null", "auto", ... 0 or -EINVAL. */
int config_bdev_type(const char *text, enum bp_disk_type *ret);
int config_bdev_io(const char *text, enum bp_io *ret);

#endif /* CONTROLLER_CONFIG_BLK_H */
