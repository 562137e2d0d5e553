/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Creates the VFs of a kernel PF and gives them to vfio-pci: all of them, or none.
 */

#include <errno.h>
#include <string.h>

#include "pci_sysfs.h"

static int
write_attr(const char *name, const char *attr, const char *text)
{
	char path[PCI_PATH_SIZE];
	int rc = pci_sysfs_path(path, name, attr);

	return rc < 0 ? rc : pci_sysfs_write(path, text);
}

static int
write_numvfs(const char *pf, unsigned int n)
{
	char text[16];
	uint32_t now;
	int rc;

	rc = vfe_str_format(text, sizeof(text), "%u", n);
	if (rc == 0)
		rc = write_attr(pf, "sriov_numvfs", text);
	if (rc == 0)
		rc = pci_sysfs_read_u32(pf, "sriov_numvfs", &now);
	if (rc < 0)
		return rc;
	return now == n ? 0 : -EIO;
}

/* Give VF @i of @pf to vfio-pci, which may have it already. */
static int
bind_vf(const char *pf, unsigned int i, struct vfe_error *err)
{
	char attr[PCI_WORD_SIZE], vf[PCI_WORD_SIZE], path[PCI_PATH_SIZE];
	int rc;

	rc = vfe_str_format(attr, sizeof(attr), "virtfn%u", i);
	if (rc == 0)
		rc = pci_sysfs_link(pf, attr, vf, sizeof(vf));
	if (rc < 0)
		return vfe_error_set(err, rc, "VF %u of %s has not come: %s", i, pf, strerror(-rc));
	if (pci_sysfs_check_driver(vf, NULL) == 0)
		return 0;
	rc = write_attr(vf, "driver_override", "vfio-pci");
	if (rc < 0)
		return vfe_error_set(
			err, rc, "cannot choose vfio-pci for %s: %s", vf, strerror(-rc));
	rc = vfe_str_format(path, sizeof(path), "%s/sys/bus/pci/drivers_probe", pci_root);
	if (rc == 0)
		rc = pci_sysfs_write(path, vf);
	if (rc < 0)
		return vfe_error_set(err, rc, "cannot bind %s to vfio-pci: %s", vf, strerror(-rc));
	rc = pci_sysfs_check_driver(vf, err);
	return rc < 0 ? vfe_error_prefix(err, rc, "%s", vf) : 0;
}

static int
create_error(const char *pf, unsigned int n, int rc, struct vfe_error *err)
{
	if (rc == -ENOENT)
		return vfe_error_set(err, rc,
			"vfio-pci does not create VFs of %s: allow it with: echo 1 > "
			"/sys/module/vfio_pci/parameters/enable_sriov",
			pf);
	return vfe_error_set(err, rc, "the kernel does not create %u VFs of %s: %s", n, pf,
		rc == -EIO ? "it created another number" : strerror(-rc));
}

/* With probing off, so that no other driver gets hold of a VF first. */
static int
create_and_bind(const char *pf, unsigned int n, struct vfe_error *err)
{
	uint32_t autoprobe = 1;
	unsigned int i;
	int rc;

	pci_sysfs_read_u32(pf, "sriov_drivers_autoprobe", &autoprobe);
	rc = write_attr(pf, "sriov_drivers_autoprobe", "0");
	if (rc < 0)
		return vfe_error_set(err, rc,
			"cannot keep other drivers away from the VFs of %s: %s", pf, strerror(-rc));
	rc = write_numvfs(pf, n);
	write_attr(pf, "sriov_drivers_autoprobe", autoprobe != 0 ? "1" : "0");
	if (rc < 0)
		create_error(pf, n, rc, err);
	for (i = 0; i < n && rc == 0; i++)
		rc = bind_vf(pf, i, err);
	if (rc < 0)
		write_numvfs(pf, 0);
	return rc;
}

int
vfe_pci_vfs_create(const struct vfe_bdf *pf, unsigned int n, struct vfe_error *err)
{
	char name[VFE_BDF_STR_SIZE];
	uint32_t total, now;
	int rc;

	vfe_bdf_format(pf, name);
	if (!vfe_pci_is_kernel(pf))
		return vfe_error_set(err, -ENOTSUP,
			"%s is no function of the kernel: whoever serves it decides on its VFs",
			name);
	rc = pci_sysfs_check_driver(name, err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "%s", name);
	if (pci_sysfs_read_u32(name, "sriov_totalvfs", &total) < 0 ||
		pci_sysfs_read_u32(name, "sriov_numvfs", &now) < 0)
		return vfe_error_set(err, -ENOTSUP, "%s has no SR-IOV", name);
	if (n == 0 || n > total)
		return vfe_error_set(
			err, -ERANGE, "%s can have 1 to %u VFs, not %u", name, total, n);
	if (now == n)
		return 0;
	if (now != 0)
		return vfe_error_set(err, -EBUSY,
			"%s has %u VFs, not %u; the kernel changes the number by way of 0: echo 0 "
			"> "
			"/sys/bus/pci/devices/%s/sriov_numvfs",
			name, now, n, name);
	rc = create_and_bind(name, n, err);
	return rc < 0 ? rc : 1;
}

int
vfe_pci_vfs_destroy(const struct vfe_bdf *pf, struct vfe_error *err)
{
	char name[VFE_BDF_STR_SIZE];
	int rc = write_numvfs(vfe_bdf_format(pf, name), 0);

	return rc < 0 ? vfe_error_set(err, rc, "the kernel does not remove the VFs of %s: %s", name,
				strerror(-rc))
		      : 0;
}
