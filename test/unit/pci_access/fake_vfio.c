/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: /dev/vfio and sysfs of a kernel that does what a test wants.
 */

#undef NDEBUG

#include "fake_vfio.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "pci_sysfs.h"
#include "vfe_wire_pci.h"

enum { PATH_SIZE = 256, MAX_FD = 512 };

struct fake_vfio fv;
struct vfe_error fv_err;

int __real_open64(const char *path, int flags, ...);
int __real_close(int fd);
int __real_ioctl(int fd, unsigned long request, ...);
ssize_t __real_write(int fd, const void *buf, size_t len);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_close(int fd);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __wrap_write(int fd, const void *buf, size_t len);

/* --- the tree --- */

static void
make_parents(char *path)
{
	char *p;

	for (p = path + strlen(fv.root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
}

static void
tree_path(char *dst, const char *path)
{
	assert(vfe_str_format(dst, PATH_SIZE, "%s/%s", fv.root, path) == 0);
}

void
fv_file(const char *path, const char *content)
{
	char full[PATH_SIZE];
	FILE *f;

	tree_path(full, path);
	make_parents(full);
	f = fopen(full, "w");
	assert(f != NULL);
	fputs(content, f);
	fclose(f);
}

void
fv_link(const char *path, const char *target)
{
	char full[PATH_SIZE];

	tree_path(full, path);
	make_parents(full);
	unlink(full);
	assert(symlink(target, full) == 0);
}

void
fv_remove(const char *path)
{
	char full[PATH_SIZE];

	tree_path(full, path);
	assert(remove(full) == 0);
}

void
fv_read(const char *path, char *dst, size_t size)
{
	char full[PATH_SIZE];
	FILE *f;
	size_t n;

	tree_path(full, path);
	f = fopen(full, "r");
	assert(f != NULL);
	n = fread(dst, 1, size - 1, f);
	dst[n] = '\0';
	fclose(f);
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void
fv_start(void)
{
	memset(&fv, 0, sizeof(fv));
	strncpy(fv.root, "/tmp/vfe-fake-vfio-XXXXXX", sizeof(fv.root) - 1);
	assert(mkdtemp(fv.root) != NULL);
	pci_root = fv.root;
	fv.api_version = VFIO_API_VERSION;
	fv.pgsizes = 0x40201000;
	fv.device_flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	fv.irq_flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
	fv.irq_count = FV_IRQS;
	fv.irq_room = FV_IRQS;
	fv.config_size = VFE_PCIE_CFG_SIZE;
	fv.sparse_areas = 1;
	fv.bar0_size = FV_BAR0_SIZE;
	fv.area = (struct vfio_region_sparse_mmap_area){FV_BAR0_AREA, FV_BAR0_AREA_SIZE};
	fv_file("dev/vfio/vfio", "");
	fv_file("sys/bus/pci/drivers_probe", "");
}

void
fv_stop(void)
{
	unsigned int i;

	for (i = 0; i < fv.nr_functions; i++)
		__real_close(fv.functions[i].mem);
	pci_root = "";
	assert(nftw(fv.root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

void
fv_set_driver(const char *bdf, const char *driver)
{
	char path[PATH_SIZE], target[PATH_SIZE];

	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/driver", bdf);
	if (driver == NULL) {
		fv_remove(path);
		return;
	}
	snprintf(target, sizeof(target), "../../../../bus/pci/drivers/%s", driver);
	fv_link(path, target);
}

static int
memory_file(off_t size, uint64_t *ret_ino)
{
	struct stat st;
	int fd = memfd_create("fake-vfio", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert(fd >= 0 && ftruncate(fd, size) == 0 && fstat(fd, &st) == 0);
	*ret_ino = st.st_ino;
	return fd;
}

static struct fv_group *
group_by_number(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < fv.nr_groups; i++) {
		if (fv.groups[i].number == number)
			return &fv.groups[i];
	}
	return NULL;
}

struct fv_function *
fv_add(const char *bdf, unsigned int group)
{
	struct fv_function *f = &fv.functions[fv.nr_functions++];
	char path[PATH_SIZE], target[PATH_SIZE];
	uint64_t ino;

	assert(fv.nr_functions <= FV_MAX_FUNCTIONS);
	strncpy(f->name, bdf, sizeof(f->name) - 1);
	f->group = group;
	f->err_fd = f->req_fd = -1;
	memset(f->irq_fds, -1, sizeof(f->irq_fds));
	f->mem = memory_file((off_t)(VFIO_PCI_CONFIG_REGION_INDEX + 1) << FV_REGION_SHIFT, &ino);
	if (group_by_number(group) == NULL)
		fv.groups[fv.nr_groups++].number = group;

	fv_set_driver(bdf, "vfio-pci");
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/iommu_group", bdf);
	snprintf(target, sizeof(target), "../../../kernel/iommu_groups/%u", group);
	fv_link(path, target);
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/driver_override", bdf);
	fv_file(path, "");
	snprintf(path, sizeof(path), "sys/kernel/iommu_groups/%u/devices/%s", group, bdf);
	fv_file(path, "");
	snprintf(path, sizeof(path), "dev/vfio/%u", group);
	fv_file(path, "");
	return f;
}

void
fv_set_noiommu(unsigned int group)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof(path), "dev/vfio/%u", group);
	fv_remove(path);
	snprintf(path, sizeof(path), "dev/vfio/noiommu-%u", group);
	fv_file(path, "");
	snprintf(path, sizeof(path), "sys/kernel/iommu_groups/%u/name", group);
	fv_file(path, "vfio-noiommu\n");
	fv.noiommu = true;
}

/* --- objects --- */

static void __attribute__((format(printf, 1, 2))) logf_word(const char *fmt, ...)
{
	size_t used = strlen(fv.log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fv.log + used, sizeof(fv.log) - used, fmt, ap);
	va_end(ap);
	strncat(fv.log, " ", sizeof(fv.log) - strlen(fv.log) - 1);
}

static uint64_t
ino_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* How many fds of this process are of the same file? */
static unsigned int
references(int fd)
{
	uint64_t ino = ino_of(fd);
	unsigned int n = 0;
	int other;

	for (other = 0; other < MAX_FD; other++)
		n += ino_of(other) == ino;
	return n;
}

static struct fv_container *
container_of_fd(int fd)
{
	uint64_t ino = ino_of(fd);
	unsigned int i;

	for (i = 0; i < fv.nr_containers; i++) {
		if (ino != 0 && fv.containers[i].ino == ino)
			return &fv.containers[i];
	}
	return NULL;
}

static struct fv_group *
group_of_fd(int fd)
{
	uint64_t ino = ino_of(fd);
	unsigned int i;

	for (i = 0; i < fv.nr_groups; i++) {
		if (ino != 0 && fv.groups[i].ino == ino)
			return &fv.groups[i];
	}
	return NULL;
}

static struct fv_function *
function_of_fd(int fd)
{
	uint64_t ino = ino_of(fd);
	unsigned int i;

	for (i = 0; i < fv.nr_functions; i++) {
		if (ino != 0 && fv.functions[i].ino == ino)
			return &fv.functions[i];
	}
	return NULL;
}

static bool
fails(unsigned long request, uint32_t index)
{
	if (fv.fail_ioctl != request || fv.fail_times == 0 ||
		(fv.fail_index != UINT32_MAX && fv.fail_index != index))
		return false;
	if (fv.fail_after > 0) {
		fv.fail_after--;
		return false;
	}
	fv.fail_times--;
	errno = fv.fail_errno;
	return true;
}

void
fv_fail_ioctl(unsigned long request, uint32_t index, unsigned int after, unsigned int n, int err)
{
	fv.fail_ioctl = request;
	fv.fail_index = index;
	fv.fail_after = after;
	fv.fail_times = n;
	fv.fail_errno = err;
}

void
fv_fail_open(const char *name, unsigned int n, int err)
{
	fv.fail_open = name;
	fv.fail_times = n;
	fv.fail_errno = err;
}

/* --- open, close, write --- */

static int
open_node(const char *node)
{
	struct fv_container *c;
	struct fv_group *g;
	int fd;

	if (strcmp(node, "vfio") == 0) {
		assert(fv.nr_containers < FV_MAX_CONTAINERS);
		c = &fv.containers[fv.nr_containers++];
		fd = memory_file(0, &c->ino);
		logf_word("container");
		return fd;
	}
	if (strncmp(node, "noiommu-", 8) == 0)
		node += 8;
	g = group_by_number((unsigned int)strtoul(node, NULL, 10));
	assert(g != NULL);
	if (g->ino != 0) {
		errno = EBUSY;
		return -1;
	}
	fd = memory_file(0, &g->ino);
	logf_word("group:%u", g->number);
	return fd;
}

int
__wrap_open64(const char *path, int flags, ...)
{
	const char *dev = strstr(path, "/dev/vfio/");
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if ((flags & O_CREAT) != 0)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	if (fv.root[0] == '\0' || dev == NULL || strncmp(path, fv.root, strlen(fv.root)) != 0)
		return __real_open64(path, flags, mode);
	if (access(path, F_OK) < 0)
		return -1;
	dev += strlen("/dev/vfio/");
	if (fv.fail_open != NULL && strcmp(dev, fv.fail_open) == 0 && fv.fail_times > 0) {
		fv.fail_times--;
		errno = fv.fail_errno;
		return -1;
	}
	return open_node(dev);
}

int
__wrap_close(int fd)
{
	struct fv_container *c = container_of_fd(fd);
	struct fv_group *g = group_of_fd(fd);
	struct fv_function *f = function_of_fd(fd);

	if (c != NULL && references(fd) == 1) {
		logf_word("close:container");
	} else if (g != NULL && references(fd) == 1) {
		logf_word("close:group:%u", g->number);
		g->ino = 0;
		if (g->container != NULL && --g->container->nr_groups == 0)
			g->container->iommu = false;
		g->container = NULL;
	} else if (f != NULL && references(fd) == 2) { /* the other one is f->mem */
		logf_word("close:%s", f->name);
		f->ino = 0;
	}
	return __real_close(fd);
}

ssize_t
__wrap_write(int fd, const void *buf, size_t len)
{
	char proc[64], path[PATH_SIZE] = "";

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	if (fv.write_numvfs_result < 0 && readlink(proc, path, sizeof(path) - 1) > 0 &&
		strstr(path, "/sriov_numvfs") != NULL && memcmp(buf, "0", 1) != 0) {
		errno = -fv.write_numvfs_result;
		return -1;
	}
	return __real_write(fd, buf, len);
}

/* --- ioctl: container --- */

static int
iommu_info(struct vfio_iommu_type1_info *info)
{
	struct vfio_iommu_type1_info_cap_iova_range *cap;
	size_t size = sizeof(*info) + sizeof(*cap) + fv.nr_ranges * sizeof(fv.ranges[0]);
	uint32_t room = info->argsz;

	info->flags = 0;
	if (fv.pgsizes != 0) {
		info->flags |= VFIO_IOMMU_INFO_PGSIZES;
		info->iova_pgsizes = fv.pgsizes;
	}
	if (fv.nr_ranges == 0)
		return 0;
	info->flags |= VFIO_IOMMU_INFO_CAPS;
	info->argsz = fv.info_size != 0 ? fv.info_size : (uint32_t)size;
	info->cap_offset = 0;
	if (room < size)
		return 0;
	info->cap_offset = sizeof(*info);
	cap = (void *)(info + 1);
	cap->header.id = fv.other_cap ? VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL
				      : VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
	cap->header.version = 1;
	cap->header.next = 0;
	cap->nr_iovas = fv.ranges_claimed != 0 ? fv.ranges_claimed : fv.nr_ranges;
	memcpy(cap->iova_ranges, fv.ranges, fv.nr_ranges * sizeof(fv.ranges[0]));
	return 0;
}

static int
map_dma(struct fv_container *c, const struct vfio_iommu_type1_dma_map *map)
{
	assert(map->argsz == sizeof(*map) && c->iommu && c->nr_maps < FV_MAX_MAPS);
	c->maps[c->nr_maps++] = (struct fv_map){map->iova, map->size, map->vaddr, map->flags};
	logf_word("map:%llx", (unsigned long long)map->iova);
	return 0;
}

static int
unmap_dma(struct fv_container *c, struct vfio_iommu_type1_dma_unmap *unmap)
{
	unsigned int i;

	for (i = 0; i < c->nr_maps; i++) {
		if (c->maps[i].iova != unmap->iova || c->maps[i].size != unmap->size)
			continue;
		c->maps[i] = c->maps[--c->nr_maps];
		logf_word("unmap:%llx", (unsigned long long)unmap->iova);
		return 0;
	}
	unmap->size = 0;
	return 0;
}

static int
container_ioctl(struct fv_container *c, unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_GET_API_VERSION:
		return fv.api_version;
	case VFIO_CHECK_EXTENSION:
		if ((uintptr_t)arg == VFIO_NOIOMMU_IOMMU)
			return fv.noiommu;
		return (uintptr_t)arg == VFIO_TYPE1v2_IOMMU && !fv.no_type1;
	case VFIO_SET_IOMMU:
		assert(c->nr_groups > 0);
		assert((uintptr_t)arg == VFIO_TYPE1v2_IOMMU ||
			((uintptr_t)arg == VFIO_NOIOMMU_IOMMU && fv.noiommu));
		c->iommu = true;
		logf_word((uintptr_t)arg == VFIO_NOIOMMU_IOMMU ? "noiommu" : "iommu");
		return 0;
	case VFIO_IOMMU_GET_INFO:
		return iommu_info(arg);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(c, arg);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(c, arg);
	default:
		assert(false);
		return -1;
	}
}

/* --- ioctl: group --- */

static int
get_device(struct fv_group *g, const char *name)
{
	const char *space = strchr(name, ' ');
	size_t len = space != NULL ? (size_t)(space - name) : strlen(name);
	const char *token = space != NULL ? space + 1 + strlen("vf_token=") : NULL;
	struct fv_function *f;
	struct stat st;
	unsigned int i;
	uint16_t cmd;
	int fd;

	assert(g->container != NULL && g->container->iommu);
	if (token != NULL && fv.token == NULL) {
		errno = EINVAL;
		return -1;
	}
	if (fv.token != NULL && (token == NULL || strcmp(token, fv.token) != 0)) {
		errno = EACCES;
		return -1;
	}
	for (i = 0; i < fv.nr_functions; i++) {
		f = &fv.functions[i];
		if (f->group == g->number && strlen(f->name) == len &&
			strncmp(f->name, name, len) == 0)
			break;
	}
	if (i == fv.nr_functions) {
		errno = ENODEV;
		return -1;
	}
	fd = fcntl(f->mem, F_DUPFD_CLOEXEC, 3);
	assert(fd >= 0 && fstat(fd, &st) == 0);
	f->ino = st.st_ino;
	f->opens++;
	cmd = 0; /* it has been reset */
	assert(pwrite(f->mem, &cmd, sizeof(cmd),
		       ((off_t)VFIO_PCI_CONFIG_REGION_INDEX << FV_REGION_SHIFT) + 4) == 2);
	logf_word("open:%s", f->name);
	return fd;
}

static int
group_ioctl(struct fv_group *g, unsigned long request, void *arg)
{
	struct vfio_group_status *status = arg;

	switch (request) {
	case VFIO_GROUP_GET_STATUS:
		status->flags = fv.not_viable ? 0 : VFIO_GROUP_FLAGS_VIABLE;
		if (g->container != NULL)
			status->flags |= VFIO_GROUP_FLAGS_CONTAINER_SET;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		assert(g->container == NULL);
		g->container = container_of_fd(*(int *)arg);
		assert(g->container != NULL);
		g->container->nr_groups++;
		logf_word("join:%u", g->number);
		return 0;
	case VFIO_GROUP_UNSET_CONTAINER:
		assert(g->container != NULL);
		g->container->nr_groups--;
		g->container = NULL;
		logf_word("leave:%u", g->number);
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		return get_device(g, arg);
	default:
		assert(false);
		return -1;
	}
}

/* --- ioctl: function --- */

static int
region_info(struct vfio_region_info *info)
{
	struct vfio_region_info_cap_sparse_mmap *cap;
	const uint32_t size = sizeof(*info) + sizeof(*cap) + sizeof(cap->areas[0]);
	uint32_t room = info->argsz;

	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	info->offset = (uint64_t)info->index << FV_REGION_SHIFT;
	info->cap_offset = 0;
	info->size = 0;
	if (info->index == 4)
		info->size = FV_BAR4_SIZE;
	if (info->index == VFIO_PCI_CONFIG_REGION_INDEX)
		info->size = fv.config_size;
	if (info->index == 2) {
		info->size = FV_BAR2_SIZE;
		info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	}
	if (info->index != 0)
		return 0;
	info->size = fv.bar0_size;
	info->offset = fv.bar0_offset;
	info->flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
	info->argsz = size;
	if (room < size)
		return 0;
	info->cap_offset = sizeof(*info);
	cap = (void *)(info + 1);
	cap->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	cap->header.version = 1;
	cap->header.next = 0;
	cap->nr_areas = fv.sparse_areas;
	cap->areas[0] = fv.area;
	return 0;
}

static int
irq_info(struct vfio_irq_info *info)
{
	info->flags = VFIO_IRQ_INFO_EVENTFD;
	info->count = 1;
	if (info->index == VFIO_PCI_MSIX_IRQ_INDEX) {
		info->flags = fv.irq_flags;
		info->count = fv.irq_count;
	}
	return 0;
}

/* MSI-X: what is switched on first stays the number, unless the kernel can add vectors. */
static int
set_msix(struct fv_function *f, const struct vfio_irq_set *set, const int32_t *fds)
{
	unsigned int i, end = set->start + set->count;

	if (set->count == 0) {
		if (f->irq_nr == 0) {
			errno = EINVAL;
			return -1;
		}
		f->irq_nr = 0;
		memset(f->irq_fds, -1, sizeof(f->irq_fds));
		logf_word("irq:off");
		return 0;
	}
	if (f->irq_nr == 0 || (end > f->irq_nr && (fv.irq_flags & VFIO_IRQ_INFO_NORESIZE) == 0)) {
		if (end > fv.irq_room)
			return (int)fv.irq_room;
		f->irq_nr = end;
	}
	if (end > f->irq_nr) {
		errno = EINVAL;
		return -1;
	}
	for (i = 0; i < set->count; i++)
		f->irq_fds[set->start + i] = fds[i];
	logf_word("irq:%u+%u", set->start, set->count);
	return 0;
}

static int
set_irqs(struct fv_function *f, const struct vfio_irq_set *set)
{
	int32_t fds[FV_IRQS] = {0};

	if (set->count > 0 && (set->flags & VFIO_IRQ_SET_DATA_NONE) != 0) {
		if (set->start + set->count <= f->irq_nr)
			return 0;
		errno = EINVAL;
		return -1;
	}
	assert(set->argsz == sizeof(*set) + set->count * sizeof(int32_t) && set->count <= FV_IRQS);
	assert((set->flags & VFIO_IRQ_SET_ACTION_TRIGGER) != 0);
	memcpy(fds, set->data, set->count * sizeof(int32_t));
	if (set->index == VFIO_PCI_ERR_IRQ_INDEX)
		f->err_fd = fds[0];
	else if (set->index == VFIO_PCI_REQ_IRQ_INDEX)
		f->req_fd = fds[0];
	else
		return set_msix(f, set, fds);
	return 0;
}

static int
function_ioctl(struct fv_function *f, unsigned long request, void *arg)
{
	struct vfio_device_info *info = arg;

	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		info->flags = fv.device_flags;
		info->num_regions = VFIO_PCI_NUM_REGIONS;
		info->num_irqs = VFIO_PCI_NUM_IRQS;
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return irq_info(arg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(f, arg);
	case VFIO_DEVICE_RESET:
		f->resets++;
		return 0;
	default:
		assert(false);
		return -1;
	}
}

int
__wrap_ioctl(int fd, unsigned long request, ...)
{
	struct fv_container *c = container_of_fd(fd);
	struct fv_group *g = group_of_fd(fd);
	struct fv_function *f = function_of_fd(fd);
	uint32_t index = 0;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (c == NULL && g == NULL && f == NULL)
		return __real_ioctl(fd, request, arg);
	/* index comes third in what is asked of regions and interrupts */
	if (request == VFIO_DEVICE_GET_REGION_INFO || request == VFIO_DEVICE_GET_IRQ_INFO ||
		request == VFIO_DEVICE_SET_IRQS)
		memcpy(&index, (char *)arg + 8, sizeof(index));
	if (fails(request, index))
		return -1;
	if (c != NULL)
		return container_ioctl(c, request, arg);
	return g != NULL ? group_ioctl(g, request, arg) : function_ioctl(f, request, arg);
}

/* --- what tests do --- */

int
fv_next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

int
fv_open(const char *bdf, struct vfe_pci_domain *domain, const char *token, struct vfe_pci_dev **ret)
{
	struct vfe_pci_open_cfg cfg = {
		.timeout_ms = FV_SOON_MS, .domain = domain, .vf_token = token};

	assert_int_equal(vfe_bdf_parse(bdf, &cfg.bdf), 0);
	return vfe_pci_open(&cfg, ret, &fv_err);
}

struct vfe_pci_dev *
fv_must_open(const char *bdf, struct vfe_pci_domain *domain)
{
	struct vfe_pci_dev *dev = NULL;

	if (fv_open(bdf, domain, NULL, &dev) < 0)
		fail_msg("%s", fv_err.text);
	return dev;
}

struct vfe_pci_domain *
fv_new_domain(void)
{
	struct vfe_pci_domain *d;

	assert_int_equal(vfe_pci_domain_create(&d, &fv_err), 0);
	return d;
}

int
fv_map(struct vfe_pci_domain *d, uint64_t iova, uint64_t size)
{
	static uint8_t memory[0x10000] __attribute__((aligned(0x10000)));
	struct vfe_pci_dma dma = {
		.iova = iova, .size = size, .va = memory, .prot = VFE_PCI_DMA_READ};
	int rc, fd = vfe_memfd_create("test", size);

	assert_true(size <= sizeof(memory));
	dma.fd = fd;
	rc = vfe_pci_domain_map(d, &dma, NULL, &fv_err);
	vfe_close(&fd);
	return rc;
}
