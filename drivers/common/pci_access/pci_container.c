/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * IOMMU groups and containers of kernel VFIO.
 */

#include "pci_container.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "pci_phys.h"
#include "pci_sysfs.h"

#define DMA_LIMIT_FILE "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"

enum {
	RETRY_MS = 100,
	DEFAULT_PAGE = 4096,
	MAX_INFO_SIZE = 1 << 20, /* of an answer of the kernel */
	DEVICE_NAME_SIZE = 96,   /* "0000:af:04.5 vf_token=<36 characters>" */
};

/* Memory that a caller gave by fd only, and that we map for as long as devices reach it. */
struct own_memory {
	LIST_ENTRY(own_memory) next;
	uint64_t iova;
	void *map;
	size_t map_size;
};

struct pci_container {
	int fd;
	unsigned int refs;  /* groups; under the lock of all groups */
	uint64_t page_size; /* smallest of the IOMMU */
	struct vfio_iova_range *ranges;
	uint32_t nr_ranges; /* 0 = the kernel does not tell */
	LIST_HEAD(, own_memory) memory;
	struct pci_phys *phys; /* no-IOMMU mode: instead of all of the above; else NULL */
};

struct pci_group {
	LIST_ENTRY(pci_group) next;
	unsigned int number;
	bool listed;
	bool noiommu;
	unsigned int refs; /* functions */
	int fd;
	struct pci_container *container; /* NULL until a function enters one */
};

static struct {
	pthread_mutex_t lock; /* protects groups, and their and their containers' counts */
	LIST_HEAD(, pci_group) groups;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

const void *
pci_vfio_cap(const void *info, uint32_t info_size, uint32_t off, uint16_t id, uint32_t cap_size)
{
	const struct vfio_info_cap_header *cap;
	unsigned int left = 64; /* more than there are kinds: a loop */

	while (off != 0 && left-- > 0 && vfe_is_aligned(off, 4) &&
		vfe_range_inside(off, sizeof(*cap), info_size)) {
		cap = (const void *)((const uint8_t *)info + off);
		if (cap->id == id)
			return vfe_range_inside(off, cap_size, info_size) ? cap : NULL;
		off = cap->next;
	}
	return NULL;
}

int
pci_vfio_info(int fd, unsigned long request, const void *ask, uint32_t size, void **ret,
	struct vfe_error *err)
{
	uint32_t room = size, want = size;
	void *info = NULL, *more;

	do {
		room = want;
		more = realloc(info, room);
		if (more == NULL) {
			free(info);
			return vfe_error_set(err, -ENOMEM, "no memory to ask VFIO");
		}
		info = more;
		memset(info, 0, room);
		memcpy(info, ask, size);
		memcpy(info, &room, sizeof(room)); /* argsz comes first in all of them */
		if (ioctl(fd, request, info) < 0) {
			int rc = errno != 0 ? -errno : -EIO;

			free(info);
			return vfe_error_set(err, rc, "VFIO does not tell: %s", strerror(-rc));
		}
		memcpy(&want, info, sizeof(want));
		if (want > MAX_INFO_SIZE) {
			free(info);
			return vfe_error_set(err, -EPROTO, "VFIO has %u bytes to tell", want);
		}
	} while (want > room);
	memcpy(info, &room, sizeof(room));
	*ret = info;
	return 0;
}

/* --- containers --- */

static void
container_free(struct pci_container *c)
{
	struct own_memory *m;

	vfe_close(&c->fd);
	while ((m = LIST_FIRST(&c->memory)) != NULL) {
		LIST_REMOVE(m, next);
		munmap(m->map, m->map_size);
		free(m);
	}
	pci_phys_destroy(c->phys);
	free(c->ranges);
	free(c);
}

static int
container_new(int fd, struct pci_container **ret, struct vfe_error *err)
{
	struct pci_container *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		vfe_close(&fd);
		return vfe_error_set(err, -ENOMEM, "no memory for an IOMMU container");
	}
	c->fd = fd;
	c->refs = 1;
	LIST_INIT(&c->memory);
	if (ioctl(fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION) {
		container_free(c);
		return vfe_error_set(err, -ENOTSUP, "the kernel speaks another version of VFIO");
	}
	*ret = c;
	return 0;
}

/* Can the kernel do what this container is for? */
static int
check_kind(const struct pci_container *c, bool noiommu, struct vfe_error *err)
{
	if (noiommu && ioctl(c->fd, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU) <= 0)
		return vfe_error_set(
			err, -ENOTSUP, "VFIO's no-IOMMU mode is off (enable_unsafe_noiommu_mode)");
	if (!noiommu && ioctl(c->fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0)
		return vfe_error_set(err, -ENOTSUP,
			"VFIO has no IOMMU of type 1 version 2; load it with: modprobe "
			"vfio_iommu_type1");
	return 0;
}

static int
container_open(bool noiommu, struct pci_container **ret, struct vfe_error *err)
{
	char path[PCI_PATH_SIZE];
	int fd, rc;

	rc = vfe_str_format(path, sizeof(path), "%s/dev/vfio/vfio", pci_root);
	if (rc < 0)
		return rc;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return vfe_error_set(err, -errno, "cannot open %s: %s%s", path, strerror(errno),
			errno == ENOENT || errno == ENODEV ? "; load it with: modprobe vfio-pci"
							   : "");
	rc = container_new(fd, ret, err);
	if (rc < 0)
		return rc;
	rc = check_kind(*ret, noiommu, err);
	if (rc == 0 && noiommu) {
		(*ret)->phys = pci_phys_create();
		if ((*ret)->phys == NULL)
			rc = vfe_error_set(err, -ENOMEM, "no memory for an IOMMU container");
	}
	if (rc < 0)
		container_free(*ret);
	return rc;
}

/* The ranges of addresses that devices can use; capabilities need not be aligned for u64. */
static int
learn_ranges(
	struct pci_container *c, const struct vfio_iommu_type1_info *info, struct vfe_error *err)
{
	const uint16_t id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
	struct vfio_iommu_type1_info_cap_iova_range cap;
	const uint8_t *at;
	size_t size;

	free(c->ranges);
	c->ranges = NULL;
	c->nr_ranges = 0;
	if ((info->flags & VFIO_IOMMU_INFO_CAPS) == 0)
		return 0;
	at = pci_vfio_cap(info, info->argsz, info->cap_offset, id, sizeof(cap));
	if (at == NULL)
		return 0;
	memcpy(&cap, at, sizeof(cap));
	if (cap.nr_iovas == 0 || cap.nr_iovas > MAX_INFO_SIZE / sizeof(*c->ranges))
		return vfe_error_set(
			err, -EPROTO, "the IOMMU claims %u address ranges", cap.nr_iovas);
	size = cap.nr_iovas * sizeof(*c->ranges);
	if (pci_vfio_cap(info, info->argsz, info->cap_offset, id, (uint32_t)(sizeof(cap) + size)) ==
		NULL)
		return vfe_error_set(
			err, -EPROTO, "the IOMMU tells less than %u address ranges", cap.nr_iovas);
	c->ranges = malloc(size);
	if (c->ranges == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for IOMMU address ranges");
	memcpy(c->ranges, at + sizeof(cap), size);
	c->nr_ranges = cap.nr_iovas;
	return 0;
}

/* What the IOMMU can map; another group in the container may bring other limits. */
static int
container_learn(struct pci_container *c, struct vfe_error *err)
{
	const struct vfio_iommu_type1_info ask = {0};
	const struct vfio_iommu_type1_info *info;
	void *answer;
	int rc;

	rc = pci_vfio_info(c->fd, VFIO_IOMMU_GET_INFO, &ask, sizeof(ask), &answer, err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "limits of the IOMMU");
	info = answer;
	c->page_size = DEFAULT_PAGE;
	if ((info->flags & VFIO_IOMMU_INFO_PGSIZES) != 0 && info->iova_pgsizes != 0)
		c->page_size = info->iova_pgsizes & -info->iova_pgsizes;
	rc = learn_ranges(c, info, err);
	free(answer);
	return rc;
}

static void
container_put_locked(struct pci_container *c)
{
	if (c != NULL && --c->refs == 0)
		container_free(c);
}

/* --- groups --- */

/*
 * Wait a little before the next try. The kernel tells nobody when it is done with a group or a
 * function, so there is no event to wait for.
 */
static bool
retry_wait(struct vfe_deadline deadline)
{
	int left = vfe_deadline_left_ms(deadline);

	if (left == 0)
		return false;
	poll(NULL, 0, left < RETRY_MS ? left : RETRY_MS);
	return true;
}

static int
check_viable(const struct pci_group *g, const char *name, struct vfe_error *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	char others[192];

	if (ioctl(g->fd, VFIO_GROUP_GET_STATUS, &status) < 0)
		return vfe_error_set(err, -errno, "IOMMU group %u does not tell its state: %s",
			g->number, strerror(errno));
	if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) != 0)
		return 0;
	pci_sysfs_group_others(g->number, name, others, sizeof(others));
	return vfe_error_set(err, -EPERM,
		"its IOMMU group %u has functions that vfio-pci does not have: %s", g->number,
		others[0] != '\0' ? others : "none that sysfs shows");
}

static int
open_locked(unsigned int number, bool noiommu, const char *path, const char *name,
	struct pci_group **ret, struct vfe_error *err)
{
	struct pci_group *g;
	int rc;

	LIST_FOREACH (g, &all.groups, next) {
		if (g->number == number) {
			g->refs++;
			*ret = g;
			return 0;
		}
	}
	g = calloc(1, sizeof(*g));
	if (g == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for an IOMMU group");
	g->number = number;
	g->noiommu = noiommu;
	g->refs = 1;
	g->fd = open(path, O_RDWR | O_CLOEXEC);
	if (g->fd < 0) {
		rc = vfe_error_set(
			err, -errno, "cannot open %s of %s: %s", path, name, strerror(errno));
		goto err_free;
	}
	rc = check_viable(g, name, err);
	if (rc < 0)
		goto err_close;
	LIST_INSERT_HEAD(&all.groups, g, next);
	g->listed = true;
	*ret = g;
	return 0;

err_close:
	vfe_close(&g->fd);
err_free:
	free(g);
	return rc;
}

int
pci_group_get(const char *name, bool allow_no_iommu, struct vfe_deadline deadline,
	struct pci_group **ret, struct vfe_error *err)
{
	bool noiommu = allow_no_iommu;
	char path[PCI_PATH_SIZE], users[128];
	unsigned int number;
	int rc;

	rc = pci_sysfs_group(name, &noiommu, &number, err);
	if (rc == 0)
		rc = vfe_str_format(path, sizeof(path), "%s/dev/vfio/%s%u", pci_root,
			noiommu ? "noiommu-" : "", number);
	if (rc < 0)
		return rc;
	do {
		pthread_mutex_lock(&all.lock);
		rc = open_locked(number, noiommu, path, name, ret, err);
		pthread_mutex_unlock(&all.lock);
	} while (rc == -EBUSY && retry_wait(deadline));
	if (rc == -EBUSY) {
		pci_sysfs_users(path, users, sizeof(users));
		vfe_error_set(err, rc, "its IOMMU group stays busy: %s has %s open",
			users[0] != '\0' ? users
					 : "a process, or a QEMU that maps a doorbell page,",
			path);
	}
	return rc;
}

bool
pci_group_is_physical(const struct pci_group *g)
{
	return g->noiommu;
}

int
pci_group_adopt(int container_fd, int group_fd, struct pci_group **ret, struct vfe_error *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	struct pci_group *g;
	int fd, rc;

	if (ioctl(group_fd, VFIO_GROUP_GET_STATUS, &status) < 0)
		return vfe_error_set(
			err, -EINVAL, "fd %d is no IOMMU group: %s", group_fd, strerror(errno));
	if ((status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET) == 0)
		return vfe_error_set(
			err, -EINVAL, "the IOMMU group of fd %d is in no container", group_fd);
	g = calloc(1, sizeof(*g));
	if (g == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for an IOMMU group");
	g->refs = 1;
	g->fd = vfe_fd_dup(group_fd);
	fd = vfe_fd_dup(container_fd);
	if (g->fd < 0 || fd < 0) {
		rc = vfe_error_set(
			err, -EBADF, "cannot keep VFIO fds %d and %d", container_fd, group_fd);
		vfe_close(&fd);
		goto err_close;
	}
	rc = container_new(fd, &g->container, err);
	if (rc < 0)
		goto err_close;
	rc = container_learn(g->container, err);
	if (rc < 0)
		goto err_free_container;
	*ret = g;
	return 0;

err_free_container:
	container_free(g->container);
err_close:
	vfe_close(&g->fd);
	free(g);
	return rc;
}

void
pci_group_put(struct pci_group *g)
{
	if (g == NULL)
		return;
	pthread_mutex_lock(&all.lock);
	if (--g->refs == 0) {
		if (g->listed)
			LIST_REMOVE(g, next);
		vfe_close(&g->fd); /* leaves the container */
		container_put_locked(g->container);
		free(g);
	}
	pthread_mutex_unlock(&all.lock);
}

/* Join @c, whose mappings the IOMMU of this group must be able to take over. */
static int
join_locked(struct pci_group *g, struct pci_container *c)
{
	if (ioctl(g->fd, VFIO_GROUP_SET_CONTAINER, &c->fd) < 0)
		return -errno;
	if (container_learn(c, NULL) < 0) {
		ioctl(g->fd, VFIO_GROUP_UNSET_CONTAINER);
		return -EIO;
	}
	c->refs++;
	g->container = c;
	return 1;
}

static int
enter_own_locked(struct pci_group *g, struct vfe_error *err)
{
	struct pci_container *c = NULL;
	int rc;

	rc = container_open(g->noiommu, &c, err);
	if (rc < 0)
		return rc;
	if (ioctl(g->fd, VFIO_GROUP_SET_CONTAINER, &c->fd) < 0) {
		rc = vfe_error_set(err, -errno, "IOMMU group %u cannot be used: %s", g->number,
			strerror(errno));
		goto err_free;
	}
	if (ioctl(c->fd, VFIO_SET_IOMMU, g->noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU) <
		0) {
		rc = vfe_error_set(err, -errno,
			"the kernel gives no address space to IOMMU group %u: %s%s", g->number,
			strerror(errno),
			errno == EPERM
				? "; an IOMMU without interrupt remapping is only allowed by "
				  "vfio_iommu_type1's allow_unsafe_interrupts"
				: "");
		goto err_leave;
	}
	rc = g->noiommu ? 0 : container_learn(c, err);
	if (rc < 0)
		goto err_leave;
	g->container = c;
	return 0;

err_leave:
	ioctl(g->fd, VFIO_GROUP_UNSET_CONTAINER);
err_free:
	container_free(c);
	return rc;
}

int
pci_group_enter(
	struct pci_group *g, struct pci_group *peer, const char *name, struct vfe_error *err)
{
	char others[128];
	int rc = 0;

	pthread_mutex_lock(&all.lock);
	if (g->container != NULL && peer != NULL && g->container == peer->container) {
		rc = 1;
	} else if (g->container != NULL) {
		pci_sysfs_group_others(g->number, name, others, sizeof(others));
		rc = vfe_error_set(err, -EBUSY,
			"it shares IOMMU group %u with %s: they reach the same memory, so that "
			"only "
			"one VM or PF can use them",
			g->number, others);
	} else {
		if (peer != NULL && !g->noiommu && !peer->noiommu)
			rc = join_locked(g, peer->container);
		if (rc <= 0)
			rc = enter_own_locked(g, err);
	}
	pthread_mutex_unlock(&all.lock);
	return rc;
}

static int
get_device_fd(const struct pci_group *g, const char *name, const char *token)
{
	char full[DEVICE_NAME_SIZE];
	int fd, rc;

	if (token != NULL) {
		rc = vfe_str_format(full, sizeof(full), "%s vf_token=%s", name, token);
		if (rc < 0)
			return rc;
		fd = ioctl(g->fd, VFIO_GROUP_GET_DEVICE_FD, full);
		/* a function without SR-IOV, or whose PF another driver has, wants none */
		if (fd >= 0 || errno != EINVAL)
			return fd >= 0 ? fd : -errno;
	}
	fd = ioctl(g->fd, VFIO_GROUP_GET_DEVICE_FD, name);
	return fd >= 0 ? fd : -errno;
}

int
pci_group_device(struct pci_group *g, const char *name, const char *token,
	struct vfe_deadline deadline, struct vfe_error *err)
{
	int fd;

	do {
		fd = get_device_fd(g, name, token);
	} while ((fd == -EAGAIN || fd == -EBUSY) && retry_wait(deadline));
	if (fd >= 0)
		return fd;
	if (fd == -EACCES)
		return vfe_error_set(err, fd,
			"the VF token is %s: PF and VFs of vfio-pci want the same one, from the "
			"EAL "
			"option --vfio-vf-token",
			token != NULL ? "another one" : "missing");
	if (fd == -EAGAIN || fd == -EBUSY)
		return vfe_error_set(err, -EBUSY,
			"the kernel is still at work on it (reset, or release by another process)");
	return vfe_error_set(err, fd, "the kernel does not open it: %s", strerror(-fd));
}

/* --- mappings --- */

/* Everything of [@first, @last] must be in ranges, which the kernel sorts. */
static int
check_ranges(const struct pci_container *c, uint64_t first, uint64_t last, struct vfe_error *err)
{
	uint64_t at = first, hole_end = UINT64_MAX;
	uint32_t i;

	if (c->nr_ranges == 0)
		return 0;
	for (i = 0; i < c->nr_ranges; i++) {
		if (at > c->ranges[i].end)
			continue;
		if (at < c->ranges[i].start) {
			hole_end = c->ranges[i].start - 1;
			break;
		}
		if (last <= c->ranges[i].end)
			return 0;
		at = c->ranges[i].end + 1;
	}
	return vfe_error_set(err, -EINVAL,
		"addresses %#" PRIx64 " to %#" PRIx64
		" cannot be mapped: the IOMMU reserves %#" PRIx64 " to %#" PRIx64,
		first, last, at, hole_end < last ? hole_end : last);
}

/* The kernel maps what this process has mapped. hugetlbfs wants multiples of its page size. */
static int
map_memory(struct pci_container *c, const struct vfe_pci_dma *dma, uint8_t **ret,
	struct vfe_error *err)
{
	uint64_t block = DEFAULT_PAGE, offset, end;
	struct own_memory *m;
	struct stat st;

	if (fstat(dma->fd, &st) == 0 && st.st_blksize > DEFAULT_PAGE &&
		vfe_is_pow2((uint64_t)st.st_blksize))
		block = (uint64_t)st.st_blksize;
	offset = dma->fd_offset & ~(block - 1);
	end = vfe_align_up(dma->fd_offset + dma->size, block);
	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a mapping");
	m->iova = dma->iova;
	m->map_size = end - offset;
	m->map = mmap(NULL, m->map_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		dma->fd, (off_t)offset);
	if (m->map == MAP_FAILED) {
		int rc = -errno;

		free(m);
		return vfe_error_set(err, rc, "cannot map the memory at %#" PRIx64 ": %s",
			dma->iova, strerror(-rc));
	}
	LIST_INSERT_HEAD(&c->memory, m, next);
	*ret = (uint8_t *)m->map + (dma->fd_offset - offset);
	return 0;
}

static void
unmap_memory(struct pci_container *c, uint64_t iova)
{
	struct own_memory *m;

	LIST_FOREACH (m, &c->memory, next) {
		if (m->iova != iova)
			continue;
		LIST_REMOVE(m, next);
		munmap(m->map, m->map_size);
		free(m);
		return;
	}
}

static int
map_error(const struct vfe_pci_dma *dma, int rc, struct vfe_error *err)
{
	const char *hint = "";

	if (rc == -ENOSPC)
		hint = ": no more mappings are allowed; raise " DMA_LIMIT_FILE;
	else if (rc == -ENOMEM)
		hint = ": the limit of locked memory is reached; raise it with ulimit -l or "
		       "LimitMEMLOCK=";
	else if (rc == -EFAULT)
		hint = ": it is not all there; is its file shorter?";
	else if (rc == -EEXIST)
		hint = ": something is mapped there already";
	return vfe_error_set(err, rc,
		"the IOMMU does not map %#" PRIx64 " bytes at %#" PRIx64 " (%s)%s", dma->size,
		dma->iova, strerror(-rc), hint);
}

int
pci_group_dma_map(struct pci_group *g, const struct vfe_pci_dma *dma, int fd, struct vfe_error *err)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .iova = dma->iova, .size = dma->size};
	struct pci_container *c = g->container;
	uint8_t *va = dma->va;
	int rc;

	if (c->phys != NULL)
		return pci_phys_map(c->phys, dma, fd, err);
	rc = check_ranges(c, dma->iova, dma->iova + (dma->size - 1), err);
	if (rc < 0)
		return rc;
	if (va == NULL) {
		rc = map_memory(c, dma, &va, err);
		if (rc < 0)
			return rc;
	}
	map.vaddr = (uintptr_t)va;
	if ((dma->prot & VFE_PCI_DMA_READ) != 0)
		map.flags |= VFIO_DMA_MAP_FLAG_READ;
	if ((dma->prot & VFE_PCI_DMA_WRITE) != 0)
		map.flags |= VFIO_DMA_MAP_FLAG_WRITE;
	if (!vfe_is_aligned(map.iova | map.size | map.vaddr, c->page_size))
		rc = vfe_error_set(err, -EINVAL,
			"the IOMMU maps pages of %" PRIu64 " bytes at least: %#" PRIx64
			" bytes at %#" PRIx64 " are not made of them",
			c->page_size, dma->size, dma->iova);
	else if (ioctl(c->fd, VFIO_IOMMU_MAP_DMA, &map) < 0)
		rc = map_error(dma, -errno, err);
	if (rc < 0 && dma->va == NULL)
		unmap_memory(c, dma->iova);
	return rc;
}

int
pci_group_dma_unmap(struct pci_group *g, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = size};
	int rc = 0;

	if (g->container->phys != NULL)
		return pci_phys_unmap(g->container->phys, iova, size, err);
	if (ioctl(g->container->fd, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0)
		rc = -errno;
	else if (unmap.size != size)
		rc = -ENOENT; /* the kernel tells by the size what it has found */
	if (rc < 0)
		return vfe_error_set(err, rc,
			"the IOMMU does not unmap %#" PRIx64 " bytes at %#" PRIx64 ": %s", size,
			iova, strerror(-rc));
	unmap_memory(g->container, iova);
	return 0;
}

int
pci_group_dma_addr(const struct pci_group *g, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len, struct vfe_error *err)
{
	return pci_phys_addr(g->container->phys, iova, len, ret_bus, ret_len, err);
}
