/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Configuration of block devices: "software_dpu.bdevs", and what a block function may say.
 */

#include "config_blk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_QUEUES = 4, DEFAULT_BLOCK_SIZE = 512, MAX_SIZE_MIB = 1 << 30 };

struct raw_bdev {
	struct config_bdev bdev;
	char type[16];
	char io[16];
	uint32_t size_mib;
};

static int
bad_word(struct vfe_error *err, const char *path, const char *key, const char *words,
	const char *got)
{
	return vfe_error_set(err, -EINVAL, "%s.%s: expected %s, got \"%s\"", path, key, words, got);
}

int
config_bdev_type(const char *text, enum bp_disk_type *ret)
{
	static const char *const names[] = {
		[BP_DISK_NULL] = "null",
		[BP_DISK_MEMORY] = "memory",
		[BP_DISK_FILE] = "file",
	};
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], text) == 0) {
			*ret = (enum bp_disk_type)i;
			return 0;
		}
	}
	return -EINVAL;
}

int
config_bdev_io(const char *text, enum bp_io *ret)
{
	static const char *const names[] = {
		[BP_IO_AUTO] = "auto",
		[BP_IO_URING] = "io_uring",
		[BP_IO_THREADS] = "threads",
	};
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], text) == 0) {
			*ret = (enum bp_io)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int
check_bdev(struct raw_bdev *raw, const char *path, struct vfe_error *err)
{
	struct config_bdev *bdev = &raw->bdev;

	if (bdev->name[0] == '\0')
		return vfe_error_set(err, -EINVAL, "%s.name: missing", path);
	if (config_bdev_type(raw->type, &bdev->type) < 0)
		return bad_word(err, path, "type", "\"file\", \"memory\" or \"null\"", raw->type);
	if (raw->io[0] != '\0' && config_bdev_io(raw->io, &bdev->io) < 0)
		return bad_word(err, path, "io", "\"auto\", \"io_uring\" or \"threads\"", raw->io);
	if (bdev->type == BP_DISK_FILE && bdev->path[0] != '/')
		return vfe_error_set(err, -EINVAL, "%s.path: expected an absolute path", path);
	if (bdev->type != BP_DISK_FILE &&
		(bdev->path[0] != '\0' || raw->io[0] != '\0' || bdev->buffered))
		return vfe_error_set(
			err, -EINVAL, "%s: path, io and buffered are for files only", path);
	if (bdev->type != BP_DISK_FILE && raw->size_mib == 0)
		return vfe_error_set(err, -EINVAL, "%s.size_mib: missing", path);
	if (!vfe_is_pow2(bdev->block_size))
		return vfe_error_set(err, -EINVAL, "%s.block_size: %u is not a power of two", path,
			bdev->block_size);
	bdev->size = (uint64_t)raw->size_mib << 20;
	return 0;
}

static int
read_bdev(const json_t *value, const char *path, struct config_bdev *ret, struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"name", json_read_string, offsetof(struct raw_bdev, bdev.name), 0, BP_NAME_SIZE},
		{"type", json_read_string, offsetof(struct raw_bdev, type), 0, 16},
		{"path", json_read_string, offsetof(struct raw_bdev, bdev.path), 0, BP_PATH_SIZE},
		{"size_mib", json_read_u32, offsetof(struct raw_bdev, size_mib), 1, MAX_SIZE_MIB},
		{"block_size", json_read_u32, offsetof(struct raw_bdev, bdev.block_size),
			BP_MIN_BLOCK_SIZE, BP_MAX_BLOCK_SIZE},
		{"read_only", json_read_bool, offsetof(struct raw_bdev, bdev.read_only), 0, 0},
		{"buffered", json_read_bool, offsetof(struct raw_bdev, bdev.buffered), 0, 0},
		{"io", json_read_string, offsetof(struct raw_bdev, io), 0, 16},
	};
	struct raw_bdev raw = {.bdev.block_size = DEFAULT_BLOCK_SIZE};
	int rc = json_read_object(value, path, keys, VFE_ARRAY_SIZE(keys), &raw, err);

	if (rc == 0)
		rc = check_bdev(&raw, path, err);
	if (rc == 0)
		*ret = raw.bdev;
	return rc;
}

int
config_read_bdevs(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	struct config_bdevs *bdevs = out;
	char member[JSON_PATH_MAX];
	unsigned int i, j, n;
	int rc;

	(void)key;
	if (!json_is_array(value) || json_array_size(value) > CONFIG_MAX_BDEVS)
		return vfe_error_set(err, -EINVAL, "%s: expected an array of at most %d", path,
			CONFIG_MAX_BDEVS);
	n = (unsigned int)json_array_size(value);
	bdevs->bdevs = calloc(n + 1u, sizeof(*bdevs->bdevs));
	if (bdevs->bdevs == NULL)
		return vfe_error_set(err, -ENOMEM, "%s: no memory", path);
	for (i = 0; i < n; i++) {
		snprintf(member, sizeof(member), "%s[%u]", path, i);
		rc = read_bdev(json_array_get(value, i), member, &bdevs->bdevs[i], err);
		if (rc < 0)
			return rc;
		bdevs->nr = i + 1;
		for (j = 0; j < i; j++) {
			if (strcmp(bdevs->bdevs[j].name, bdevs->bdevs[i].name) == 0)
				return vfe_error_set(err, -EINVAL, "%s.name: %s is there twice",
					member, bdevs->bdevs[i].name);
		}
	}
	return 0;
}

bool
config_blk_is_given(const struct config_blk *blk)
{
	static const struct config_blk none;

	return memcmp(blk, &none, sizeof(none)) != 0;
}

static int
check_bdev_name(
	const struct config *config, const struct config_function *fn, struct vfe_error *err)
{
	char bdf[VFE_BDF_STR_SIZE];
	unsigned int i;

	if (fn->blk.bdev[0] == '\0')
		return 0;
	for (i = 0; i < config->bdevs.nr; i++) {
		if (strcmp(config->bdevs.bdevs[i].name, fn->blk.bdev) == 0)
			return 0;
	}
	return vfe_error_set(err, -EINVAL, "%s: there is no \"%s\" in software_dpu.bdevs",
		vfe_bdf_format(&fn->bdf, bdf), fn->blk.bdev);
}

int
config_blk_derive(const struct config *config, struct config_function *fn,
	const struct config_function *pf, struct vfe_error *err)
{
	char bdf[VFE_BDF_STR_SIZE];

	if (fn->blk.num_queues == 0)
		fn->blk.num_queues = pf != NULL ? pf->blk.num_queues : DEFAULT_QUEUES;
	if (pf != NULL && fn->blk.num_queues > pf->blk.num_queues)
		return vfe_error_set(err, -EINVAL, "%s: num_queues %u is more than %u of its PF",
			vfe_bdf_format(&fn->bdf, bdf), fn->blk.num_queues, pf->blk.num_queues);
	fn->features = UINT64_MAX;
	fn->backend.type = DP_BACKEND_NULL;
	return check_bdev_name(config, fn, err);
}
