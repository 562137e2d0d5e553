/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the parts of the world have in common, EAL, and the beginning and end of it.
 */

#undef NDEBUG

#include "fake_world.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <bus_pci_driver.h>
#include <rte_dev.h>
#include <rte_lcore.h>
#include <rte_log.h>

#include "vdpa_priv.h"
#include "vfe_bus_vfio_user.h"

enum { WAIT_S = 10 }; /* for anything; far more than it takes */

struct fake_world world = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.cond = PTHREAD_COND_INITIALIZER,
};
const struct vfe_bdf fake_pf = {0, 0xaf, 0, 2};

struct vfe_bdf
fake_vf(unsigned int i)
{
	return (struct vfe_bdf){0, 0xaf, FAKE_VF_DEV, (uint8_t)i};
}

void
fake_until(struct timespec *ts)
{
	clock_gettime(CLOCK_REALTIME, ts);
	ts->tv_sec += WAIT_S;
}

bool
fake_stage_fails(enum fake_stage stage, int *ret)
{
	bool fails = false;

	pthread_mutex_lock(&world.lock);
	if (world.fail_stage == stage && world.fail_from > 0)
		world.fail_from--;
	else if (world.fail_stage == stage)
		fails = true;
	*ret = world.fail_errno;
	pthread_mutex_unlock(&world.lock);
	return fails;
}

void
fake_stage(enum fake_stage stage, unsigned int passes, int neg_errno)
{
	pthread_mutex_lock(&world.lock);
	world.fail_stage = stage;
	world.fail_from = passes;
	world.fail_errno = neg_errno;
	pthread_mutex_unlock(&world.lock);
}

struct vfe_vdpa_vf_info *
fake_info(unsigned int i)
{
	static struct vfe_vdpa_vf_info info;
	struct vfe_bdf bdf = fake_vf(i);

	assert_int_equal(vfe_vdpa_vf_info(&bdf, &info), 0);
	return &info;
}

/* A VF that is lost is so for people at once, and for a return of the device after its last job. */
static bool
state_reached_locked(struct vdpa_vf *vf, const char *state)
{
	if (strcmp(vdpa_state_name(vf), state) != 0)
		return false;
	return strcmp(state, "lost") != 0 || vf->state == VDPA_S_LOST;
}

struct fake_regs
fake_regs(unsigned int i)
{
	struct fake_regs r;

	pthread_mutex_lock(&world.lock);
	r = world.vf[i].regs;
	pthread_mutex_unlock(&world.lock);
	return r;
}

void
fake_wait_state(unsigned int i, const char *state)
{
	struct vfe_bdf bdf = fake_vf(i);
	struct vdpa_vf *vf = vdpa_vf_find(&bdf);
	const struct timespec at = vfe_deadline_timespec(vfe_deadline_in_ms(WAIT_S * 1000));
	bool reached;

	pthread_mutex_lock(&vf->lock);
	while (!state_reached_locked(vf, state)) {
		if (pthread_cond_timedwait(&vf->changed, &vf->lock, &at) == ETIMEDOUT)
			break;
	}
	reached = state_reached_locked(vf, state);
	pthread_mutex_unlock(&vf->lock);
	if (!reached)
		fail_msg("VF is %s, expected %s", fake_info(i)->state, state);
	fake_flush();
}

void
fake_wait_unmapped(void)
{
	struct timespec ts;
	int ret = 0;

	fake_until(&ts);
	pthread_mutex_lock(&world.lock);
	while (ret == 0 && world.mapped != 0)
		ret = pthread_cond_timedwait(&world.cond, &world.lock, &ts);
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(ret, 0);
}
/* --- EAL --- */

static struct rte_pci_driver *pci_driver;
static struct rte_pci_device *pci_devices[FAKE_VFS];

void
rte_pci_register(struct rte_pci_driver *driver)
{
	pci_driver = driver;
}

static int
probe_kernel(const struct vfe_bdf *bdf)
{
	struct rte_pci_device *dev = calloc(1, sizeof(*dev));
	int ret;

	assert(dev != NULL && pci_devices[bdf->fn] == NULL && pci_driver->drv_flags == 0);
	dev->addr = (struct rte_pci_addr){bdf->domain, bdf->bus, bdf->dev, bdf->fn};
	vfe_bdf_format(bdf, dev->name);
	dev->device.name = dev->name;
	ret = pci_driver->probe(pci_driver, dev);
	if (ret == 0)
		pci_devices[bdf->fn] = dev;
	else
		free(dev);
	return ret;
}

static struct vfe_bus_driver *bus_driver;
static struct vfe_bus_device *bus_devices[FAKE_VFS];

void
vfe_bus_driver_register(struct vfe_bus_driver *driver)
{
	bus_driver = driver;
}

struct vfe_bus_device *
vfe_bus_device_find(const struct vfe_bdf *bdf)
{
	return bus_devices[bdf->fn];
}

int
rte_dev_probe(const char *devargs)
{
	struct vfe_bus_device *dev;
	struct vfe_bdf bdf;
	int ret;

	if (fake_stage_fails(FAKE_STAGE_PROBE, &ret))
		return ret;
	if (strncmp(devargs, "pci:", 4) == 0) {
		assert(world.kernel && vfe_bdf_parse(devargs + 4, &bdf) == 0);
		return probe_kernel(&bdf);
	}
	assert(strncmp(devargs, "vfio_user:", 10) == 0);
	assert(vfe_bdf_parse(devargs + 10, &bdf) == 0);
	dev = bus_devices[bdf.fn];
	if (dev == NULL) {
		dev = calloc(1, sizeof(*dev));
		assert(dev != NULL);
		dev->bdf = bdf;
		vfe_bdf_format(&bdf, dev->name);
		dev->device.name = dev->name;
		bus_devices[bdf.fn] = dev;
	}
	ret = bus_driver->probe(dev);
	if (ret == 0)
		dev->device.driver = &bus_driver->driver;
	return ret;
}

int
rte_dev_remove(struct rte_device *rte_dev)
{
	struct vfe_bus_device *dev;
	unsigned int i;

	for (i = 0; i < FAKE_VFS; i++) {
		if (pci_devices[i] == NULL || rte_dev != &pci_devices[i]->device)
			continue;
		assert(pci_driver->remove(pci_devices[i]) == 0);
		free(pci_devices[i]);
		pci_devices[i] = NULL;
		return 0;
	}
	dev = vfe_container_of(rte_dev, struct vfe_bus_device, device);
	if (rte_dev->driver != NULL)
		assert(bus_driver->remove(dev) == 0);
	bus_devices[dev->bdf.fn] = NULL;
	free(dev);
	return 0;
}

int
rte_ctrl_thread_create(pthread_t *thread, const char *name, const pthread_attr_t *attr,
	void *(*start)(void *), void *arg)
{
	(void)name;
	return pthread_create(thread, attr, start, arg);
}
/* --- the driver --- */

static void
on_lost(void *ctx, const struct vfe_bdf *bdf, const char *why)
{
	(void)ctx;
	(void)why;
	pthread_mutex_lock(&world.lock);
	world.lost_calls++;
	vfe_bdf_format(bdf, world.lost_name);
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
}

static void
on_refreshed(void *ctx)
{
	(void)ctx;
	pthread_mutex_lock(&world.lock);
	world.refreshes++;
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
}

static void
world_start(void)
{
	struct vfe_vdpa_cfg cfg = {
		.vfio_user_dir = "/nowhere",
		.on_lost = on_lost,
		.on_refreshed = on_refreshed,
	};
	unsigned int i;

	rte_log_set_global_level(RTE_LOG_EMERG);
	for (i = 0; i < FAKE_VFS; i++) {
		if (world.vf[i].has_state)
			vfe_state_fini(&world.vf[i].state);
	}
	memset(world.vf, 0, sizeof(world.vf));
	world.automatic = true;
	world.fail_stage = FAKE_STAGE_NONE;
	world.fail_map = 0;
	world.fail_reset = false;
	world.no_ring_reset = false;
	world.on_queue_enable = NULL;
	world.no_iommu = false;
	world.no_indirect = false;
	world.no_huge_pages = false;
	world.mac_last = 1;
	world.link_status = VFE_NET_S_LINK_UP;
	world.lost_calls = 0;
	world.refreshes = 0;
	world.maps = 0;
	world.unmaps = 0;
	world.kernel = false;
	world.no_driver = false;
	world.created_vfs = 0;
	world.detaches = 0;
	memset(&world.caps, 0, sizeof(world.caps));
	memset(world.fail_kind, 0, sizeof(world.fail_kind));
	memset(world.count, 0, sizeof(world.count));
	fake_track_reset();
	/* what is not to end in a test is long, and what all wait for is short */
	vdpa_globals.ms = (struct vdpa_times){.suspend = 10000,
		.grace = 60000,
		.sibling = 60000,
		.retry = 50,
		.refresh = 20,
		.park = 2000,
		.slave = 200};
	assert_int_equal(vfe_vdpa_init(&cfg, NULL), 0);
}

void
fake_start(void)
{
	world.blk = false;
	world_start();
}

void
fake_start_blk(void)
{
	world.blk = true;
	world.disk = (struct vfe_wire_blk_config){
		.capacity = htole64(2048),
		.seg_max = htole32(254),
		.blk_size = htole32(512),
		.writeback = 1,
		.num_queues = htole16(FAKE_QUEUES),
	};
	world.config_writes = 0;
	world_start();
}

void
fake_stop(void)
{
	pthread_mutex_lock(&world.lock);
	world.automatic = true;
	world.fail_stage = FAKE_STAGE_NONE;
	world.fail_reset = false;
	fake_admin_wake_locked();
	pthread_mutex_unlock(&world.lock);
	vfe_vdpa_fini();
	assert_int_equal(world.open_devices, 0);
	assert_int_equal(world.domains, 0);
	assert_int_equal(world.mapped, 0);
	assert_int_equal(world.arenas, 0);
	assert_int_equal(world.registered, 0);
}
