/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The buses of EAL on which VFs are: PCI for functions of the kernel, vfio_user for sockets.
 *
 * The PCI bus says what there is and keeps other drivers of EAL away; it maps nothing, because
 * functions are opened by our own layer.
 */

#include <bus_pci_driver.h>
#include <rte_dev.h>

#include "vdpa_priv.h"
#include "vfe_bus_vfio_user.h"
#include "vfe_wire_pci.h"

/* --- vfio_user --- */

static int
socket_probe(struct vfe_bus_device *dev)
{
	return vdpa_vf_probe(&dev->bdf, &dev->device);
}

static int
socket_remove(struct vfe_bus_device *dev)
{
	vdpa_vf_unprobe(&dev->bdf);
	return 0;
}

static struct vfe_bus_driver socket_driver = {
	.driver.name = "vfe_vdpa",
	.probe = socket_probe,
	.remove = socket_remove,
};

RTE_INIT(vdpa_socket_driver_register)
{
	vfe_bus_driver_register(&socket_driver);
}

/* --- PCI --- */

static struct vfe_bdf
bdf_of(const struct rte_pci_device *dev)
{
	return (struct vfe_bdf){
		dev->addr.domain, dev->addr.bus, dev->addr.devid, dev->addr.function};
}

static int
kernel_probe(struct rte_pci_driver *driver, struct rte_pci_device *dev)
{
	struct vfe_bdf bdf = bdf_of(dev);

	(void)driver;
	return vdpa_vf_probe(&bdf, &dev->device);
}

static int
kernel_remove(struct rte_pci_device *dev)
{
	struct vfe_bdf bdf = bdf_of(dev);

	vdpa_vf_unprobe(&bdf);
	return 0;
}

static const struct rte_pci_id kernel_ids[] = {
	{RTE_PCI_DEVICE(VFE_PCI_VENDOR_VIRTIO, RTE_PCI_ANY_ID)},
	{.vendor_id = 0},
};

static struct rte_pci_driver kernel_driver = {
	.driver.name = "vfe_vdpa_pci",
	.probe = kernel_probe,
	.remove = kernel_remove,
	.id_table = kernel_ids,
};

RTE_INIT(vdpa_kernel_driver_register)
{
	rte_pci_register(&kernel_driver);
}

/* --- both: a bus keeps a device that nobody took until it is probed again --- */

int
vdpa_bus_plug(const struct vfe_bdf *bdf)
{
	char name[VFE_BDF_STR_SIZE], devargs[64];

	vfe_str_format(devargs, sizeof(devargs), "%s:%s",
		vfe_pci_is_kernel(bdf) ? "pci" : VFE_BUS_VFIO_USER_NAME, vfe_bdf_format(bdf, name));
	return rte_dev_probe(devargs);
}
