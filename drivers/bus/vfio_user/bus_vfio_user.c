/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A DPDK bus whose devices come from devargs and are named by PCI address.
 *
 * The PCI bus also takes a bare address for its own, and EAL asks it first. So the name that EAL
 * gives us in the short form of devargs still has "vfio_user:" before the address. The scan takes
 * that off: device and devargs then have the address as their name, in the short and the long
 * form alike.
 */

#include "vfe_bus_vfio_user.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <bus_driver.h>
#include <rte_devargs.h>
#include <rte_log.h>

#include "vfe_base.h"

#define NAME_PREFIX VFE_BUS_VFIO_USER_NAME ":"

enum { NR_BUCKETS = 256 };

/* macros that are definitions: no semicolon */
RTE_LOG_REGISTER(bus_log, vfe.bus, NOTICE)

#define BUS_LOG(level, ...) rte_log(RTE_LOG_##level, (uint32_t)bus_log, "vfe.bus: " __VA_ARGS__)

TAILQ_HEAD(device_list, vfe_bus_device);

/* protects devices and buckets, which any thread may search; never held while a driver runs */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct device_list devices = TAILQ_HEAD_INITIALIZER(devices);
static LIST_HEAD(, vfe_bus_device) buckets[NR_BUCKETS]; /* by the low bits of the routing id */
static TAILQ_HEAD(, vfe_bus_driver) drivers = TAILQ_HEAD_INITIALIZER(drivers);

static struct rte_bus bus;

void
vfe_bus_driver_register(struct vfe_bus_driver *driver)
{
	TAILQ_INSERT_TAIL(&drivers, driver, next);
}

static struct vfe_bus_device *
find_locked(const struct vfe_bdf *bdf)
{
	struct vfe_bus_device *dev;

	LIST_FOREACH (dev, &buckets[vfe_bdf_rid(bdf) % NR_BUCKETS], in_bucket) {
		if (vfe_bdf_equal(&dev->bdf, bdf))
			return dev;
	}
	return NULL;
}

struct vfe_bus_device *
vfe_bus_device_find(const struct vfe_bdf *bdf)
{
	struct vfe_bus_device *dev;

	pthread_mutex_lock(&lock);
	dev = find_locked(bdf);
	pthread_mutex_unlock(&lock);
	return dev;
}

static struct vfe_bus_device *
device_of(const struct rte_device *dev)
{
	return vfe_container_of((uintptr_t)dev, struct vfe_bus_device, device);
}

static void
add_device(struct vfe_bus_device *dev)
{
	pthread_mutex_lock(&lock);
	TAILQ_INSERT_TAIL(&devices, dev, next);
	LIST_INSERT_HEAD(&buckets[vfe_bdf_rid(&dev->bdf) % NR_BUCKETS], dev, in_bucket);
	pthread_mutex_unlock(&lock);
}

static void
free_device(struct vfe_bus_device *dev)
{
	pthread_mutex_lock(&lock);
	TAILQ_REMOVE(&devices, dev, next);
	LIST_REMOVE(dev, in_bucket);
	pthread_mutex_unlock(&lock);
	rte_devargs_remove(dev->device.devargs);
	free(dev);
}

/* The address in a name of devargs, with or without the name of the bus before it. */
static int
parse_name(const char *name, struct vfe_bdf *ret)
{
	const size_t prefix = strlen(NAME_PREFIX);

	if (strncmp(name, NAME_PREFIX, prefix) == 0)
		name += prefix;
	return vfe_bdf_parse(name, ret);
}

/* Make the device of @args known, or give @args to the device that is there already. */
static int
scan_one(struct rte_devargs *args)
{
	struct vfe_bus_device *dev;
	struct vfe_bdf bdf;

	if (parse_name(args->name, &bdf) < 0) {
		BUS_LOG(ERR, "%s: not a PCI address such as 0000:af:00.2\n", args->name);
		return 0; /* one bad name must not keep the others from being scanned */
	}
	vfe_bdf_format(&bdf, args->name);

	dev = vfe_bus_device_find(&bdf);
	if (dev != NULL) {
		if (dev->device.devargs != args) {
			/* removes the first of that name, which is the older one */
			rte_devargs_remove(dev->device.devargs);
			dev->device.devargs = args;
		}
		return 0;
	}
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL)
		return -ENOMEM;
	dev->bdf = bdf;
	vfe_bdf_format(&bdf, dev->name);
	dev->device.name = dev->name;
	dev->device.bus = &bus;
	dev->device.numa_node = -1;
	dev->device.devargs = args;
	add_device(dev);
	return 0;
}

static int
bus_scan(void)
{
	struct rte_devargs *args;
	int rc;

	RTE_EAL_DEVARGS_FOREACH (VFE_BUS_VFIO_USER_NAME, args) {
		rc = scan_one(args);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int
probe_device(struct vfe_bus_device *dev)
{
	struct vfe_bus_driver *driver;
	int rc;

	if (dev->device.driver != NULL)
		return -EEXIST;
	if (dev->device.devargs->policy == RTE_DEV_BLOCKED) {
		BUS_LOG(INFO, "%s: blocked by an option of EAL\n", dev->name);
		return 1;
	}
	TAILQ_FOREACH (driver, &drivers, next) {
		rc = driver->probe(dev);
		if (rc > 0)
			continue;
		if (rc == 0)
			dev->device.driver = &driver->driver;
		return rc;
	}
	BUS_LOG(NOTICE, "%s: no driver wants it\n", dev->name);
	return 1;
}

/* At the start of EAL: all devices that the command line names. */
static int
bus_probe(void)
{
	struct vfe_bus_device *dev;
	int rc, ret = 0;

	TAILQ_FOREACH (dev, &devices, next) {
		rc = probe_device(dev);
		if (rc < 0 && rc != -EEXIST) {
			BUS_LOG(ERR, "%s: probing failed: %s\n", dev->name, strerror(-rc));
			ret = -1;
		}
	}
	return ret;
}

static int
bus_plug(struct rte_device *dev)
{
	return probe_device(device_of(dev));
}

static int
remove_driver(struct vfe_bus_device *dev)
{
	const struct vfe_bus_driver *driver;
	int rc;

	if (dev->device.driver == NULL)
		return 0;
	driver = vfe_container_of(
		(uintptr_t)dev->device.driver, const struct vfe_bus_driver, driver);
	rc = driver->remove(dev);
	if (rc == 0)
		dev->device.driver = NULL;
	return rc;
}

static int
bus_unplug(struct rte_device *rte_dev)
{
	struct vfe_bus_device *dev = device_of(rte_dev);
	int rc = remove_driver(dev);

	if (rc == 0)
		free_device(dev);
	return rc;
}

static int
bus_cleanup(void)
{
	struct vfe_bus_device *dev;
	int rc, ret = 0;

	while ((dev = TAILQ_FIRST(&devices)) != NULL) {
		rc = remove_driver(dev);
		if (rc < 0) {
			BUS_LOG(ERR, "%s: removing failed: %s\n", dev->name, strerror(-rc));
			ret = -1;
		}
		free_device(dev);
	}
	return ret;
}

static struct rte_device *
bus_find_device(const struct rte_device *start, rte_dev_cmp_t cmp, const void *data)
{
	struct vfe_bus_device *dev;

	pthread_mutex_lock(&lock);
	dev = start != NULL ? TAILQ_NEXT(device_of(start), next) : TAILQ_FIRST(&devices);
	while (dev != NULL && cmp(&dev->device, data) != 0)
		dev = TAILQ_NEXT(dev, next);
	pthread_mutex_unlock(&lock);
	return dev != NULL ? &dev->device : NULL;
}

/* A bare address belongs to the PCI bus: only "vfio_user:<address>" is surely ours. */
static int
bus_parse(const char *name, void *addr)
{
	struct vfe_bdf bdf;

	if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0 || parse_name(name, &bdf) < 0)
		return -EINVAL;
	if (addr != NULL)
		*(struct vfe_bdf *)addr = bdf;
	return 0;
}

static struct rte_bus bus = {
	.scan = bus_scan,
	.probe = bus_probe,
	.find_device = bus_find_device,
	.plug = bus_plug,
	.unplug = bus_unplug,
	.parse = bus_parse,
	.cleanup = bus_cleanup,
};

RTE_REGISTER_BUS(vfio_user, bus)
