/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The DPDK bus "vfio_user": functions behind vfio-user sockets, named by their PCI address.
 *
 *	rte_dev_probe("vfio_user:0000:af:00.2,key=value")
 *	rte_dev_probe("bus=vfio_user,name=0000:af:00.2/driver=vfe_vdpa,key=value")
 *
 * The bus knows devices by their devargs only and opens nothing: it looks for no socket and reads
 * no directory. The driver's probe does that (vfe_pci_find(), vfe_pci_open()). Probing a device
 * that has a driver already changes its devargs and nothing else; EAL then returns 0. A device
 * whose probe failed stays known, without a driver, until it is probed again or EAL cleans up.
 *
 * As everywhere in EAL, probing and removing come from one thread at a time. Looking a device up
 * is safe from any thread.
 */

#ifndef VFE_BUS_VFIO_USER_H
#define VFE_BUS_VFIO_USER_H

#include <dev_driver.h>

#include "vfe_bdf.h"

#define VFE_BUS_VFIO_USER_NAME "vfio_user"

/* A device of the bus; lives from its probing to its removal. */
struct vfe_bus_device {
	struct rte_device device; /* device.name is the address, device.devargs the arguments */
	struct vfe_bdf bdf;
	void *priv; /* the driver's */

	/* --- the bus's */
	TAILQ_ENTRY(vfe_bus_device) next;     /* all devices */
	LIST_ENTRY(vfe_bus_device) in_bucket; /* found by address */
	char name[VFE_BDF_STR_SIZE];
};

struct vfe_bus_driver {
	struct rte_driver driver; /* driver.name is set by the driver */

	/* Take the device: 0; > 0 = not mine; -errno = mine, but it failed. */
	int (*probe)(struct vfe_bus_device *dev);

	/* Release it: 0, or -errno when it is in use (it then stays). */
	int (*remove)(struct vfe_bus_device *dev);

	TAILQ_ENTRY(vfe_bus_driver) next; /* the bus's */
};

/* Add a driver, asked in the order of registration; from a constructor or before rte_eal_init(). */
void vfe_bus_driver_register(struct vfe_bus_driver *driver);

/* The device at @bdf, or NULL. Any thread. */
struct vfe_bus_device *vfe_bus_device_find(const struct vfe_bdf *bdf);

#endif /* VFE_BUS_VFIO_USER_H */
