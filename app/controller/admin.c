/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Admin queue of a PF in the vendor dialect, device side: one row per command.
 *
 * A command is a stream of readable bytes (class, command, input, bulk input) and one of writable
 * bytes (result or bulk output, then the status byte); where descriptors begin does not matter.
 */

#include "admin.h"

#include "dirty.h"
#include "migrate.h"
#include "vfe_iov.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/timerfd.h>

enum {
	MAX_INPUT = 32, /* fixed input of any command */

	BAD_TRANSFER = VFE_ADMIN_S_DATA_TRANSFER | VFE_ADMIN_S_DNR,
	BAD_CLASS = VFE_ADMIN_S_INVALID_CLASS | VFE_ADMIN_S_DNR,
	BAD_COMMAND = VFE_ADMIN_S_INVALID_COMMAND | VFE_ADMIN_S_DNR,
	REFUSED = VFE_ADMIN_S_ERR | VFE_ADMIN_S_DNR,
	TRY_AGAIN = VFE_ADMIN_S_ERR,      /* the function is being reset */
	NO_MEMORY = VFE_ADMIN_S_INTERNAL, /* may work later */
	FAILED = VFE_ADMIN_S_INTERNAL | VFE_ADMIN_S_DNR,

	DIALECT_MAJOR = 1,
	DIALECT_MINOR = 0,
};

/* One command, from the moment it is taken from the ring until it is answered. */
struct admin_cmd {
	LIST_ENTRY(admin_cmd) next;
	struct admin *admin;
	ev_io timer; /* of a timerfd: the loop's own timers count milliseconds; fd -1 = none */
	const struct function *stops; /* it waits for this VF; NULL = it does not */
	uint16_t head;
	uint16_t nr_read;
	uint16_t nr_write;
	uint32_t read_len;
	uint32_t write_len;
	struct iovec iov[]; /* nr_read + nr_write */
};

struct admin {
	struct function *pf;
	struct ctl_queue q;
	LIST_HEAD(, admin_cmd) in_flight;
	struct admin_stats stats;
};

/* What a row works with. */
struct call {
	struct function *pf;
	struct function *vf; /* for rows with needs_vf */
	bool later;          /* the status comes when the VF has stopped */
	const struct admin_cmd *cmd;
	uint8_t in[MAX_INPUT];
	uint8_t out[16]; /* fixed result, zeroed */
	struct vfe_error err;
};

struct row {
	uint8_t class_;
	uint8_t cmd;
	const char *name;
	uint8_t in_len;
	uint8_t out_len;
	bool needs_vf; /* input begins with vdev_id */
	uint8_t (*run)(struct call *call);
};

static const struct iovec *
writable(const struct admin_cmd *cmd)
{
	return cmd->iov + cmd->nr_read;
}

static uint8_t
status_of(int rc)
{
	switch (rc) {
	case 0:
		return VFE_ADMIN_S_OK;
	case -ENOMEM:
		return NO_MEMORY;
	case -EIO:
		return FAILED;
	case -EAGAIN:
	case -ETIMEDOUT:
		return TRY_AGAIN;
	default:
		return REFUSED;
	}
}

/* --- class 64: migration --- */

static uint8_t
mig_identity(struct call *call)
{
	const struct vfe_wire_admin_mig_identity id = {
		.major = htole16(DIALECT_MAJOR),
		.minor = htole16(DIALECT_MINOR),
	};

	memcpy(call->out, &id, sizeof(id));
	return VFE_ADMIN_S_OK;
}

static uint8_t
mig_get_status(struct call *call)
{
	const struct vfe_wire_admin_get_status_result result = {
		.status = htole16((uint16_t)call->vf->internal),
	};

	memcpy(call->out, &result, sizeof(result));
	return VFE_ADMIN_S_OK;
}

static uint8_t
mig_modify_status(struct call *call)
{
	struct vfe_wire_admin_modify_status in;
	int rc;

	memcpy(&in, call->in, sizeof(in));
	rc = migrate_set_status(call->vf, le16toh(in.status), &call->err);
	call->later = rc == -EINPROGRESS;
	return call->later ? VFE_ADMIN_S_OK : status_of(rc);
}

static uint8_t
mig_pending_bytes(struct call *call)
{
	int64_t size = migrate_snapshot(call->vf);
	struct vfe_wire_admin_pending_result result;

	if (size < 0)
		return status_of((int)size);
	result.bytes = htole64((uint64_t)size);
	memcpy(call->out, &result, sizeof(result));
	return VFE_ADMIN_S_OK;
}

static uint8_t
mig_save(struct call *call)
{
	const struct admin_cmd *cmd = call->cmd;
	struct vfe_wire_admin_state in;
	uint64_t length;
	uint8_t *buf;
	int rc;

	memcpy(&in, call->in, sizeof(in));
	length = le64toh(in.length);
	if (length == 0 || length > VFE_STATE_MAX_SIZE || length > cmd->write_len - 1) {
		vfe_error_set(&call->err, 0, "%llu bytes into a buffer of %u",
			(unsigned long long)length, cmd->write_len - 1);
		return BAD_TRANSFER;
	}
	buf = malloc(length);
	if (buf == NULL)
		return NO_MEMORY;
	rc = migrate_save(call->vf, le64toh(in.offset), buf, length, &call->err);
	if (rc == 0)
		(void)vfe_iov_write(writable(cmd), cmd->nr_write, 0, buf, length);
	free(buf);
	return status_of(rc);
}

static uint8_t
mig_restore(struct call *call)
{
	const struct admin_cmd *cmd = call->cmd;
	const size_t bulk = sizeof(struct vfe_wire_admin_hdr) + sizeof(struct vfe_wire_admin_state);
	struct vfe_wire_admin_state in;
	uint64_t length;
	uint8_t *buf;
	int rc;

	memcpy(&in, call->in, sizeof(in));
	length = le64toh(in.length);
	if (length == 0 || length > VFE_STATE_MAX_SIZE || length > cmd->read_len - bulk) {
		vfe_error_set(&call->err, 0, "%llu bytes from a buffer of %zu",
			(unsigned long long)length, cmd->read_len - bulk);
		return BAD_TRANSFER;
	}
	/* a copy, so that the driver cannot change what has been checked */
	buf = malloc(length);
	if (buf == NULL)
		return NO_MEMORY;
	(void)vfe_iov_read(cmd->iov, cmd->nr_read, bulk, buf, length);
	rc = migrate_restore(call->vf, le64toh(in.offset), buf, length, &call->err);
	free(buf);
	return status_of(rc);
}

/* --- class 65: dirty page tracking --- */

static uint8_t
track_identity(struct call *call)
{
	struct vfe_wire_admin_dirty_identity id;

	dirty_identity(call->pf->env->config->dirty_modes, &id);
	memcpy(call->out, &id, sizeof(id));
	return VFE_ADMIN_S_OK;
}

/* The SGEs of a push mode follow the fixed input; in the pull modes, what follows is ignored. */
static uint8_t
track_start(struct call *call)
{
	const struct admin_cmd *cmd = call->cmd;
	const size_t off =
		sizeof(struct vfe_wire_admin_hdr) + sizeof(struct vfe_wire_admin_track_start);
	const size_t bytes = cmd->read_len - off, nr = bytes / sizeof(struct vfe_wire_admin_sge);
	struct vfe_wire_admin_track_start in;
	struct vfe_wire_admin_sge *sges = NULL;
	int rc;

	memcpy(&in, call->in, sizeof(in));
	if (dirty_mode_is_push(le16toh(in.mode))) {
		if (bytes % sizeof(*sges) != 0 || nr == 0 || nr > DIRTY_MAX_SGES) {
			vfe_error_set(&call->err, 0, "%zu bytes of SGEs, expected 1 to %u of %zu",
				bytes, DIRTY_MAX_SGES, sizeof(*sges));
			return BAD_TRANSFER;
		}
		sges = malloc(bytes);
		if (sges == NULL)
			return NO_MEMORY;
		(void)vfe_iov_read(cmd->iov, cmd->nr_read, off, sges, bytes);
	}
	rc = dirty_start(call->vf, &in, sges, (uint32_t)nr, &call->err);
	free(sges);
	return status_of(rc);
}

static uint8_t
track_stop(struct call *call)
{
	struct vfe_wire_admin_track_range in;

	memcpy(&in, call->in, sizeof(in));
	return status_of(dirty_stop(call->vf, le64toh(in.range_addr), &call->err));
}

static uint8_t
track_pending(struct call *call)
{
	struct vfe_wire_admin_track_range in;
	struct vfe_wire_admin_pending_result result;
	uint64_t bytes;
	int rc;

	memcpy(&in, call->in, sizeof(in));
	rc = dirty_pending(call->vf, le64toh(in.range_addr), &bytes, &call->err);
	if (rc < 0)
		return status_of(rc);
	result.bytes = htole64(bytes);
	memcpy(call->out, &result, sizeof(result));
	return VFE_ADMIN_S_OK;
}

static uint8_t
track_report(struct call *call)
{
	const struct admin_cmd *cmd = call->cmd;
	struct vfe_wire_admin_track_report in;
	uint64_t addr, off, length;
	uint8_t *buf;
	int rc;

	memcpy(&in, call->in, sizeof(in));
	addr = le64toh(in.range_addr);
	off = le64toh(in.offset);
	length = le64toh(in.length);
	if (length == 0 || length > DIRTY_MAX_REPORT || length > cmd->write_len - 1) {
		vfe_error_set(&call->err, 0, "%llu bytes into a buffer of %u, at most %u at a time",
			(unsigned long long)length, cmd->write_len - 1, DIRTY_MAX_REPORT);
		return BAD_TRANSFER;
	}
	buf = malloc(length);
	if (buf == NULL)
		return NO_MEMORY;
	rc = dirty_report(call->vf, addr, off, buf, length, &call->err);
	if (rc == 0) {
		(void)vfe_iov_write(writable(cmd), cmd->nr_write, 0, buf, length);
		/* the file behind the buffer is too short: nobody has got the report */
		if (function_memory_shrunk(call->pf)) {
			dirty_unreport(call->vf, addr, off, buf, length);
			rc = vfe_error_set(&call->err, -EIO, "the memory of the PF is gone");
		}
	}
	free(buf);
	return status_of(rc);
}

/* clang-format off */
static const struct row rows[] = {
	{VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_IDENTITY, "IDENTITY",
		0, sizeof(struct vfe_wire_admin_mig_identity), false, mig_identity},
	{VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_GET_STATUS, "GET_INTERNAL_STATUS",
		sizeof(struct vfe_wire_admin_vdev), sizeof(struct vfe_wire_admin_get_status_result),
		true, mig_get_status},
	{VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_MODIFY_STATUS, "MODIFY_INTERNAL_STATUS",
		sizeof(struct vfe_wire_admin_modify_status), 0, true, mig_modify_status},
	{VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_PENDING_BYTES, "GET_INTERNAL_STATE_PENDING_BYTES",
		sizeof(struct vfe_wire_admin_vdev), sizeof(struct vfe_wire_admin_pending_result),
		true, mig_pending_bytes},
	{VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_SAVE_STATE, "SAVE_INTERNAL_STATE",
		sizeof(struct vfe_wire_admin_state), 0, true, mig_save},
	{VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_RESTORE_STATE, "RESTORE_INTERNAL_STATE",
		sizeof(struct vfe_wire_admin_state), 0, true, mig_restore},
	{VFE_ADMIN_CLASS_DIRTY, VFE_ADMIN_DIRTY_IDENTITY, "DIRTY_IDENTITY",
		0, sizeof(struct vfe_wire_admin_dirty_identity), false, track_identity},
	{VFE_ADMIN_CLASS_DIRTY, VFE_ADMIN_DIRTY_START, "START_TRACK",
		sizeof(struct vfe_wire_admin_track_start), 0, true, track_start},
	{VFE_ADMIN_CLASS_DIRTY, VFE_ADMIN_DIRTY_STOP, "STOP_TRACK",
		sizeof(struct vfe_wire_admin_track_range), 0, true, track_stop},
	{VFE_ADMIN_CLASS_DIRTY, VFE_ADMIN_DIRTY_PENDING_BYTES, "GET_MAP_PENDING_BYTES",
		sizeof(struct vfe_wire_admin_track_range),
		sizeof(struct vfe_wire_admin_pending_result), true, track_pending},
	{VFE_ADMIN_CLASS_DIRTY, VFE_ADMIN_DIRTY_REPORT, "REPORT_MAP",
		sizeof(struct vfe_wire_admin_track_report), 0, true, track_report},
};
/* clang-format on */

/* --- dispatch --- */

static const struct row *
find_row(const struct vfe_wire_admin_hdr *hdr, uint8_t *ret_status)
{
	bool class_known = false;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(rows); i++) {
		class_known = class_known || rows[i].class_ == hdr->class_;
		if (rows[i].class_ == hdr->class_ && rows[i].cmd == hdr->cmd)
			return &rows[i];
	}
	*ret_status = class_known ? BAD_COMMAND : BAD_CLASS;
	return NULL;
}

/* The VF that the input begins with, counted from 1. */
static uint8_t
find_vf(struct call *call)
{
	uint16_t id;

	memcpy(&id, call->in, sizeof(id));
	id = le16toh(id);
	if (id == 0 || id > call->pf->cfg->nr_vfs) {
		vfe_error_set(
			&call->err, 0, "vdev_id %u, expected 1 to %u", id, call->pf->cfg->nr_vfs);
		return REFUSED;
	}
	call->vf = &call->pf->vfs[id - 1];
	if (call->vf->vdev == NULL) {
		vfe_error_set(&call->err, 0, "VF %u has no controller", id - 1u);
		return REFUSED;
	}
	if (vfe_vdev_resetting(call->vf->vdev)) {
		vfe_error_set(&call->err, 0, "%s is being reset", call->vf->name);
		return TRY_AGAIN;
	}
	return VFE_ADMIN_S_OK;
}

static uint8_t
run_row(const struct row *row, struct call *call)
{
	const struct admin_cmd *cmd = call->cmd;
	uint8_t status = VFE_ADMIN_S_OK;

	if (vfe_iov_read(cmd->iov, cmd->nr_read, sizeof(struct vfe_wire_admin_hdr), call->in,
		    row->in_len) < row->in_len ||
		cmd->write_len - 1 < row->out_len) {
		vfe_error_set(&call->err, 0,
			"%u bytes readable and %u writable, expected %zu and %u", cmd->read_len,
			cmd->write_len, row->in_len + sizeof(struct vfe_wire_admin_hdr),
			row->out_len + 1u);
		return BAD_TRANSFER;
	}
	if (row->needs_vf)
		status = find_vf(call);
	if (status == VFE_ADMIN_S_OK)
		status = row->run(call);
	if (status == VFE_ADMIN_S_OK && row->out_len > 0)
		(void)vfe_iov_write(writable(cmd), cmd->nr_write, 0, call->out, row->out_len);
	return status;
}

/* The end of @cmd: its status byte. Returns the bytes written. */
static uint32_t
write_status(const struct admin_cmd *cmd, uint8_t status)
{
	(void)vfe_iov_write(
		writable(cmd), cmd->nr_write, cmd->write_len - 1, &status, sizeof(status));
	return cmd->write_len;
}

/*
 * Execute @cmd and write its status. Returns the bytes written, or CTL_QUEUE_LATER: it waits for
 * cmd->stops.
 */
static int64_t
execute(struct admin *admin, struct admin_cmd *cmd)
{
	struct call call = {.pf = admin->pf, .cmd = cmd, .err = {"no such command"}};
	struct vfe_wire_admin_hdr hdr = {0, 0};
	const struct row *row = NULL;
	uint8_t status = BAD_TRANSFER;

	admin->stats.commands++;
	if (cmd->write_len == 0) {
		admin->stats.errors++;
		app_log_limited(&admin->pf->log_limit, APP_LOG_WARN,
			"%s: admin command without room for its status", admin->pf->name);
		return 0;
	}
	if (vfe_iov_read(cmd->iov, cmd->nr_read, 0, &hdr, sizeof(hdr)) == sizeof(hdr))
		row = find_row(&hdr, &status);
	if (row != NULL)
		status = run_row(row, &call);
	cmd->stops = call.later ? call.vf : NULL;
	if (call.later)
		return CTL_QUEUE_LATER;
	if (status != VFE_ADMIN_S_OK) {
		admin->stats.errors++;
		app_log_limited(&admin->pf->log_limit, APP_LOG_WARN,
			"%s: admin command %u/%u (%s): status 0x%02x: %s", admin->pf->name,
			hdr.class_, hdr.cmd, row != NULL ? row->name : "unknown", status,
			call.err.text);
	}
	return write_status(cmd, status);
}

static void
timer_end(struct admin_cmd *cmd)
{
	ev_io_stop(cmd->admin->pf->env->loop, &cmd->timer);
	vfe_close(&cmd->timer.fd);
}

static void
cmd_free(struct admin_cmd *cmd)
{
	timer_end(cmd);
	LIST_REMOVE(cmd, next);
	cmd->admin->stats.in_flight--;
	free(cmd);
}

static void
on_latency_over(struct ev_loop *loop, ev_io *timer, int revents)
{
	struct admin_cmd *cmd = vfe_container_of(timer, struct admin_cmd, timer);
	struct admin *admin = cmd->admin;
	int64_t written = execute(admin, cmd);
	uint16_t head = cmd->head;

	(void)loop;
	(void)revents;
	if (written == CTL_QUEUE_LATER) {
		timer_end(cmd);
		return;
	}
	cmd_free(cmd);
	ctl_queue_complete(&admin->q, head, (uint32_t)written);
}

void
admin_stopped(struct admin *admin, const struct function *vf, int rc)
{
	struct admin_cmd *cmd, *next;
	uint32_t written;
	uint16_t head;

	for (cmd = LIST_FIRST(&admin->in_flight); cmd != NULL; cmd = next) {
		next = LIST_NEXT(cmd, next);
		if (cmd->stops != vf)
			continue;
		if (rc < 0)
			admin->stats.errors++;
		written = write_status(cmd, status_of(rc));
		head = cmd->head;
		cmd_free(cmd);
		ctl_queue_complete(&admin->q, head, written);
	}
}

/* Let a command wait; false when there is no timer for it. */
static bool
latency_begin(struct admin_cmd *cmd, uint32_t latency_us)
{
	const struct itimerspec span = {
		.it_value.tv_sec = latency_us / 1000000,
		.it_value.tv_nsec = (long)(latency_us % 1000000) * 1000,
	};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0 || timerfd_settime(fd, 0, &span, NULL) < 0) {
		vfe_close(&fd);
		return false;
	}
	ev_io_init(&cmd->timer, on_latency_over, fd, EV_READ);
	ev_io_start(cmd->admin->pf->env->loop, &cmd->timer);
	LIST_INSERT_HEAD(&cmd->admin->in_flight, cmd, next);
	cmd->admin->stats.in_flight++;
	return true;
}

static int64_t
on_command(void *ctx, const struct vfe_chain *chain)
{
	struct admin *admin = ctx;
	uint32_t latency_us = admin->pf->env->knobs.admin_latency_us;
	size_t nr_iov = (size_t)chain->nr_read + chain->nr_write;
	struct admin_cmd *cmd = malloc(sizeof(*cmd) + nr_iov * sizeof(cmd->iov[0]));
	int64_t written;

	if (cmd == NULL) {
		log_err("%s: no memory for an admin command", admin->pf->name);
		return 0;
	}
	cmd->admin = admin;
	cmd->head = chain->head;
	cmd->nr_read = chain->nr_read;
	cmd->nr_write = chain->nr_write;
	cmd->read_len = chain->read_len;
	cmd->write_len = chain->write_len;
	memcpy(cmd->iov, chain->iov, nr_iov * sizeof(cmd->iov[0]));
	cmd->stops = NULL;
	ev_io_init(&cmd->timer, on_latency_over, -1, EV_READ);
	if (latency_us != 0 && latency_begin(cmd, latency_us))
		return CTL_QUEUE_LATER;
	written = execute(admin, cmd);
	if (written == CTL_QUEUE_LATER) {
		LIST_INSERT_HEAD(&admin->in_flight, cmd, next);
		admin->stats.in_flight++;
		return CTL_QUEUE_LATER;
	}
	free(cmd);
	return written;
}

static void
cancel_all(struct admin *admin)
{
	while (!LIST_EMPTY(&admin->in_flight))
		cmd_free(LIST_FIRST(&admin->in_flight));
}

static void
on_signal(void *ctx)
{
	struct admin *admin = ctx;

	vfe_vdev_signal_queue(admin->pf->vdev, admin->pf->admin_qid);
}

static void
on_broken(void *ctx, const char *why)
{
	struct admin *admin = ctx;

	cancel_all(admin);
	function_on_broken(admin->pf, admin->pf->admin_qid, why);
}

static const struct ctl_queue_ops queue_ops = {
	.handle = on_command,
	.signal = on_signal,
	.broken = on_broken,
};

int
admin_create(struct function *pf, struct admin **ret, struct vfe_error *err)
{
	struct admin *admin = calloc(1, sizeof(*admin));

	if (admin == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the admin queue");
	admin->pf = pf;
	LIST_INIT(&admin->in_flight);
	ctl_queue_init(&admin->q, "admin queue", pf->env->loop, &queue_ops, admin);
	*ret = admin;
	return 0;
}

void
admin_destroy(struct admin *admin)
{
	if (admin == NULL)
		return;
	admin_queue_stop(admin, NULL, NULL);
	free(admin);
}

int
admin_queue_start(struct admin *admin, const struct dp_queue_cfg *cfg,
	const struct vfe_iova_map *map, struct vfe_error *err)
{
	return ctl_queue_start(&admin->q, &cfg->ring, map, cfg->kick_fd, err);
}

void
admin_queue_stop(struct admin *admin, uint16_t *ret_avail, uint16_t *ret_used)
{
	cancel_all(admin);
	ctl_queue_stop(&admin->q, ret_avail, ret_used);
}

void
admin_queue_kick(struct admin *admin)
{
	ctl_queue_kick(&admin->q);
}

void
admin_set_map(struct admin *admin, const struct vfe_iova_map *map)
{
	ctl_queue_set_map(&admin->q, map);
}

static bool
uses_memory(const struct admin_cmd *cmd, uintptr_t va, uint64_t size)
{
	uint32_t i;

	for (i = 0; i < (uint32_t)cmd->nr_read + cmd->nr_write; i++) {
		uintptr_t at = (uintptr_t)cmd->iov[i].iov_base;

		if (at < va + size && va < at + cmd->iov[i].iov_len)
			return true;
	}
	return false;
}

void
admin_forget_memory(struct admin *admin, const void *va, uint64_t size)
{
	struct admin_cmd *cmd, *next;

	for (cmd = LIST_FIRST(&admin->in_flight); cmd != NULL; cmd = next) {
		next = LIST_NEXT(cmd, next);
		if (uses_memory(cmd, (uintptr_t)va, size))
			cmd_free(cmd);
	}
}

void
admin_get_stats(const struct admin *admin, struct admin_stats *ret)
{
	*ret = admin->stats;
}
