/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A block data path that notes what it is told and drains when the test says so.
 */

#undef NDEBUG

#include "fake_bp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bp_disk {
	struct bp_disk_cfg cfg;
	unsigned int users;
	char name[BP_NAME_SIZE];
};

struct bp_port {
	struct fake_bp_port fake;
};

static struct bp_disk disks[4];
static unsigned int nr_disks;
static struct bp_port *ports[8];

struct fake_bp_port *
fake_bp_of(const void *ctx)
{
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(ports); i++) {
		if (ports[i] != NULL && ports[i]->fake.cfg.ctx == ctx)
			return &ports[i]->fake;
	}
	return NULL;
}

int
bp_disk_create(struct dp_engine *engine, const struct bp_disk_cfg *cfg, struct bp_disk **ret,
	struct vfe_error *err)
{
	struct bp_disk *disk = &disks[nr_disks++];

	(void)engine;
	(void)err;
	assert_true(nr_disks <= 4);
	*disk = (struct bp_disk){.cfg = *cfg};
	snprintf(disk->name, sizeof(disk->name), "%s", cfg->name);
	*ret = disk;
	return 0;
}

void
fake_bp_forget_disks(void)
{
	unsigned int i;

	for (i = 0; i < nr_disks; i++)
		assert_int_equal(disks[i].users, 0);
	nr_disks = 0;
}

int
bp_disk_destroy(struct bp_disk *disk, struct vfe_error *err)
{
	(void)err;
	disk->name[0] = '\0';
	return 0;
}

struct bp_disk *
bp_disk_find(struct dp_engine *engine, const char *name)
{
	unsigned int i;

	(void)engine;
	for (i = 0; i < nr_disks; i++) {
		if (strcmp(disks[i].name, name) == 0)
			return &disks[i];
	}
	return NULL;
}

struct bp_disk *
bp_disk_next(struct dp_engine *engine, const struct bp_disk *disk)
{
	(void)engine;
	(void)disk;
	return NULL;
}

void
bp_disk_info(const struct bp_disk *disk, struct bp_disk_info *ret)
{
	*ret = (struct bp_disk_info){
		.name = disk->name,
		.path = "",
		.type = disk->cfg.type,
		.size = disk->cfg.size,
		.block_size = disk->cfg.block_size,
		.physical_block_size = disk->cfg.block_size,
	};
}

bool
bp_disk_read_only(const struct bp_disk *disk)
{
	return disk->cfg.read_only;
}

int
bp_disk_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err)
{
	(void)err;
	disk->cfg.size = size;
	return 0;
}

void
bp_disk_inject(struct bp_disk *disk, const struct bp_inject *inject)
{
	(void)disk;
	(void)inject;
}

int
bp_port_create(struct dp_engine *engine, const struct bp_port_cfg *cfg, struct bp_port **ret,
	struct vfe_error *err)
{
	unsigned int i;

	(void)engine;
	(void)err;
	*ret = calloc(1, sizeof(**ret));
	assert_non_null(*ret);
	(*ret)->fake.cfg = *cfg;
	(*ret)->fake.writeback = true;
	cfg->disk->users++;
	for (i = 0; ports[i] != NULL; i++)
		assert_true(i + 1 < VFE_ARRAY_SIZE(ports));
	ports[i] = *ret;
	return 0;
}

void
bp_port_destroy(struct bp_port *port)
{
	uint16_t i;

	if (port == NULL)
		return;
	for (i = 0; i < FAKE_BP_QUEUES; i++)
		assert_false(port->fake.queues[i].started);
	port->fake.cfg.disk->users--;
	for (i = 0; i < VFE_ARRAY_SIZE(ports); i++) {
		if (ports[i] == port)
			ports[i] = NULL;
	}
	free(port);
}

int
bp_queue_start(
	struct bp_port *port, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	(void)err;
	assert_in_range(qid, 0, FAKE_BP_QUEUES - 1);
	assert_false(port->fake.queues[qid].started);
	port->fake.queues[qid].started = true;
	port->fake.queues[qid].draining = false;
	port->fake.queues[qid].cfg = *cfg;
	return 0;
}

bool
bp_queue_drain(struct bp_port *port, uint16_t qid)
{
	if (!port->fake.queues[qid].started)
		return true;
	port->fake.queues[qid].draining = true;
	return port->fake.queues[qid].in_flight == 0;
}

void
bp_queue_resume(struct bp_port *port, uint16_t qid)
{
	port->fake.queues[qid].draining = false;
}

int
bp_port_settle(struct bp_port *port)
{
	port->fake.settles++;
	return 0;
}

uint32_t
bp_queue_stop(struct bp_port *port, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used)
{
	assert_true(port->fake.queues[qid].started);
	port->fake.queues[qid].started = false;
	*ret_avail = port->fake.queues[qid].cfg.ring.last_avail_idx;
	*ret_used = port->fake.queues[qid].cfg.ring.last_used_idx;
	return port->fake.queues[qid].in_flight;
}

int
bp_port_release(struct bp_port *port, const void *va, uint64_t size)
{
	(void)va;
	(void)size;
	return port->fake.release_error;
}

void
bp_queue_set_call(struct bp_port *port, uint16_t qid, int call_fd)
{
	port->fake.queues[qid].cfg.call_fd = call_fd;
}

void
bp_queue_kick(struct bp_port *port, uint16_t qid)
{
	assert_true(port->fake.queues[qid].started);
	port->fake.queues[qid].kicks++;
}

void
bp_port_set_map(struct bp_port *port, const struct vfe_iova_map *map)
{
	port->fake.map = map;
}

void
bp_port_set_watch(struct bp_port *port, const struct vfe_vring_watch *watch)
{
	port->fake.watch = watch;
}

void
bp_port_set_writeback(struct bp_port *port, bool writeback)
{
	port->fake.writeback = writeback;
}

void
bp_queue_stats(const struct bp_port *port, uint16_t qid, struct bp_queue_stats *ret)
{
	*ret = (struct bp_queue_stats){.in_flight = port->fake.queues[qid].in_flight};
}
