/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Configuration file of the controller: JSON with the keys of the user guide and "software_dpu".
 */

#include "config.h"

#include "config_blk.h"
#include "config_json.h"
#include "vfe_wire_admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	DEFAULT_MTU = 1500,
	MIN_MTU = 68,
	MAX_MTU = 9216,
	MAX_MSIX = 2048,
	MAX_DRAIN_MS = 60000,
	DEFAULT_DRAIN_MS = 5000,
	DEFAULT_SPIN_US = 100,
	IB_DEV_SIZE = 32,
	ALL_DIRTY_MODES = 0x1e,
};

/* A number that the file does not have. */
#define NONE UINT32_MAX

/* What the file says, before anything is derived from it. */
struct raw_backend {
	char type[16];
	char name[IFNAMSIZ];
};

struct raw_vf {
	bool present;
	struct raw_backend backend;
	struct config_blk blk;
};

struct raw_pf {
	struct vfe_bdf bdf;
	struct vfe_bdf first_vf;
	bool has_bdf;
	bool has_first_vf;
	char type[16];
	uint32_t vf_stride;
	uint32_t mtu;
	uint32_t qp_num;
	uint32_t num_vfs;
	bool is_blk;
	struct raw_backend backend;
	struct config_blk blk;
	struct raw_vf *vfs; /* CONFIG_MAX_VFS, allocated when the file has some */
};

struct raw_pfs {
	unsigned int nr;
	struct raw_pf pfs[CONFIG_MAX_PFS];
};

struct raw_class {
	uint8_t mac_base[6];
	uint64_t features;
	uint32_t vfs_per_pf;
	uint32_t qp_num;
};

struct raw {
	char ib_dev[4][IB_DEV_SIZE]; /* p0, p1, lag, for_static_pf */
	bool flags[4];               /* is_lag, recovery, sf_pool_force_destroy, single_port */
	uint32_t numbers[5];
	char lm_prov[16];
	struct raw_class static_pf;
	struct raw_class vf;
	struct config config; /* most of software_dpu goes there directly */
	struct raw_pfs pfs;
	uint32_t num_msix;
};

static int
read_cpus(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	struct config_cpus *cpus = out;
	size_t i;

	(void)key;
	if (!json_is_array(value) || json_array_size(value) > DP_MAX_WORKERS)
		return vfe_error_set(err, -EINVAL,
			"%s: expected an array of at most %u CPU numbers", path, DP_MAX_WORKERS);
	for (i = 0; i < json_array_size(value); i++) {
		const json_t *cpu = json_array_get(value, i);
		json_int_t v = json_integer_value(cpu);

		if (!json_is_integer(cpu) || v < 0 || v > 4095)
			return vfe_error_set(
				err, -EINVAL, "%s[%zu]: expected a CPU number", path, i);
		cpus->cpu[i] = (int)v;
	}
	cpus->nr = (unsigned int)i;
	return 0;
}

static int
read_backend(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"type", json_read_string, offsetof(struct raw_backend, type), 0, 16},
		{"name", json_read_string, offsetof(struct raw_backend, name), 0, IFNAMSIZ},
	};
	struct raw_backend *backend = out;
	int rc;

	(void)key;
	rc = json_read_object(value, path, keys, VFE_ARRAY_SIZE(keys), out, err);
	if (rc < 0)
		return rc;
	if (strcmp(backend->type, "tap") != 0 && strcmp(backend->type, "loopback") != 0 &&
		strcmp(backend->type, "null") != 0 && strcmp(backend->type, "scribble") != 0)
		return vfe_error_set(err, -EINVAL,
			"%s.type: expected \"tap\", \"loopback\", \"null\" or \"scribble\", got "
			"\"%s\"",
			path, backend->type);
	if (backend->name[0] != '\0' && strcmp(backend->type, "tap") != 0)
		return vfe_error_set(err, -EINVAL, "%s.name: only a tap has a name", path);
	if (strchr(backend->name, '/') != NULL || strchr(backend->name, '%') != NULL)
		return vfe_error_set(
			err, -EINVAL, "%s.name: \"%s\" is no interface name", path, backend->name);
	return 0;
}

/* Exceptions for single VFs: {"1": {"backend": {...}}}; the key is vf_id as in virtnet list. */
static int
read_vfs(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"backend", read_backend, offsetof(struct raw_vf, backend), 0, 0},
		CONFIG_BLK_KEYS(offsetof(struct raw_vf, blk)),
	};
	struct raw_vf **ret = out;
	char member[JSON_PATH_MAX];
	const char *name;
	json_t *vf;

	(void)key;
	if (!json_is_object(value))
		return vfe_error_set(err, -EINVAL, "%s: expected an object", path);
	*ret = calloc(CONFIG_MAX_VFS, sizeof(**ret));
	if (*ret == NULL)
		return vfe_error_set(err, -ENOMEM, "%s: no memory", path);
	json_object_foreach ((json_t *)(uintptr_t)value, name, vf) {
		char *end;
		unsigned long id = strtoul(name, &end, 10);
		int rc;

		snprintf(member, sizeof(member), "%s.%s", path, name);
		if (name[0] < '0' || name[0] > '9' || *end != '\0' || id >= CONFIG_MAX_VFS)
			return vfe_error_set(
				err, -EINVAL, "%s: expected the number of a VF, from 0", member);
		(*ret)[id].present = true;
		rc = json_read_object(vf, member, keys, VFE_ARRAY_SIZE(keys), &(*ret)[id], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int
read_pf_bdf(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	struct raw_pf *pf = out;

	pf->has_bdf = true;
	return json_read_bdf(key, value, path, &pf->bdf, err);
}

static int
read_first_vf(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	struct raw_pf *pf = out;

	pf->has_first_vf = true;
	return json_read_bdf(key, value, path, &pf->first_vf, err);
}

/* Keys that mean nothing for the type are a mistake. */
static int
check_keys_of_type(const struct raw_pf *pf, const char *path, struct vfe_error *err)
{
	bool net = pf->backend.type[0] != '\0' || pf->qp_num != NONE;
	bool blk = config_blk_is_given(&pf->blk);
	unsigned int i;

	for (i = 0; pf->vfs != NULL && i < CONFIG_MAX_VFS; i++) {
		net = net || pf->vfs[i].backend.type[0] != '\0';
		blk = blk || config_blk_is_given(&pf->vfs[i].blk);
	}
	if (pf->is_blk && net)
		return vfe_error_set(
			err, -EINVAL, "%s: backend and qp_num are of net functions", path);
	if (!pf->is_blk && blk)
		return vfe_error_set(
			err, -EINVAL, "%s: bdev and what goes with it are of blk functions", path);
	return 0;
}

static int
read_pf(const json_t *value, const char *path, struct raw_pf *pf, struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"bdf", read_pf_bdf, 0, 0, 0},
		{"type", json_read_string, offsetof(struct raw_pf, type), 0, 16},
		{"first_vf", read_first_vf, 0, 0, 0},
		{"vf_stride", json_read_u32, offsetof(struct raw_pf, vf_stride), 1, 0xffff},
		{"mtu", json_read_u32, offsetof(struct raw_pf, mtu), MIN_MTU, MAX_MTU},
		{"qp_num", json_read_u32, offsetof(struct raw_pf, qp_num), 1, DP_MAX_PAIRS},
		{"num_vfs", json_read_u32, offsetof(struct raw_pf, num_vfs), 0, CONFIG_MAX_VFS},
		{"backend", read_backend, offsetof(struct raw_pf, backend), 0, 0},
		{"vfs", read_vfs, offsetof(struct raw_pf, vfs), 0, 0},
		CONFIG_BLK_KEYS(offsetof(struct raw_pf, blk)),
	};
	int rc;

	pf->vf_stride = 1;
	pf->mtu = DEFAULT_MTU;
	pf->qp_num = NONE;
	pf->num_vfs = NONE;
	rc = json_read_object(value, path, keys, VFE_ARRAY_SIZE(keys), pf, err);
	if (rc < 0)
		return rc;
	if (!pf->has_bdf)
		return vfe_error_set(err, -EINVAL, "%s.bdf: missing", path);
	pf->is_blk = strcmp(pf->type, "blk") == 0;
	if (pf->type[0] != '\0' && strcmp(pf->type, "net") != 0 && !pf->is_blk)
		return vfe_error_set(err, -EINVAL,
			"%s.type: expected \"net\" or \"blk\", got \"%s\"", path, pf->type);
	return check_keys_of_type(pf, path, err);
}

static int
read_pfs(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	struct raw_pfs *raw = out;
	char member[JSON_PATH_MAX];
	size_t i;
	int rc;

	(void)key;
	if (!json_is_array(value) || json_array_size(value) == 0 ||
		json_array_size(value) > CONFIG_MAX_PFS)
		return vfe_error_set(
			err, -EINVAL, "%s: expected an array of 1 to %u PFs", path, CONFIG_MAX_PFS);
	for (i = 0; i < json_array_size(value); i++) {
		raw->nr = (unsigned int)i + 1;
		snprintf(member, sizeof(member), "%s[%zu]", path, i);
		rc = read_pf(json_array_get(value, i), member, &raw->pfs[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static const char *const dirty_mode_names[] = {
	[VFE_ADMIN_TRACK_PUSH_BITMAP] = "push_bitmap",
	[VFE_ADMIN_TRACK_PUSH_BYTEMAP] = "push_bytemap",
	[VFE_ADMIN_TRACK_PULL_BITMAP] = "pull_bitmap",
	[VFE_ADMIN_TRACK_PULL_BYTEMAP] = "pull_bytemap",
};

const char *
config_dirty_mode_name(uint16_t mode)
{
	return mode < VFE_ARRAY_SIZE(dirty_mode_names) ? dirty_mode_names[mode] : NULL;
}

/* Names of modes; an empty array offers none. */
static int
read_dirty_modes(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	uint32_t *modes = out;
	size_t i;

	(void)key;
	if (!json_is_array(value))
		return vfe_error_set(err, -EINVAL, "%s: expected an array of modes", path);
	*modes = 0;
	for (i = 0; i < json_array_size(value); i++) {
		const char *text = json_string_value(json_array_get(value, i));
		uint16_t mode;

		for (mode = VFE_ADMIN_TRACK_PUSH_BITMAP; config_dirty_mode_name(mode) != NULL;
			mode++) {
			if (text != NULL && strcmp(text, config_dirty_mode_name(mode)) == 0)
				break;
		}
		if (config_dirty_mode_name(mode) == NULL)
			return vfe_error_set(err, -EINVAL,
				"%s[%zu]: expected \"push_bitmap\", \"push_bytemap\", "
				"\"pull_bitmap\" or \"pull_bytemap\"",
				path, i);
		*modes |= 1u << mode;
	}
	return 0;
}

#define DPU(member) offsetof(struct raw, config.member)

static int
read_software_dpu(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"dir", json_read_string, DPU(dir), 0, CONFIG_MAX_PATH},
		{"rpc_socket", json_read_string, DPU(rpc_socket), 0, CONFIG_MAX_RPC_PATH},
		{"rpc_group", json_read_string, DPU(rpc_group), 0, CONFIG_MAX_GROUP},
		{"workers", json_read_u32, DPU(workers), 1, DP_MAX_WORKERS},
		{"worker_cpus", read_cpus, DPU(cpus), 0, 0},
		{"polling", json_read_bool, DPU(polling), 0, 0},
		{"blk_spin_us", json_read_u32, DPU(blk_spin_us), 0, DP_MAX_SPIN_US},
		{"queue_size", json_read_u32, DPU(queue_size), 2, VFE_VIRTIO_QUEUE_MAX_SIZE},
		{"dirty_modes", read_dirty_modes, DPU(dirty_modes), 0, 0},
		{"dirty_coarse", json_read_bool, DPU(dirty_coarse), 0, 0},
		{"admin_latency_us", json_read_u32, DPU(knobs.admin_latency_us), 0,
			CONFIG_MAX_LATENCY_US},
		{"dirty_lose_pages", json_read_u32, DPU(knobs.dirty_lose_pages), 0, INT32_MAX},
		{"reset_latency_us", json_read_u32, DPU(reset_latency_us), 0,
			CONFIG_MAX_LATENCY_US},
		{"drain_timeout_ms", json_read_u32, DPU(drain_timeout_ms), 1, MAX_DRAIN_MS},
		{"bdevs", config_read_bdevs, DPU(bdevs), 0, 0},
		{"num_msix", json_read_u32, offsetof(struct raw, num_msix), 1, MAX_MSIX},
		{"pfs", read_pfs, offsetof(struct raw, pfs), 0, 0},
	};
	struct raw *raw = out;
	int rc;

	(void)key;
	rc = json_read_object(value, path, keys, VFE_ARRAY_SIZE(keys), raw, err);
	if (rc == 0 && raw->config.cpus.nr > 0 && raw->config.cpus.nr < raw->config.workers)
		rc = vfe_error_set(err, -EINVAL, "%s.worker_cpus: %u CPUs for %u workers", path,
			raw->config.cpus.nr, raw->config.workers);
	if (rc == 0 && !vfe_is_pow2(raw->config.queue_size))
		rc = vfe_error_set(err, -EINVAL, "%s.queue_size: %u is not a power of two", path,
			raw->config.queue_size);
	return rc;
}

static int
read_static_pf(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"mac_base", json_read_mac, offsetof(struct raw_class, mac_base), 0, 0},
		{"features", json_read_features, offsetof(struct raw_class, features), 0, 0},
	};

	(void)key;
	return json_read_object(value, path, keys, VFE_ARRAY_SIZE(keys), out, err);
}

static int
read_vf(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	static const struct json_key keys[] = {
		{"mac_base", json_read_mac, offsetof(struct raw_class, mac_base), 0, 0},
		{"features", json_read_features, offsetof(struct raw_class, features), 0, 0},
		{"vfs_per_pf", json_read_u32, offsetof(struct raw_class, vfs_per_pf), 0,
			CONFIG_MAX_VFS},
		{"qp_num", json_read_u32, offsetof(struct raw_class, qp_num), 1, DP_MAX_PAIRS},
	};

	(void)key;
	if (json_object_get(value, "mac_base") != NULL &&
		json_object_get(value, "vfs_per_pf") == NULL)
		return vfe_error_set(
			err, -EINVAL, "%s.vfs_per_pf: missing, needed with mac_base", path);
	return json_read_object(value, path, keys, VFE_ARRAY_SIZE(keys), out, err);
}

static int
read_lm_prov(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	int rc = json_read_string(key, value, path, out, err);

	if (rc == 0 && strcmp(out, "dpdk") != 0)
		return vfe_error_set(err, -EINVAL,
			"%s: expected \"dpdk\" (the only live-migration dialect so far), got "
			"\"%s\"",
			path, (const char *)out);
	return rc;
}

#define RAW(member) offsetof(struct raw, member)

/* Keys of the user guide that have no meaning without the hardware are checked all the same. */
static const struct json_key document_keys[] = {
	{"ib_dev_p1", json_read_string, RAW(ib_dev[1]), 0, IB_DEV_SIZE},
	{"ib_dev_lag", json_read_string, RAW(ib_dev[2]), 0, IB_DEV_SIZE},
	{"is_lag", json_read_bool, RAW(flags[0]), 0, 0},
	{"recovery", json_read_bool, RAW(flags[1]), 0, 0},
	{"sf_pool_force_destroy", json_read_bool, RAW(flags[2]), 0, 0},
	{"single_port", json_read_bool, RAW(flags[3]), 0, 0},
	{"sf_pool_percent", json_read_u32, RAW(numbers[0]), 0, 100},
	{"dpa_core_start", json_read_u32, RAW(numbers[1]), 0, 4095},
	{"dpa_core_end", json_read_u32, RAW(numbers[2]), 0, 4095},
	{"eth_vq_workers", json_read_u32, RAW(numbers[3]), 1, 24},
	{"admin_cmd_workers", json_read_u32, RAW(numbers[4]), 1, 16},
	/* those from here on mean something; see NR_IGNORED_KEYS */
	{"ib_dev_p0", json_read_string, RAW(ib_dev[0]), 0, IB_DEV_SIZE},
	{"ib_dev_for_static_pf", json_read_string, RAW(ib_dev[3]), 0, IB_DEV_SIZE},
	{"lm_prov", read_lm_prov, RAW(lm_prov), 0, 16},
	{"static_pf", read_static_pf, RAW(static_pf), 0, 0},
	{"vf", read_vf, RAW(vf), 0, 0},
	{"software_dpu", read_software_dpu, 0, 0, 0},
};

enum { NR_IGNORED_KEYS = 11 };

static void
note_ignored(const json_t *document, struct config *config)
{
	size_t i;

	for (i = 0; i < NR_IGNORED_KEYS; i++) {
		size_t used = strlen(config->ignored);

		if (json_object_get(document, document_keys[i].name) != NULL)
			snprintf(config->ignored + used, sizeof(config->ignored) - used, "%s%s",
				used > 0 ? ", " : "", document_keys[i].name);
	}
}

/* Base address plus @n, carried through all six bytes. */
static void
mac_add(uint8_t out[6], const uint8_t base[6], uint32_t n)
{
	uint32_t carry = n;
	int i;

	for (i = 5; i >= 0; i--) {
		carry += base[i];
		out[i] = (uint8_t)carry;
		carry >>= 8;
	}
}

static void
set_backend(struct config_function *fn, const struct raw_backend *raw, enum dp_backend type)
{
	fn->backend.type = type;
	if (strcmp(raw->type, "tap") == 0)
		fn->backend.type = DP_BACKEND_TAP;
	else if (strcmp(raw->type, "loopback") == 0)
		fn->backend.type = DP_BACKEND_LOOPBACK;
	else if (strcmp(raw->type, "null") == 0)
		fn->backend.type = DP_BACKEND_NULL;
	else if (strcmp(raw->type, "scribble") == 0)
		fn->backend.type = DP_BACKEND_SCRIBBLE;

	if (raw->name[0] != '\0')
		snprintf(fn->backend.tap_name, sizeof(fn->backend.tap_name), "%s", raw->name);
	else
		snprintf(fn->backend.tap_name, sizeof(fn->backend.tap_name), "en3f0pf%usf%u",
			fn->pf_id, fn->sf_num);
}

uint16_t
config_nr_queues(const struct config_function *fn)
{
	return (uint16_t)(fn->type == CONFIG_BLK ? fn->blk.num_queues : 2u * fn->qp_num + 1u);
}

/* Vectors for all queues, the control queue, the admin queue of a PF, and configuration. */
static uint16_t
default_msix(const struct config_function *fn)
{
	return (uint16_t)(config_nr_queues(fn) + (fn->is_vf ? 1 : 2));
}

/* What is left to say of a function of type blk. @pf is NULL for a PF. */
static int
derive_blk(const struct raw *raw, struct config_function *fn, const struct config_blk *blk,
	const struct config_function *pf, struct vfe_error *err)
{
	int rc;

	fn->blk = *blk;
	rc = config_blk_derive(&raw->config, fn, pf, err);
	fn->num_msix = default_msix(fn);
	if (pf != NULL && raw->num_msix != NONE)
		fn->num_msix = (uint16_t)raw->num_msix;
	return rc;
}

static int
derive_vf(const struct raw *raw, const struct raw_pf *raw_pf, const struct config_function *pf,
	uint16_t vf_id, uint32_t nr_vfs_before, struct config_function *vf, struct vfe_error *err)
{
	static const struct raw_backend none;
	static const struct config_blk no_blk;
	uint32_t rid = (uint32_t)vfe_bdf_rid(&raw_pf->first_vf) + (uint32_t)vf_id * pf->vf_stride;

	if (rid > UINT16_MAX)
		return vfe_error_set(err, -EINVAL,
			"software_dpu.pfs[%u].vf_stride: VF %u is behind the last bus",
			(unsigned int)(raw_pf - raw->pfs.pfs), vf_id);
	*vf = *pf;
	vf->is_vf = true;
	vf->vf_id = vf_id;
	vf->bdf = vfe_bdf_from_rid(pf->bdf.domain, (uint16_t)rid);
	vf->sf_num = CONFIG_SF_VF + nr_vfs_before + vf_id;
	vf->nr_vfs = 0;
	vf->vfs = NULL;
	if (raw_pf->is_blk)
		return derive_blk(
			raw, vf, raw_pf->vfs != NULL ? &raw_pf->vfs[vf_id].blk : &no_blk, pf, err);
	vf->features = raw->vf.features;
	if (raw->vf.qp_num != NONE)
		vf->qp_num = (uint16_t)raw->vf.qp_num;
	vf->num_msix = raw->num_msix != NONE ? (uint16_t)raw->num_msix : default_msix(vf);
	mac_add(vf->mac, raw->vf.mac_base, nr_vfs_before + vf_id);
	set_backend(vf, raw_pf->vfs != NULL ? &raw_pf->vfs[vf_id].backend : &none, DP_BACKEND_TAP);
	return 0;
}

static uint32_t
vfs_of(const struct raw *raw, const struct raw_pf *pf)
{
	return pf->num_vfs != NONE ? pf->num_vfs : raw->vf.vfs_per_pf;
}

static int
check_pf(const struct raw *raw, const struct raw_pf *raw_pf, unsigned int id, struct vfe_error *err)
{
	uint32_t i, nr_vfs = vfs_of(raw, raw_pf);

	if (nr_vfs > 0 && !raw_pf->has_first_vf)
		return vfe_error_set(err, -EINVAL,
			"software_dpu.pfs[%u].first_vf: missing, needed with vf.vfs_per_pf", id);
	if (raw_pf->has_first_vf && raw_pf->first_vf.domain != raw_pf->bdf.domain)
		return vfe_error_set(err, -EINVAL,
			"software_dpu.pfs[%u].first_vf: not in the domain of the PF", id);
	if (raw_pf->has_first_vf && vfe_bdf_rid(&raw_pf->first_vf) <= vfe_bdf_rid(&raw_pf->bdf))
		return vfe_error_set(err, -EINVAL,
			"software_dpu.pfs[%u].first_vf: expected an address behind the PF's", id);
	for (i = nr_vfs; raw_pf->vfs != NULL && i < CONFIG_MAX_VFS; i++) {
		if (raw_pf->vfs[i].present)
			return vfe_error_set(err, -EINVAL,
				"software_dpu.pfs[%u].vfs.%u: there are only %u VFs", id, i,
				nr_vfs);
	}
	return 0;
}

static int
derive_pf(const struct raw *raw, unsigned int id, uint32_t nr_vfs_before,
	struct config_function *pf, struct vfe_error *err)
{
	const struct raw_pf *raw_pf = &raw->pfs.pfs[id];
	uint32_t nr_vfs = vfs_of(raw, raw_pf);
	uint16_t i;
	int rc = check_pf(raw, raw_pf, id, err);

	if (rc < 0)
		return rc;
	pf->bdf = raw_pf->bdf;
	pf->type = raw_pf->is_blk ? CONFIG_BLK : CONFIG_NET;
	pf->pf_id = 0;
	for (i = 0; i < id; i++)
		pf->pf_id += raw->pfs.pfs[i].is_blk == raw_pf->is_blk;
	pf->sf_num = CONFIG_SF_PF + pf->pf_id;
	pf->mtu = (uint16_t)raw_pf->mtu;
	if (raw_pf->qp_num != NONE)
		pf->qp_num = (uint16_t)raw_pf->qp_num;
	else
		pf->qp_num = raw->vf.qp_num != NONE ? (uint16_t)raw->vf.qp_num : 1;
	pf->features = raw->static_pf.features;
	pf->num_msix = default_msix(pf);
	mac_add(pf->mac, raw->static_pf.mac_base, pf->pf_id);
	set_backend(pf, &raw_pf->backend, DP_BACKEND_NULL);
	rc = raw_pf->is_blk ? derive_blk(raw, pf, &raw_pf->blk, NULL, err) : 0;
	if (rc < 0)
		return rc;

	pf->vf_stride = (uint16_t)raw_pf->vf_stride;
	if (raw_pf->has_first_vf)
		pf->first_vf_offset =
			(uint16_t)(vfe_bdf_rid(&raw_pf->first_vf) - vfe_bdf_rid(&raw_pf->bdf));
	pf->vfs = calloc(nr_vfs + 1u, sizeof(*pf->vfs));
	if (pf->vfs == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u VFs", nr_vfs);
	pf->nr_vfs = (uint16_t)nr_vfs;
	for (i = 0; i < pf->nr_vfs; i++) {
		rc = derive_vf(raw, raw_pf, pf, i, nr_vfs_before, &pf->vfs[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Each address and each representor may be there once; the lists are short enough for pairs. */
static int
check_unique(
	const struct config_function *a, const struct config_function *b, struct vfe_error *err)
{
	char bdf[VFE_BDF_STR_SIZE];

	if (vfe_bdf_equal(&a->bdf, &b->bdf))
		return vfe_error_set(err, -EINVAL, "software_dpu.pfs: %s is there twice",
			vfe_bdf_format(&a->bdf, bdf));
	if (a->backend.type == DP_BACKEND_TAP && b->backend.type == DP_BACKEND_TAP &&
		strcmp(a->backend.tap_name, b->backend.tap_name) == 0)
		return vfe_error_set(err, -EINVAL,
			"software_dpu.pfs: two functions have the tap %s", a->backend.tap_name);
	return 0;
}

/* Function @n of all: PF 0, its VFs, PF 1, ... */
static const struct config_function *
nth_function(const struct config *config, uint32_t n)
{
	unsigned int i;

	for (i = 0; i < config->nr_pfs; i++) {
		const struct config_function *pf = &config->pfs[i];

		if (n == 0)
			return pf;
		if (--n < pf->nr_vfs)
			return &pf->vfs[n];
		n -= pf->nr_vfs;
	}
	return NULL;
}

static int
check_all_unique(const struct config *config, struct vfe_error *err)
{
	const struct config_function *a, *b;
	uint32_t i, j;
	int rc;

	for (i = 0; (a = nth_function(config, i)) != NULL; i++) {
		for (j = 0; j < i; j++) {
			b = nth_function(config, j);
			rc = check_unique(a, b, err);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

static int
derive(struct raw *raw, struct vfe_error *err)
{
	struct config *config = &raw->config;
	uint32_t vfs = 0, net_vfs = 0;
	unsigned int i;
	int rc;

	if (raw->pfs.nr == 0)
		return vfe_error_set(err, -EINVAL, "software_dpu.pfs: missing");
	for (i = 0; i < raw->pfs.nr; i++)
		vfs += vfs_of(raw, &raw->pfs.pfs[i]);
	if (vfs > CONFIG_MAX_VFS)
		return vfe_error_set(err, -EINVAL, "vf.vfs_per_pf: %u VFs on %u PFs, at most %u",
			vfs, raw->pfs.nr, CONFIG_MAX_VFS);
	for (i = 0; i < raw->pfs.nr; i++) {
		config->nr_pfs = i + 1;
		rc = derive_pf(raw, i, net_vfs, &config->pfs[i], err);
		if (rc < 0)
			return rc;
		if (config->pfs[i].type == CONFIG_NET)
			net_vfs += config->pfs[i].nr_vfs;
	}
	snprintf(config->sf_parent_device, sizeof(config->sf_parent_device), "%s",
		raw->ib_dev[3][0] != '\0'   ? raw->ib_dev[3]
		: raw->ib_dev[0][0] != '\0' ? raw->ib_dev[0]
					    : "mlx5_0");
	return check_all_unique(config, err);
}

static void
set_defaults(struct raw *raw)
{
	static const uint8_t pf_mac[6] = {0x02, 0x56, 0x46, 0x45, 0x00, 0x00};
	static const uint8_t vf_mac[6] = {0x02, 0x56, 0x46, 0x45, 0x10, 0x00};
	struct config *config = &raw->config;

	memcpy(raw->static_pf.mac_base, pf_mac, sizeof(pf_mac));
	memcpy(raw->vf.mac_base, vf_mac, sizeof(vf_mac));
	raw->static_pf.features = UINT64_MAX;
	raw->vf.features = UINT64_MAX;
	raw->vf.qp_num = NONE;
	raw->num_msix = NONE;
	config->dirty_modes = ALL_DIRTY_MODES;
	config->knobs.scribble = true;
	config->workers = 1;
	config->queue_size = 256;
	config->drain_timeout_ms = DEFAULT_DRAIN_MS;
	config->blk_spin_us = DEFAULT_SPIN_US;
	snprintf(config->dir, sizeof(config->dir), "/run/vfe/pci");
	snprintf(config->rpc_socket, sizeof(config->rpc_socket), "/run/vfe/controller.sock");
}

static int
parse_document(const json_t *document, struct config *ret, struct vfe_error *err)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	unsigned int i;
	int rc;

	if (raw == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the configuration");
	set_defaults(raw);
	rc = json_read_object(document, "", document_keys, VFE_ARRAY_SIZE(document_keys), raw, err);
	if (rc == 0)
		rc = derive(raw, err);
	if (rc == 0) {
		note_ignored(document, &raw->config);
		*ret = raw->config;
	} else {
		config_fini(&raw->config);
	}
	for (i = 0; i < raw->pfs.nr; i++)
		free(raw->pfs.pfs[i].vfs);
	free(raw);
	return rc;
}

int
config_parse(const char *text, struct config *ret, struct vfe_error *err)
{
	json_error_t why;
	json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	int rc;

	if (document == NULL)
		return vfe_error_set(
			err, -EINVAL, "line %d, column %d: %s", why.line, why.column, why.text);
	rc = parse_document(document, ret, err);
	json_decref(document);
	return rc;
}

int
config_load(const char *path, struct config *ret, struct vfe_error *err)
{
	json_error_t why;
	json_t *document;
	FILE *file = fopen(path, "re");
	int rc;

	if (file == NULL) {
		rc = -errno;
		return vfe_error_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	document = json_loadf(file, JSON_REJECT_DUPLICATES, &why);
	fclose(file);
	if (document == NULL)
		return vfe_error_set(err, -EINVAL, "%s: line %d, column %d: %s", path, why.line,
			why.column, why.text);
	rc = parse_document(document, ret, err);
	json_decref(document);
	return rc < 0 ? vfe_error_prefix(err, rc, "%s", path) : 0;
}

void
config_fini(struct config *config)
{
	unsigned int i;

	for (i = 0; i < config->nr_pfs; i++) {
		free(config->pfs[i].vfs);
		config->pfs[i].vfs = NULL;
	}
	config->nr_pfs = 0;
	free(config->bdevs.bdevs);
	config->bdevs = (struct config_bdevs){0};
}
