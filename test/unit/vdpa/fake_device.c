/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * PCI functions, DMA domains and virtio registers as the vDPA driver sees them.
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
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "vdpa_priv.h"

enum {
	NR_ALL_QUEUES = FAKE_QUEUES + 1,
	MAX_MAPS = 128,
	PAGE = 4096,
	HUGE_PAGE = 2 << 20,
};
#define GUEST_BUS (UINT64_C(1) << 52) /* where physical devices find it */
#define ARENA_BUS (UINT64_C(1) << 53) /* the same of ours, + iova */

/* --- PCI functions --- */

struct vfe_pci_dev {
	LIST_ENTRY(vfe_pci_dev) next;
	struct vfe_bdf bdf;
	int vf; /* -1 = PF */
	int lost_fds[2];
	atomic_int error;
	int config_fd; /* of vector 0 */
	uint8_t mac_last;
	bool physical;
	struct vfe_pci_domain *domain;
};

struct vfe_pci_domain {
	unsigned int mappings;
	struct {
		uint64_t iova;
		uint64_t size; /* 0 = not used */
	} maps[MAX_MAPS];
};

static LIST_HEAD(, vfe_pci_dev) open_list = LIST_HEAD_INITIALIZER(open_list);

bool
vfe_pci_is_kernel(const struct vfe_bdf *bdf)
{
	(void)bdf;
	return world.kernel;
}

int
vfe_pci_check_driver(const struct vfe_bdf *bdf, struct vfe_error *err)
{
	(void)bdf;
	return world.no_driver ? vfe_error_set(err, -ENODEV, "is bound to no driver") : 0;
}

int
vfe_pci_vf_parent(
	const struct vfe_bdf *vf, struct vfe_bdf *ret_pf, int *ret_index, struct vfe_error *err)
{
	if (!world.kernel)
		return vfe_error_set(err, -ENOENT, "a socket");
	if (vf->dev != FAKE_VF_DEV)
		return vfe_error_set(err, -ENODEV, "no VF");
	*ret_pf = fake_pf;
	*ret_index = vf->fn;
	return 0;
}

int
vfe_pci_vfs_create(const struct vfe_bdf *pf, unsigned int n, struct vfe_error *err)
{
	(void)pf;
	if (n > FAKE_VFS)
		return vfe_error_set(err, -ERANGE, "too many");
	if (world.created_vfs == n)
		return 0;
	world.created_vfs = n;
	return 1;
}

int
vfe_pci_vfs_destroy(const struct vfe_bdf *pf, struct vfe_error *err)
{
	(void)pf;
	(void)err;
	world.created_vfs = 0;
	return 0;
}

void
vfe_pci_domain_detach(struct vfe_pci_domain *domain, struct vfe_pci_dev *dev)
{
	(void)domain;
	(void)dev;
	world.detaches++;
}

int
vfe_pci_find(
	const struct vfe_bdf *bdf, const char *dir, char *path, size_t size, struct vfe_error *err)
{
	(void)bdf;
	(void)dir;
	FAKE_STAGE(FAKE_STAGE_FIND, err);
	return vfe_str_copy(path, size, "/nowhere");
}

int
vfe_pci_open(const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err)
{
	struct vfe_pci_dev *dev;

	FAKE_STAGE(FAKE_STAGE_OPEN, err);
	if (world.no_iommu && !cfg->allow_no_iommu)
		return vfe_error_set(err, -ENODEV, "it has no IOMMU");
	dev = calloc(1, sizeof(*dev));
	assert(dev != NULL);
	dev->physical = world.no_iommu;
	dev->domain = cfg->domain;
	dev->bdf = cfg->bdf;
	dev->vf = vfe_bdf_equal(&cfg->bdf, &fake_pf) ? -1 : cfg->bdf.fn;
	dev->config_fd = -1;
	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, dev->lost_fds) == 0);
	pthread_mutex_lock(&world.lock);
	dev->mac_last = world.mac_last;
	if (dev->vf >= 0)
		world.vf[dev->vf].physical = dev->physical;
	world.open_devices++;
	LIST_INSERT_HEAD(&open_list, dev, next);
	pthread_mutex_unlock(&world.lock);
	*ret = dev;
	return 0;
}

void
vfe_pci_close(struct vfe_pci_dev *dev)
{
	if (dev == NULL)
		return;
	pthread_mutex_lock(&world.lock);
	LIST_REMOVE(dev, next);
	world.open_devices--;
	pthread_mutex_unlock(&world.lock);
	vfe_close_all(dev->lost_fds, 2);
	vfe_close(&dev->config_fd);
	free(dev);
}

const char *
vfe_pci_transport(const struct vfe_pci_dev *dev)
{
	(void)dev;
	return "fake";
}

int
vfe_pci_lost_fd(const struct vfe_pci_dev *dev)
{
	return dev->lost_fds[0];
}

uint32_t
vfe_pci_lost_events(const struct vfe_pci_dev *dev)
{
	(void)dev;
	return 0x2000; /* POLLRDHUP */
}

bool
vfe_pci_is_physical(const struct vfe_pci_dev *dev)
{
	return dev->physical;
}

int
vfe_pci_error(const struct vfe_pci_dev *dev)
{
	return atomic_load(&dev->error);
}

void
vfe_pci_abort(struct vfe_pci_dev *dev)
{
	atomic_store(&dev->error, -ENODEV);
}

void
fake_hang_up(const struct vfe_bdf *bdf)
{
	struct vfe_pci_dev *dev;

	pthread_mutex_lock(&world.lock);
	LIST_FOREACH (dev, &open_list, next) {
		if (!vfe_bdf_equal(&dev->bdf, bdf))
			continue;
		atomic_store(&dev->error, -ENODEV);
		vfe_close(&dev->lost_fds[1]);
	}
	pthread_mutex_unlock(&world.lock);
}

void
fake_config_interrupt(unsigned int i)
{
	struct vfe_pci_dev *dev;

	pthread_mutex_lock(&world.lock);
	LIST_FOREACH (dev, &open_list, next) {
		if (dev->vf == (int)i)
			assert(eventfd_write(dev->config_fd, 1) == 0);
	}
	pthread_mutex_unlock(&world.lock);
}

struct vfe_dma_arena {
	struct vfe_pci_domain *domain;
	uint64_t iova;
	uint64_t bus;
	uint64_t used;
	uint64_t size;
	uint8_t mem[];
};

static struct vfe_dma_arena *arenas[FAKE_VFS + 1];

/* Where the device finds @iova, if it is in memory of the driver. */
void *
fake_arena_at(uint64_t iova)
{
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(arenas); i++) {
		if (arenas[i] != NULL && iova >= arenas[i]->bus &&
			iova - arenas[i]->bus < arenas[i]->size)
			return arenas[i]->mem + (iova - arenas[i]->bus);
	}
	return NULL;
}

/* --- addresses on the bus --- */

uint64_t
fake_bus_of(uint64_t gpa)
{
	return GUEST_BUS + (gpa ^ PAGE);
}

/* How much of what begins at @iova the domain maps in one piece. */
static uint64_t
mapped_at(const struct vfe_pci_domain *domain, uint64_t iova)
{
	unsigned int i;

	for (i = 0; i < MAX_MAPS; i++) {
		if (iova >= domain->maps[i].iova &&
			iova - domain->maps[i].iova < domain->maps[i].size)
			return domain->maps[i].size - (iova - domain->maps[i].iova);
	}
	return 0;
}

/* Of a physical device: memory of the driver by huge pages, that of the guest page by page. */
int
vfe_pci_dma_addr(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len)
{
	uint64_t n;

	*ret_bus = iova;
	*ret_len = len;
	if (!dev->physical)
		return 0;
	assert(len > 0);
	pthread_mutex_lock(&world.lock);
	n = mapped_at(dev->domain, iova);
	if (fake_arena_at(ARENA_BUS + iova) != NULL) {
		*ret_bus = ARENA_BUS + iova;
		if (n > HUGE_PAGE - iova % HUGE_PAGE)
			n = HUGE_PAGE - iova % HUGE_PAGE;
	} else {
		*ret_bus = fake_bus_of(iova);
		if (n > PAGE - iova % PAGE)
			n = PAGE - iova % PAGE;
		if (world.no_huge_pages)
			n = 0;
	}
	pthread_mutex_unlock(&world.lock);
	*ret_len = n < len ? n : len;
	return n > 0 ? 0 : -EFAULT;
}

int
vfe_pci_dma_check(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, struct vfe_error *err)
{
	uint64_t bus, n;

	return vfe_pci_dma_addr(dev, iova, len, &bus, &n) == 0
		       ? 0
		       : vfe_error_set(err, -EFAULT, "not of huge pages");
}

/* Nothing keeps a physical device from memory that has gone. world.lock held. */
static void
check_stopped(const struct vfe_pci_domain *domain)
{
	const struct vfe_pci_dev *dev;

	LIST_FOREACH (dev, &open_list, next) {
		if (dev->domain != domain || !dev->physical || !world.vf[dev->vf].master)
			continue;
		assert((world.vf[dev->vf].regs.status & VFE_VIRTIO_S_DRIVER_OK) == 0);
	}
}

/* The device takes what is on its control queue. world.lock held. */
static void
ctrl_execute(struct fake_vf_log *log, const struct vfe_virtio_queue_cfg *q)
{
	const struct vfe_wire_vring_desc *desc = fake_arena_at(q->desc);
	struct vfe_wire_vring_avail *avail = fake_arena_at(q->driver);
	struct vfe_wire_vring_used *used = fake_arena_at(q->device);
	const struct vfe_wire_net_ctrl_hdr *hdr = fake_arena_at(le64toh(desc[0].addr));
	const uint8_t *data = fake_arena_at(le64toh(desc[1].addr));
	uint8_t *ack = fake_arena_at(le64toh(desc[2].addr));

	assert((log->regs.status & VFE_VIRTIO_S_DRIVER_OK) != 0);
	assert(le16toh(avail->idx) == (uint16_t)(log->regs.ctrl_avail + 1));
	assert(le16toh(avail->ring[log->regs.ctrl_avail % q->size]) == 0);
	assert(le16toh(desc[0].flags) == VFE_VRING_DESC_F_NEXT && le16toh(desc[0].next) == 1);
	assert(le16toh(desc[1].flags) == VFE_VRING_DESC_F_NEXT && le16toh(desc[1].next) == 2);
	assert(le16toh(desc[2].flags) == VFE_VRING_DESC_F_WRITE && le32toh(desc[2].len) == 1);
	assert(le32toh(desc[0].len) == sizeof(*hdr));
	if (hdr->class_ == VFE_NET_CTRL_RX && le32toh(desc[1].len) == 1)
		log->regs.promisc = hdr->cmd == VFE_NET_CTRL_RX_PROMISC && data[0] == 1;
	else if (hdr->class_ == VFE_NET_CTRL_MQ && le32toh(desc[1].len) == 2)
		log->regs.pairs = (uint16_t)(data[0] | data[1] << 8);
	else
		fail_msg("control command %u %u", hdr->class_, hdr->cmd);
	*ack = log->ctrl_refuses ? VFE_NET_CTRL_ERR : VFE_NET_CTRL_OK;
	log->regs.ctrl_commands++;
	log->regs.ctrl_avail++;
	used->idx = htole16((uint16_t)(log->regs.ctrl_avail + (log->ctrl_lies ? 7 : 0)));
	pthread_cond_broadcast(&world.cond);
}

int
vfe_pci_doorbell_ring(const struct vfe_pci_doorbell *db, uint32_t value, uint32_t len)
{
	struct fake_vf_log *log = &world.vf[db->dev->vf];

	assert(len == 2 && value <= FAKE_QUEUES);
	pthread_mutex_lock(&world.lock);
	if (log->regs.enabled[value] &&
		log->regs.queues[value].msix_vector == VFE_VIRTIO_MSI_NO_VECTOR) {
		ctrl_execute(log, &log->regs.queues[value]);
		pthread_mutex_unlock(&world.lock);
		return 0;
	}
	pthread_mutex_unlock(&world.lock);
	assert(value < FAKE_QUEUES);
	if (atomic_load(&log->doorbell_eagain) > 0) {
		atomic_fetch_sub(&log->doorbell_eagain, 1);
		return -EAGAIN;
	}
	pthread_mutex_lock(&world.lock);
	atomic_fetch_add(&log->doorbells[value], 1);
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	return 0;
}

int
vfe_pci_irq_set(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
	struct vfe_error *err)
{
	struct fake_vf_log *log = &world.vf[dev->vf];

	FAKE_STAGE(FAKE_STAGE_IRQ, err);
	if (vfe_pci_error(dev) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	assert(start + count <= FAKE_QUEUES + 1);
	pthread_mutex_lock(&world.lock);
	log->irq_sets++;
	memcpy(log->irq_fds + start, fds, count * sizeof(*fds));
	if (start == 0) {
		vfe_close(&dev->config_fd);
		dev->config_fd = vfe_fd_dup(fds[0]);
	}
	pthread_mutex_unlock(&world.lock);
	return 0;
}

int
vfe_pci_set_master(struct vfe_pci_dev *dev, bool on, struct vfe_error *err)
{
	if (on)
		FAKE_STAGE(FAKE_STAGE_MASTER, err);
	pthread_mutex_lock(&world.lock);
	if (dev->vf >= 0)
		world.vf[dev->vf].master = on;
	pthread_mutex_unlock(&world.lock);
	return 0;
}

int
vfe_pci_sriov_get(struct vfe_pci_dev *pf, struct vfe_pci_sriov *ret, struct vfe_error *err)
{
	(void)pf;
	FAKE_STAGE(FAKE_STAGE_SRIOV, err);
	*ret = (struct vfe_pci_sriov){.num_vfs = FAKE_VFS, .vf_stride = 1};
	return 0;
}

int
vfe_pci_sriov_vf_index(
	const struct vfe_bdf *pf, const struct vfe_pci_sriov *sriov, const struct vfe_bdf *vf)
{
	(void)sriov;
	if (!vfe_bdf_equal(pf, &fake_pf) || vf->bus != fake_pf.bus || vf->dev != FAKE_VF_DEV ||
		vf->fn >= FAKE_VFS)
		return -ENODEV;
	return vf->fn;
}

/* --- domains --- */

int
vfe_pci_domain_create(struct vfe_pci_domain **ret, struct vfe_error *err)
{
	(void)err;
	*ret = calloc(1, sizeof(**ret));
	assert(*ret != NULL);
	pthread_mutex_lock(&world.lock);
	world.domains++;
	pthread_mutex_unlock(&world.lock);
	return 0;
}

void
vfe_pci_domain_destroy(struct vfe_pci_domain *domain)
{
	if (domain == NULL)
		return;
	assert(domain->mappings == 0);
	pthread_mutex_lock(&world.lock);
	world.domains--;
	pthread_mutex_unlock(&world.lock);
	free(domain);
}

int
vfe_pci_domain_map(struct vfe_pci_domain *domain, const struct vfe_pci_dma *dma,
	unsigned int *ret_lost, struct vfe_error *err)
{
	unsigned int i;
	int ret;

	(void)ret_lost;
	assert(dma->size > 0 && dma->fd >= 0 && dma->va != NULL);
	pthread_mutex_lock(&world.lock);
	ret = world.fail_map;
	world.fail_map = 0;
	if (ret == 0) {
		for (i = 0; domain->maps[i].size > 0; i++)
			assert(i + 1 < MAX_MAPS);
		domain->maps[i].iova = dma->iova;
		domain->maps[i].size = dma->size;
		domain->mappings++;
		world.mapped++;
		world.maps++;
		fake_track_map(domain, dma);
	}
	pthread_mutex_unlock(&world.lock);
	return ret < 0 ? vfe_error_set(err, ret, "cannot map") : 0;
}

int
vfe_pci_domain_unmap(
	struct vfe_pci_domain *domain, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	unsigned int i;

	(void)size;
	(void)err;
	pthread_mutex_lock(&world.lock);
	check_stopped(domain);
	for (i = 0; domain->maps[i].size == 0 || domain->maps[i].iova != iova; i++)
		assert(i + 1 < MAX_MAPS);
	domain->maps[i].size = 0;
	fake_track_unmap(domain, iova);
	assert(domain->mappings > 0);
	domain->mappings--;
	world.mapped--;
	world.unmaps++;
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	return 0;
}

int
vfe_dma_arena_create(struct vfe_pci_domain *domain, uint64_t iova_base, uint64_t size, bool huge,
	struct vfe_dma_arena **ret, struct vfe_error *err)
{
	struct vfe_dma_arena *arena;
	unsigned int i;

	FAKE_STAGE(FAKE_STAGE_ARENA, err);
	arena = calloc(1, sizeof(*arena) + size);
	assert(arena != NULL && size <= UINT32_MAX);
	arena->domain = domain;
	arena->iova = iova_base;
	arena->bus = iova_base + (huge ? ARENA_BUS : 0);
	arena->size = size;
	pthread_mutex_lock(&world.lock);
	if (huge) {
		assert(vfe_is_aligned(iova_base | size, HUGE_PAGE));
		for (i = 0; domain->maps[i].size > 0; i++)
			assert(i + 1 < MAX_MAPS);
		domain->maps[i].iova = iova_base;
		domain->maps[i].size = size;
	}
	for (i = 0; arenas[i] != NULL; i++)
		assert(i + 1 < VFE_ARRAY_SIZE(arenas));
	arenas[i] = arena;
	world.arenas++;
	pthread_mutex_unlock(&world.lock);
	*ret = arena;
	return 0;
}

void *
vfe_dma_arena_alloc(struct vfe_dma_arena *arena, uint64_t size, uint64_t align, uint64_t *ret_iova)
{
	uint64_t at = vfe_align_up(arena->used, align);

	if (arena->bus != arena->iova && size <= HUGE_PAGE && at % HUGE_PAGE + size > HUGE_PAGE)
		at = vfe_align_up(at, HUGE_PAGE);
	assert(at + size <= arena->size);
	arena->used = at + size;
	*ret_iova = arena->iova + at;
	return arena->mem + at;
}

void
vfe_dma_arena_free(struct vfe_dma_arena *arena, void *block)
{
	assert(block == NULL || (uint8_t *)block >= arena->mem);
	assert(block == NULL || (uint8_t *)block < arena->mem + arena->size);
}

void
vfe_dma_arena_destroy(struct vfe_dma_arena *arena)
{
	unsigned int i;

	if (arena == NULL)
		return;
	pthread_mutex_lock(&world.lock);
	for (i = 0; arenas[i] != arena; i++)
		assert(i + 1 < VFE_ARRAY_SIZE(arenas));
	arenas[i] = NULL;
	for (i = 0; arena->bus != arena->iova && i < MAX_MAPS; i++) {
		if (arena->domain->maps[i].iova == arena->iova)
			arena->domain->maps[i].size = 0;
	}
	world.arenas--;
	pthread_mutex_unlock(&world.lock);
	free(arena);
}

/* --- virtio registers --- */

int
vfe_virtio_init(struct vfe_virtio_dev *vdev, struct vfe_pci_dev *pci, struct vfe_error *err)
{
	int ignored;

	FAKE_STAGE(FAKE_STAGE_INIT, err);
	memset(vdev, 0, sizeof(*vdev));
	vdev->pci = pci;
	vdev->pci_device_id = fake_stage_fails(FAKE_STAGE_DEVICE_ID, &ignored) ? 0x1045 : 0x1041;
	vdev->device_features = FAKE_FEATURES;
	vdev->device.length = sizeof(struct vfe_wire_net_config);
	if (world.blk) {
		vdev->pci_device_id ^= 0x1041 ^ 0x1042;
		vdev->device_features = FAKE_BLK_FEATURES;
		vdev->device.length = sizeof(struct vfe_wire_blk_config);
	}
	if (pci->physical && !world.no_indirect)
		vdev->device_features |= VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC);
	if (world.no_ring_reset)
		vdev->device_features &= ~VFE_BIT(VFE_VIRTIO_F_RING_RESET);
	if (pci->vf < 0)
		vdev->device_features = VFE_BIT(32) | VFE_BIT(33) | VFE_BIT(41) | VFE_BIT(44);
	vdev->num_queues = NR_ALL_QUEUES;
	vdev->num_vectors =
		fake_stage_fails(FAKE_STAGE_VECTORS, &ignored) ? FAKE_QUEUES : FAKE_QUEUES + 2;
	return 0;
}

int
vfe_virtio_status_add(struct vfe_virtio_dev *vdev, uint8_t bits, struct vfe_error *err)
{
	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	FAKE_STAGE(FAKE_STAGE_STATUS, err);
	if (vdev->pci->vf >= 0) {
		pthread_mutex_lock(&world.lock);
		world.vf[vdev->pci->vf].regs.status |= bits;
		pthread_cond_broadcast(&world.cond);
		pthread_mutex_unlock(&world.lock);
	}
	return 0;
}

int
vfe_virtio_reset(struct vfe_virtio_dev *vdev, struct vfe_deadline deadline,
	const atomic_bool *cancel, struct vfe_error *err)
{
	(void)deadline;
	(void)cancel;
	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	FAKE_STAGE(FAKE_STAGE_RESET, err);
	if (vdev->pci->vf >= 0) {
		pthread_mutex_lock(&world.lock);
		world.vf[vdev->pci->vf].resets++;
		world.vf[vdev->pci->vf].regs = (struct fake_regs){.pairs = 1};
		pthread_mutex_unlock(&world.lock);
	}
	if (world.fail_reset)
		return vfe_error_set(err, -ETIMEDOUT, "no reset");
	return 0;
}

int
vfe_virtio_features_set(struct vfe_virtio_dev *vdev, uint64_t wanted, struct vfe_error *err)
{
	FAKE_STAGE(FAKE_STAGE_FEATURES, err);
	assert((wanted & ~vdev->device_features) == 0);
	if (vdev->pci->vf >= 0)
		world.vf[vdev->pci->vf].regs.features = wanted;
	return 0;
}

int
vfe_virtio_config_vector_set(struct vfe_virtio_dev *vdev, uint16_t vector, struct vfe_error *err)
{
	(void)err;
	world.vf[vdev->pci->vf].regs.config_vector = vector;
	return 0;
}

/* A part of a ring as the device is told of it. */
static void
to_bus(const struct vfe_pci_dev *dev, uint64_t *addr, uint64_t len)
{
	uint64_t n;

	assert(vfe_pci_dma_addr(dev, *addr, len, addr, &n) == 0 && n == len);
	assert(!dev->physical || fake_arena_at(*addr) != NULL);
}

int
vfe_virtio_queue_enable(struct vfe_virtio_dev *vdev, uint16_t qid,
	const struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err)
{
	struct fake_regs *regs = &world.vf[vdev->pci->vf].regs;
	struct vfe_virtio_queue_cfg bus = *cfg;
	void (*hook)(void *arg);

	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	to_bus(vdev->pci, &bus.desc, vfe_vring_desc_bytes(cfg->size));
	to_bus(vdev->pci, &bus.driver, vfe_vring_avail_bytes(cfg->size));
	to_bus(vdev->pci, &bus.device, vfe_vring_used_bytes(cfg->size));
	pthread_mutex_lock(&world.lock);
	assert(qid < vdev->num_queues && !regs->enabled[qid]);
	assert((regs->status & VFE_VIRTIO_S_DRIVER_OK) == 0 || regs->was_reset[qid]);
	regs->enabled[qid] = true;
	regs->queues[qid] = bus;
	hook = world.on_queue_enable;
	world.on_queue_enable = NULL;
	pthread_mutex_unlock(&world.lock);
	if (hook != NULL)
		hook(world.arg);
	return 0;
}

int
vfe_virtio_queue_reset(struct vfe_virtio_dev *vdev, uint16_t qid, struct vfe_deadline deadline,
	struct vfe_error *err)
{
	struct fake_vf_log *log = &world.vf[vdev->pci->vf];
	int rc;

	(void)deadline;
	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	pthread_mutex_lock(&world.lock);
	assert((log->regs.features & VFE_BIT(VFE_VIRTIO_F_RING_RESET)) != 0);
	assert(qid < vdev->num_queues && log->regs.enabled[qid]);
	rc = log->ring_reset_fails;
	if (rc == 0) {
		log->ring_resets[qid]++;
		log->regs.enabled[qid] = false;
		log->regs.was_reset[qid] = true;
		if (log->ring_reset_adds != NULL)
			fake_store16(log->ring_reset_adds,
				(uint16_t)(le16toh(*log->ring_reset_adds) + 1));
	}
	pthread_mutex_unlock(&world.lock);
	return rc == 0 ? 0 : vfe_error_set(err, rc, "queue %u is not reset", qid);
}

int
vfe_virtio_config_read_fields(struct vfe_virtio_dev *vdev, const uint8_t *widths, unsigned int nr,
	void *buf, struct vfe_error *err)
{
	union vdpa_config config = {
		.net.mac = {2, 0, 0, 0, (uint8_t)vdev->pci->vf, vdev->pci->mac_last},
		.net.max_virtqueue_pairs = htole16(FAKE_QUEUES / 2),
		.net.mtu = htole16(1500),
	};
	uint32_t len = 0;

	pthread_mutex_lock(&world.lock);
	config.net.status = htole16(world.link_status);
	if (world.blk)
		config.blk = world.disk;
	pthread_mutex_unlock(&world.lock);
	FAKE_STAGE(FAKE_STAGE_CONFIG, err);
	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	while (nr > 0)
		len += widths[--nr];
	assert(len <= sizeof(config));
	memcpy(buf, &config, len);
	return 0;
}

int
vfe_virtio_config_write(struct vfe_virtio_dev *vdev, uint32_t off, const void *buf, uint32_t len,
	struct vfe_error *err)
{
	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	assert(len == 1);
	pthread_mutex_lock(&world.lock);
	world.config_writes++;
	world.config_write_off = off;
	world.config_write_value = *(const uint8_t *)buf;
	memcpy((uint8_t *)&world.disk + off, buf, len);
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	return 0;
}

int
vfe_virtio_isr_read(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err)
{
	(void)vdev;
	(void)err;
	*ret = 0;
	return 0;
}

int
vfe_virtio_queue_info(struct vfe_virtio_dev *vdev, uint16_t qid, struct vfe_virtio_queue_info *ret,
	struct vfe_error *err)
{
	(void)vdev;
	FAKE_STAGE(FAKE_STAGE_QUEUE, err);
	*ret = (struct vfe_virtio_queue_info){.size = FAKE_QUEUE_SIZE, .notify_off = qid};
	return 0;
}

int
vfe_virtio_doorbell_get(struct vfe_virtio_dev *vdev, uint16_t qid, uint16_t notify_off,
	struct vfe_pci_doorbell *ret, struct vfe_error *err)
{
	FAKE_STAGE(FAKE_STAGE_DOORBELL, err);
	assert(notify_off == qid);
	*ret = (struct vfe_pci_doorbell){
		.dev = vdev->pci,
		.off = qid * 4096u,
		.event_fd = -1,
		.map_fd = vdev->pci->lost_fds[0], /* any fd */
		.map_offset = qid * 4096u,
		.map_size = 4096,
	};
	return 0;
}
