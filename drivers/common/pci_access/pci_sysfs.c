/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What sysfs says about kernel functions: driver, IOMMU group, SR-IOV relations.
 */

#include "pci_sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *pci_root = "";

int
pci_sysfs_path(char dst[PCI_PATH_SIZE], const char *name, const char *attr)
{
	return vfe_str_format(dst, PCI_PATH_SIZE, "%s/sys/bus/pci/devices/%s%s%s", pci_root, name,
		attr[0] != '\0' ? "/" : "", attr);
}

bool
vfe_pci_is_kernel(const struct vfe_bdf *bdf)
{
	char name[VFE_BDF_STR_SIZE], path[PCI_PATH_SIZE];

	return pci_sysfs_path(path, vfe_bdf_format(bdf, name), "") == 0 && access(path, F_OK) == 0;
}

/* The last component of the target of the link @path. */
static int
link_name(const char *path, char *dst, size_t size)
{
	char target[PCI_PATH_SIZE];
	const char *last;
	ssize_t n;

	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	last = strrchr(target, '/');
	return vfe_str_copy(dst, size, last != NULL ? last + 1 : target);
}

int
pci_sysfs_link(const char *name, const char *attr, char *dst, size_t size)
{
	char path[PCI_PATH_SIZE];
	int rc = pci_sysfs_path(path, name, attr);

	return rc < 0 ? rc : link_name(path, dst, size);
}

/* First line of the file @path. */
static int
read_word(const char *path, char *dst, size_t size)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, dst, size - 1);
	vfe_close(&fd);
	if (n < 0)
		return -errno;
	dst[n] = '\0';
	dst[strcspn(dst, "\n")] = '\0';
	return 0;
}

int
pci_sysfs_read_u32(const char *name, const char *attr, uint32_t *ret)
{
	char path[PCI_PATH_SIZE], word[PCI_WORD_SIZE], *end;
	unsigned long v;
	int rc;

	rc = pci_sysfs_path(path, name, attr);
	if (rc == 0)
		rc = read_word(path, word, sizeof(word));
	if (rc < 0)
		return rc;
	errno = 0;
	v = strtoul(word, &end, 0);
	if (end == word || *end != '\0' || errno != 0 || v > UINT32_MAX)
		return -EPROTO;
	*ret = (uint32_t)v;
	return 0;
}

int
pci_sysfs_write(const char *path, const char *text)
{
	size_t len = strlen(text);
	ssize_t n;
	int fd, rc;

	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, len);
	rc = n < 0 ? -errno : n == (ssize_t)len ? 0 : -EIO;
	vfe_close(&fd);
	return rc;
}

int
pci_sysfs_check_driver(const char *name, struct vfe_error *err)
{
	char driver[PCI_WORD_SIZE];
	int rc = pci_sysfs_link(name, "driver", driver, sizeof(driver));

	/* vfio-pci, or one made from it for a family of devices (mlx5_vfio_pci ...) */
	if (rc == 0 && strstr(driver, "vfio") != NULL)
		return 0;
	if (rc < 0 && rc != -ENOENT)
		return vfe_error_set(err, rc, "cannot see its driver: %s", strerror(-rc));
	return vfe_error_set(err, rc == 0 ? -EBUSY : -ENODEV,
		"is bound to %s; bind it with: ./scripts/bind --bind vfio-pci %s",
		rc == 0 ? driver : "no driver", name);
}

int
vfe_pci_check_driver(const struct vfe_bdf *bdf, struct vfe_error *err)
{
	char name[VFE_BDF_STR_SIZE];

	return vfe_pci_is_kernel(bdf) ? pci_sysfs_check_driver(vfe_bdf_format(bdf, name), err) : 0;
}

static bool
group_is_noiommu(unsigned int group)
{
	char path[PCI_PATH_SIZE], word[PCI_WORD_SIZE];

	return vfe_str_format(path, sizeof(path), "%s/sys/kernel/iommu_groups/%u/name", pci_root,
		       group) == 0 &&
	       read_word(path, word, sizeof(word)) == 0 && strcmp(word, "vfio-noiommu") == 0;
}

int
pci_sysfs_group(const char *name, bool *noiommu, unsigned int *ret, struct vfe_error *err)
{
	char word[PCI_WORD_SIZE], *end;
	const bool allowed = *noiommu;
	unsigned long v;
	int rc;

	rc = pci_sysfs_link(name, "iommu_group", word, sizeof(word));
	if (rc < 0)
		return vfe_error_set(err, -ENODEV,
			"%s has no IOMMU group: switch the IOMMU on, in the firmware (VT-d, "
			"AMD-Vi, "
			"SMMU) and in the kernel (intel_iommu=on iommu=pt)",
			name);
	errno = 0;
	v = strtoul(word, &end, 10);
	if (end == word || *end != '\0' || errno != 0 || v > UINT32_MAX)
		return vfe_error_set(err, -EPROTO, "its IOMMU group has the name %s", word);
	*ret = (unsigned int)v;
	*noiommu = group_is_noiommu(*ret);
	if (*noiommu && !allowed)
		return vfe_error_set(err, -ENOTSUP,
			"is in no-IOMMU mode: nothing would translate the guest's addresses or "
			"protect other memory; switch the IOMMU on (intel_iommu=on iommu=pt); a "
			"plain function can be allowed (--plain --allow-no-iommu)");
	return 0;
}

void
pci_sysfs_group_others(unsigned int group, const char *name, char *dst, size_t size)
{
	char path[PCI_PATH_SIZE], driver[PCI_WORD_SIZE];
	const struct dirent *entry;
	size_t used = 0;
	DIR *dir = NULL;

	dst[0] = '\0';
	if (vfe_str_format(path, sizeof(path), "%s/sys/kernel/iommu_groups/%u/devices", pci_root,
		    group) == 0)
		dir = opendir(path);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || strcmp(entry->d_name, name) == 0)
			continue;
		if (pci_sysfs_link(entry->d_name, "driver", driver, sizeof(driver)) < 0)
			vfe_str_copy(driver, sizeof(driver), "no driver");
		if (vfe_str_format(dst + used, size - used, "%s%s (%s)", used > 0 ? ", " : "",
			    entry->d_name, driver) < 0)
			break;
		used += strlen(dst + used);
	}
	if (dir != NULL)
		closedir(dir);
}

/* --- who uses it --- */

static bool
process_has_open(const char *pid, const char *path)
{
	char folder[PCI_PATH_SIZE], link[PCI_PATH_SIZE], target[PCI_PATH_SIZE];
	const struct dirent *entry;
	bool found = false;
	DIR *dir = NULL;
	ssize_t n;

	if (vfe_str_format(folder, sizeof(folder), "%s/proc/%s/fd", pci_root, pid) == 0)
		dir = opendir(folder);
	while (!found && dir != NULL && (entry = readdir(dir)) != NULL) {
		if (vfe_str_format(link, sizeof(link), "%s/%s", folder, entry->d_name) < 0)
			continue;
		n = readlink(link, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = '\0';
		found = strcmp(target, path) == 0;
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}

void
pci_sysfs_users(const char *path, char *dst, size_t size)
{
	char folder[PCI_PATH_SIZE], comm[PCI_PATH_SIZE], name[PCI_WORD_SIZE];
	const struct dirent *entry;
	size_t used = 0;
	DIR *dir = NULL;

	dst[0] = '\0';
	if (vfe_str_format(folder, sizeof(folder), "%s/proc", pci_root) == 0)
		dir = opendir(folder);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]) ||
			!process_has_open(entry->d_name, path))
			continue;
		if (vfe_str_format(comm, sizeof(comm), "%s/%s/comm", folder, entry->d_name) < 0 ||
			read_word(comm, name, sizeof(name)) < 0)
			continue;
		if (vfe_str_format(dst + used, size - used, "%s%s (pid %s)", used > 0 ? ", " : "",
			    name, entry->d_name) < 0)
			break;
		used += strlen(dst + used);
	}
	if (dir != NULL)
		closedir(dir);
}

/* --- which VF of which PF --- */

int
vfe_pci_vf_parent(
	const struct vfe_bdf *vf, struct vfe_bdf *ret_pf, int *ret_index, struct vfe_error *err)
{
	char name[VFE_BDF_STR_SIZE], pf[PCI_WORD_SIZE], link[PCI_WORD_SIZE], attr[PCI_WORD_SIZE];
	int i, rc;

	vfe_bdf_format(vf, name);
	if (!vfe_pci_is_kernel(vf))
		return vfe_error_set(err, -ENOENT, "%s is no function of the kernel", name);
	rc = pci_sysfs_link(name, "physfn", pf, sizeof(pf));
	if (rc < 0 || vfe_bdf_parse(pf, ret_pf) < 0)
		return vfe_error_set(err, -ENODEV, "%s is no VF: sysfs shows no PF of it", name);
	for (i = 0; i <= UINT16_MAX; i++) {
		rc = vfe_str_format(attr, sizeof(attr), "virtfn%d", i);
		if (rc == 0)
			rc = pci_sysfs_link(pf, attr, link, sizeof(link));
		if (rc < 0)
			break;
		if (strcmp(link, name) == 0) {
			*ret_index = i;
			return 0;
		}
	}
	return vfe_error_set(err, -ENODEV, "%s is not among the VFs of its PF %s", name, pf);
}
