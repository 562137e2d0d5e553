/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Devices, admin queue, librte_vhost and EAL as the vDPA driver sees them.
 */

#undef NDEBUG

#include "fake_world.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <bus_pci_driver.h>
#include <rte_dev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_vhost.h>
#include <vdpa_driver.h>

#include "vdpa_priv.h"
#include "vfe_bus_vfio_user.h"

enum {
	WAIT_S = 10, /* for anything; far more than it takes */
	VF_DEV = 4,
	NR_ALL_QUEUES = FAKE_QUEUES + 1,
	MAX_COMMANDS = 64,
	RING_STRIDE = 0x4000,
};

struct fake_world world = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.cond = PTHREAD_COND_INITIALIZER,
};
const struct vfe_bdf fake_pf = {0, 0xaf, 0, 2};

struct vfe_bdf
fake_vf(unsigned int i)
{
	return (struct vfe_bdf){0, 0xaf, VF_DEV, (uint8_t)i};
}

static void
until(struct timespec *ts)
{
	clock_gettime(CLOCK_REALTIME, ts);
	ts->tv_sec += WAIT_S;
}

/* Does @stage fail now? Then @ret is what it returns. */
static bool
stage_fails(enum fake_stage stage, int *ret)
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

#define STAGE(stage, err)                                                               \
	do {                                                                            \
		int stage_ret;                                                          \
		if (stage_fails(stage, &stage_ret))                                     \
			return vfe_error_set(err, stage_ret, "stage %d", (int)(stage)); \
	} while (0)

/* --- PCI functions --- */

struct vfe_pci_dev {
	LIST_ENTRY(vfe_pci_dev) next;
	struct vfe_bdf bdf;
	int vf; /* -1 = PF */
	int lost_fds[2];
	atomic_int error;
	int config_fd; /* of vector 0 */
	uint8_t mac_last;
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
	if (vf->dev != VF_DEV)
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
	STAGE(FAKE_STAGE_FIND, err);
	return vfe_str_copy(path, size, "/nowhere");
}

int
vfe_pci_open(const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err)
{
	struct vfe_pci_dev *dev;

	STAGE(FAKE_STAGE_OPEN, err);
	dev = calloc(1, sizeof(*dev));
	assert(dev != NULL);
	dev->bdf = cfg->bdf;
	dev->vf = vfe_bdf_equal(&cfg->bdf, &fake_pf) ? -1 : cfg->bdf.fn;
	dev->config_fd = -1;
	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, dev->lost_fds) == 0);
	pthread_mutex_lock(&world.lock);
	dev->mac_last = world.mac_last;
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
	uint64_t iova;
	uint64_t used;
	uint8_t mem[1 << 16];
};

static struct vfe_dma_arena *arenas[FAKE_VFS + 1];

/* Where the device finds @iova, if it is in memory of the driver. */
void *
fake_arena_at(uint64_t iova)
{
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(arenas); i++) {
		if (arenas[i] != NULL && iova >= arenas[i]->iova &&
			iova - arenas[i]->iova < sizeof(arenas[i]->mem))
			return arenas[i]->mem + (iova - arenas[i]->iova);
	}
	return NULL;
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
	if (log->regs.enabled[value] && fake_arena_at(log->regs.queues[value].desc) != NULL) {
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

	STAGE(FAKE_STAGE_IRQ, err);
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
	(void)dev;
	if (on)
		STAGE(FAKE_STAGE_MASTER, err);
	return 0;
}

int
vfe_pci_sriov_get(struct vfe_pci_dev *pf, struct vfe_pci_sriov *ret, struct vfe_error *err)
{
	(void)pf;
	STAGE(FAKE_STAGE_SRIOV, err);
	*ret = (struct vfe_pci_sriov){.num_vfs = FAKE_VFS, .vf_stride = 1};
	return 0;
}

int
vfe_pci_sriov_vf_index(
	const struct vfe_bdf *pf, const struct vfe_pci_sriov *sriov, const struct vfe_bdf *vf)
{
	(void)sriov;
	if (!vfe_bdf_equal(pf, &fake_pf) || vf->bus != fake_pf.bus || vf->dev != VF_DEV ||
		vf->fn >= FAKE_VFS)
		return -ENODEV;
	return vf->fn;
}

/* --- domains --- */

struct vfe_pci_domain {
	unsigned int mappings;
};

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
	int ret;

	(void)ret_lost;
	assert(dma->size > 0 && dma->fd >= 0 && dma->va != NULL);
	pthread_mutex_lock(&world.lock);
	ret = world.fail_map;
	world.fail_map = 0;
	if (ret == 0) {
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
	(void)size;
	(void)err;
	pthread_mutex_lock(&world.lock);
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
vfe_dma_arena_create(struct vfe_pci_domain *domain, uint64_t iova_base, uint64_t size,
	struct vfe_dma_arena **ret, struct vfe_error *err)
{
	struct vfe_dma_arena *arena;
	unsigned int i;

	(void)domain;
	STAGE(FAKE_STAGE_ARENA, err);
	arena = calloc(1, sizeof(*arena));
	assert(arena != NULL && size <= UINT32_MAX);
	arena->iova = iova_base;
	pthread_mutex_lock(&world.lock);
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

	assert(at + size <= sizeof(arena->mem));
	arena->used = at + size;
	*ret_iova = arena->iova + at;
	return arena->mem + at;
}

void
vfe_dma_arena_free(struct vfe_dma_arena *arena, void *block)
{
	assert((uint8_t *)block >= arena->mem &&
		(uint8_t *)block < arena->mem + sizeof(arena->mem));
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
	world.arenas--;
	pthread_mutex_unlock(&world.lock);
	free(arena);
}

/* --- virtio registers --- */

int
vfe_virtio_init(struct vfe_virtio_dev *vdev, struct vfe_pci_dev *pci, struct vfe_error *err)
{
	int ignored;

	STAGE(FAKE_STAGE_INIT, err);
	memset(vdev, 0, sizeof(*vdev));
	vdev->pci = pci;
	vdev->pci_device_id = stage_fails(FAKE_STAGE_DEVICE_ID, &ignored) ? 0x1045 : 0x1041;
	vdev->device_features = FAKE_FEATURES;
	vdev->device.length = sizeof(struct vfe_wire_net_config);
	if (world.blk) {
		vdev->pci_device_id ^= 0x1041 ^ 0x1042;
		vdev->device_features = FAKE_BLK_FEATURES;
		vdev->device.length = sizeof(struct vfe_wire_blk_config);
	}
	if (world.no_ring_reset)
		vdev->device_features &= ~VFE_BIT(VFE_VIRTIO_F_RING_RESET);
	if (pci->vf < 0)
		vdev->device_features = VFE_BIT(32) | VFE_BIT(33) | VFE_BIT(41) | VFE_BIT(44);
	vdev->num_queues = NR_ALL_QUEUES;
	vdev->num_vectors =
		stage_fails(FAKE_STAGE_VECTORS, &ignored) ? FAKE_QUEUES : FAKE_QUEUES + 2;
	return 0;
}

int
vfe_virtio_status_add(struct vfe_virtio_dev *vdev, uint8_t bits, struct vfe_error *err)
{
	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	STAGE(FAKE_STAGE_STATUS, err);
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
	STAGE(FAKE_STAGE_RESET, err);
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
	STAGE(FAKE_STAGE_FEATURES, err);
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

int
vfe_virtio_queue_enable(struct vfe_virtio_dev *vdev, uint16_t qid,
	const struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err)
{
	struct fake_regs *regs = &world.vf[vdev->pci->vf].regs;

	if (vfe_pci_error(vdev->pci) != 0)
		return vfe_error_set(err, -ENODEV, "gone");
	pthread_mutex_lock(&world.lock);
	assert(qid < vdev->num_queues && !regs->enabled[qid]);
	assert((regs->status & VFE_VIRTIO_S_DRIVER_OK) == 0 || regs->was_reset[qid]);
	regs->enabled[qid] = true;
	regs->queues[qid] = *cfg;
	pthread_mutex_unlock(&world.lock);
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
	STAGE(FAKE_STAGE_CONFIG, err);
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
	STAGE(FAKE_STAGE_QUEUE, err);
	*ret = (struct vfe_virtio_queue_info){.size = FAKE_QUEUE_SIZE, .notify_off = qid};
	return 0;
}

int
vfe_virtio_doorbell_get(struct vfe_virtio_dev *vdev, uint16_t qid, uint16_t notify_off,
	struct vfe_pci_doorbell *ret, struct vfe_error *err)
{
	STAGE(FAKE_STAGE_DOORBELL, err);
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

/* --- the admin queue --- */

struct command {
	unsigned int vf;
	enum fake_kind kind;
	struct fake_track_cmd track;
	vfe_admin_done done;
	void *ctx;
};

struct vfe_admin {
	int fd;
	struct vfe_admin_caps caps;
	struct command queue[MAX_COMMANDS]; /* world.lock */
	unsigned int head, tail;            /* to be taken by the test, or by process() */
	bool answered;                      /* the command in hand has its status */
	int status;
	bool taken; /* the test has the command in hand */
	struct command last;
};

static struct vfe_admin *the_admin; /* world.lock */

uint64_t
vfe_admin_features_wanted(uint64_t offered)
{
	int ignored;

	return stage_fails(FAKE_STAGE_FEATURES, &ignored) ? 0 : offered;
}

int
vfe_admin_queue_index(struct vfe_virtio_dev *vdev, uint16_t *ret, struct vfe_error *err)
{
	(void)vdev;
	(void)err;
	*ret = 4;
	return 0;
}

int
vfe_admin_create(const struct vfe_admin_cfg *cfg, struct vfe_admin **ret, struct vfe_error *err)
{
	(void)cfg;
	STAGE(FAKE_STAGE_ADMIN, err);
	*ret = calloc(1, sizeof(**ret));
	assert(*ret != NULL);
	(*ret)->fd = eventfd(0, EFD_NONBLOCK);
	(*ret)->caps = world.caps;
	pthread_mutex_lock(&world.lock);
	the_admin = *ret;
	pthread_mutex_unlock(&world.lock);
	return 0;
}

/* Complete the first command, if it may be. Returns false when there is nothing to do. */
static bool
complete_one(struct vfe_admin *admin)
{
	struct command cmd;
	size_t out_len = 0;
	void *out = NULL;
	int status;

	pthread_mutex_lock(&world.lock);
	if (admin->head == admin->tail || (!admin->answered && !world.automatic)) {
		pthread_mutex_unlock(&world.lock);
		return false;
	}
	cmd = admin->queue[admin->head++ % MAX_COMMANDS];
	status = admin->answered ? admin->status : world.fail_kind[cmd.kind];
	admin->answered = false;
	admin->taken = false;
	admin->last = cmd;
	if (status == 0)
		out = fake_track_execute(cmd.vf, cmd.kind, &cmd.track, &out_len);
	pthread_mutex_unlock(&world.lock);
	cmd.done(cmd.ctx, status, out, out_len,
		status < 0 ? &(struct vfe_error){"the test says no"} : NULL);
	free(out);
	return true;
}

void
vfe_admin_process(struct vfe_admin *admin)
{
	uint64_t count;

	if (read(admin->fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN);
	while (complete_one(admin))
		continue;
	pthread_mutex_lock(&world.lock);
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
}

void
vfe_admin_destroy(struct vfe_admin *admin)
{
	struct command cmd;

	if (admin == NULL)
		return;
	pthread_mutex_lock(&world.lock);
	the_admin = NULL;
	while (admin->head != admin->tail) {
		cmd = admin->queue[admin->head++ % MAX_COMMANDS];
		pthread_mutex_unlock(&world.lock);
		cmd.done(cmd.ctx, -ECANCELED, NULL, 0, &(struct vfe_error){"canceled"});
		pthread_mutex_lock(&world.lock);
	}
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	vfe_close(&admin->fd);
	free(admin);
}

int
vfe_admin_fd(const struct vfe_admin *admin)
{
	return admin->fd;
}

bool
vfe_admin_next_deadline(const struct vfe_admin *admin, struct vfe_deadline *ret)
{
	(void)admin;
	(void)ret;
	return false;
}

int
vfe_admin_error(const struct vfe_admin *admin)
{
	(void)admin;
	return 0;
}

uint64_t
vfe_admin_retries(const struct vfe_admin *admin)
{
	(void)admin;
	return 3;
}

const struct vfe_admin_caps *
vfe_admin_caps(const struct vfe_admin *admin)
{
	return &admin->caps;
}

int
fake_admin_submit(struct vfe_admin *admin, unsigned int vf, enum fake_kind kind,
	const struct fake_track_cmd *track, vfe_admin_done done, void *ctx)
{
	struct command cmd = {.vf = vf, .kind = kind, .done = done, .ctx = ctx};

	if (track != NULL)
		cmd.track = *track;
	pthread_mutex_lock(&world.lock);
	assert(admin->tail - admin->head < MAX_COMMANDS);
	admin->queue[admin->tail++ % MAX_COMMANDS] = cmd;
	world.count[kind]++;
	pthread_cond_broadcast(&world.cond);
	if (world.automatic)
		assert(eventfd_write(admin->fd, 1) == 0);
	pthread_mutex_unlock(&world.lock);
	return 0;
}

static int
admin_submit(struct vfe_admin *admin, unsigned int vf, enum fake_kind kind, vfe_admin_done done,
	void *ctx)
{
	return fake_admin_submit(admin, vf, kind, NULL, done, ctx);
}

int
vfe_admin_modify_status(struct vfe_admin *admin, uint16_t vf, enum vfe_admin_vf_status status,
	vfe_admin_done done, void *ctx)
{
	return admin_submit(admin, vf, (enum fake_kind)status, done, ctx);
}

int
vfe_admin_get_status(struct vfe_admin *admin, uint16_t vf, vfe_admin_done done, void *ctx)
{
	return admin_submit(admin, vf, FAKE_GET_STATUS, done, ctx);
}

int
vfe_admin_restore_state(struct vfe_admin *admin, uint16_t vf, const void *blob, size_t len,
	vfe_admin_done done, void *ctx)
{
	struct fake_vf_log *log = &world.vf[vf];
	struct vfe_error err;

	pthread_mutex_lock(&world.lock);
	if (log->has_state)
		vfe_state_fini(&log->state);
	if (vfe_state_decode(&log->state, world.blk ? VFE_STATE_TYPE_BLK : VFE_STATE_TYPE_NET, blob,
		    len, &err) < 0)
		fail_msg("bad blob: %s", err.text);
	log->has_state = true;
	log->restores++;
	pthread_mutex_unlock(&world.lock);
	return admin_submit(admin, vf, FAKE_RESTORE, done, ctx);
}

int
vfe_admin_identify(struct vfe_admin *admin, vfe_admin_done done, void *ctx)
{
	struct vfe_error err;
	int ret;

	(void)admin;
	if (stage_fails(FAKE_STAGE_IDENTIFY, &ret)) {
		vfe_error_set(&err, ret, "stage identify");
		done(ctx, ret, NULL, 0, &err);
		return 0;
	}
	done(ctx, 0, NULL, 0, NULL);
	return 0;
}

void
fake_expect(unsigned int i, enum fake_kind kind)
{
	struct timespec ts;
	struct command cmd = {0};
	bool got = false;

	until(&ts);
	pthread_mutex_lock(&world.lock);
	for (;;) {
		if (the_admin != NULL && the_admin->head != the_admin->tail && !the_admin->taken) {
			the_admin->taken = true;
			cmd = the_admin->queue[the_admin->head % MAX_COMMANDS];
			got = true;
			break;
		}
		if (pthread_cond_timedwait(&world.cond, &world.lock, &ts) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&world.lock);
	if (!got)
		fail_msg("no command, expected %d of VF %u; VF is %s: %s", kind, i,
			fake_info(i)->state, fake_info(i)->last_error);
	assert_int_equal(cmd.kind, kind);
	assert_int_equal(cmd.vf, i);
}

void
fake_answer(int status)
{
	pthread_mutex_lock(&world.lock);
	assert(the_admin != NULL && the_admin->taken);
	the_admin->answered = true;
	the_admin->status = status;
	assert(eventfd_write(the_admin->fd, 1) == 0);
	pthread_mutex_unlock(&world.lock);
	fake_flush();
}

static void
call_again(void *arg)
{
	const struct command *cmd = arg;

	cmd->done(cmd->ctx, 0, NULL, 0, NULL);
}

void
fake_answer_again(void)
{
	struct command cmd;

	pthread_mutex_lock(&world.lock);
	cmd = the_admin->last;
	pthread_mutex_unlock(&world.lock);
	vdpa_reactor_call(call_again, &cmd);
}

void
fake_serve(unsigned int i, const int *kinds)
{
	for (; *kinds >= 0; kinds++) {
		fake_expect(i, (enum fake_kind) * kinds);
		fake_answer(0);
	}
}

static void
call_nothing(void *arg)
{
	(void)arg;
}

/* Twice: the first pass may see an fd that is ready after the call was queued. */
void
fake_flush(void)
{
	vdpa_reactor_call(call_nothing, NULL);
	vdpa_reactor_call(call_nothing, NULL);
}

void
fake_expect_nothing(void)
{
	bool none;

	fake_flush();
	pthread_mutex_lock(&world.lock);
	none = the_admin == NULL || the_admin->head == the_admin->tail;
	pthread_mutex_unlock(&world.lock);
	assert_true(none);
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

	until(&ts);
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

	if (stage_fails(FAKE_STAGE_PROBE, &ret))
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

/* --- librte_vhost --- */

static struct connection {
	const struct rte_vhost_user_extern_ops *ops;
	struct {
		int kick;
		int call;
		uint16_t base;
	} vrings[256];
	uint64_t features;
} connections[FAKE_VFS];

struct rte_vdpa_device *
rte_vdpa_register_device(struct rte_device *rte_dev, struct rte_vdpa_dev_ops *ops)
{
	struct rte_vdpa_device *dev;
	int ret;

	if (stage_fails(FAKE_STAGE_REGISTER, &ret))
		return NULL;
	dev = calloc(1, sizeof(*dev));
	assert(dev != NULL);
	dev->device = rte_dev;
	dev->ops = ops;
	world.registered++;
	return dev;
}

int
rte_vdpa_unregister_device(struct rte_vdpa_device *dev)
{
	world.registered--;
	free(dev);
	return 0;
}

struct rte_device *
rte_vdpa_get_rte_device(struct rte_vdpa_device *dev)
{
	return dev->device;
}

int
rte_vhost_extern_callback_register(
	int vid, struct rte_vhost_user_extern_ops const *const ops, void *ctx)
{
	(void)ctx;
	connections[vid].ops = ops;
	return 0;
}

int
rte_vhost_get_ifname(int vid, char *buf, size_t len)
{
	(void)vid;
	(void)buf;
	(void)len;
	return -1;
}

int
rte_vhost_get_vhost_vring(int vid, uint16_t idx, struct rte_vhost_vring *vring)
{
	vring->kickfd = connections[vid].vrings[idx].kick;
	vring->callfd = connections[vid].vrings[idx].call;
	return 0;
}

int
rte_vhost_set_vring_base(int vid, uint16_t idx, uint16_t last_avail, uint16_t last_used)
{
	assert(last_avail == last_used);
	connections[vid].vrings[idx].base = last_avail;
	return 0;
}

int
rte_vhost_get_mem_table(int vid, struct rte_vhost_memory **mem)
{
	(void)vid;
	(void)mem;
	return -1; /* the fds are where the driver looks for them */
}

/* What the library does with a message between the two handlers. */
static void
library_handles(int vid, struct vdpa_msg *msg)
{
	struct connection *c = &connections[vid];
	unsigned int q = msg->payload.u64 & 0xff;
	int i, fd;

	switch (msg->hdr.request) {
	case VDPA_MSG_SET_VRING_KICK:
	case VDPA_MSG_SET_VRING_CALL:
		fd = (msg->payload.u64 & VDPA_MSG_RING_NOFD) != 0 ? -1 : msg->fds[0];
		if (msg->hdr.request == VDPA_MSG_SET_VRING_KICK) {
			vfe_close(&c->vrings[q].kick);
			c->vrings[q].kick = fd;
		} else {
			vfe_close(&c->vrings[q].call);
			c->vrings[q].call = fd;
		}
		return;
	case VDPA_MSG_SET_VRING_ADDR:
		/* the library must learn nothing that it could translate */
		assert(msg->payload.addr.desc == UINT64_MAX && msg->payload.addr.log == 0);
		return;
	case VDPA_MSG_SET_LOG_BASE:
		fail_msg("the library must not map the log");
		return;
	case VDPA_MSG_GET_VRING_BASE:
		q = msg->payload.state.index;
		vfe_close(&c->vrings[q].kick);
		vfe_close(&c->vrings[q].call);
		msg->payload.state.num = c->vrings[q].base;
		return;
	default:
		for (i = 0; i < VDPA_MSG_MAX_FDS; i++) {
			fd = msg->fds[i];
			vfe_close(&fd);
			msg->fds[i] = -1;
		}
		return;
	}
}

static int
send_message(int vid, struct vdpa_msg *msg)
{
	const struct rte_vhost_user_extern_ops *ops = connections[vid].ops;
	enum rte_vhost_msg_result ret;
	int i;

	ret = ops->pre_msg_handle(vid, msg);
	if (ret == RTE_VHOST_MSG_RESULT_REPLY) {
		/* QEMU wants no payload, and no fds go back */
		assert_int_equal(msg->hdr.request, VDPA_MSG_SET_LOG_BASE);
		assert_int_equal(msg->hdr.size, 0);
		assert_int_equal(msg->nr_fds, 0);
	}
	if (ret == RTE_VHOST_MSG_RESULT_NOT_HANDLED) {
		library_handles(vid, msg);
	} else {
		/* the library closes nothing now */
		for (i = 0; i < VDPA_MSG_MAX_FDS; i++)
			assert_int_equal(msg->fds[i], -1);
	}
	if (ret == RTE_VHOST_MSG_RESULT_ERR)
		return -1;
	ret = ops->post_msg_handle(vid, msg);
	return ret == RTE_VHOST_MSG_RESULT_ERR ? -1 : 0;
}

static void
message_init(struct vdpa_msg *msg, uint32_t request, const void *payload, uint32_t size,
	const int *fds, int nr_fds)
{
	int i;

	memset(msg, 0xa5, sizeof(*msg)); /* what lies on the library's stack */
	msg->hdr = (struct vdpa_msg_hdr){request, VDPA_MSG_VERSION, size};
	if (size > 0)
		memcpy(&msg->payload, payload, size);
	msg->nr_fds = nr_fds;
	for (i = 0; i < VDPA_MSG_MAX_FDS; i++)
		msg->fds[i] = i < nr_fds ? fcntl(fds[i], F_DUPFD_CLOEXEC, 0) : -1;
}

int
fake_send(int vid, uint32_t request, const void *payload, uint32_t size, const int *fds, int nr_fds)
{
	struct vdpa_msg msg;

	message_init(&msg, request, payload, size, fds, nr_fds);
	return send_message(vid, &msg);
}

int
fake_send_u64(int vid, uint32_t request, uint64_t value)
{
	return fake_send(vid, request, &value, sizeof(value), NULL, 0);
}

int
fake_send_state(int vid, uint32_t request, uint32_t index, uint32_t num)
{
	struct vdpa_msg_state state = {index, num};

	return fake_send(vid, request, &state, sizeof(state), NULL, 0);
}

int
fake_get_base(int vid, uint32_t index)
{
	struct vdpa_msg_state state = {index, 0};
	struct vdpa_msg msg;

	message_init(&msg, VDPA_MSG_GET_VRING_BASE, &state, sizeof(state), NULL, 0);
	return send_message(vid, &msg) < 0 ? -1 : (int)msg.payload.state.num;
}

/* --- guests --- */

void
fake_guest_open(struct fake_guest *g, unsigned int vf)
{
	unsigned int q;

	memset(g, 0, sizeof(*g));
	g->vf = vf;
	g->vid = (int)vf;
	g->slave = -1;
	g->mem_fd = vfe_memfd_create("guest", FAKE_MEM_SIZE);
	assert(g->mem_fd >= 0);
	g->mem = mmap(NULL, FAKE_MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g->mem_fd, 0);
	assert(g->mem != MAP_FAILED);
	for (q = 0; q < FAKE_QUEUES; q++) {
		g->kick[q] = eventfd(0, EFD_NONBLOCK);
		g->call[q] = eventfd(0, EFD_NONBLOCK);
	}
}

void
fake_guest_close(struct fake_guest *g)
{
	munmap(g->mem, FAKE_MEM_SIZE);
	vfe_close(&g->mem_fd);
	vfe_close_all(g->kick, FAKE_QUEUES);
	vfe_close_all(g->call, FAKE_QUEUES);
	vfe_close(&g->slave);
}

static void
connect_with(struct fake_guest *g, uint64_t protocol_features, uint64_t more_features)
{
	struct vfe_bdf bdf = fake_vf(g->vf);
	uint64_t features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
			    (world.blk ? VFE_BIT(VFE_BLK_F_CONFIG_WCE) : VFE_BIT(VFE_NET_F_CSUM)) |
			    VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES) | more_features;
	struct vfe_error err = {0};
	unsigned int q;

	for (q = 0; q < VFE_ARRAY_SIZE(connections[g->vid].vrings); q++) {
		connections[g->vid].vrings[q].kick = -1;
		connections[g->vid].vrings[q].call = -1;
	}
	if (vfe_vdpa_vf_connect(&bdf, g->vid, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(
		fake_send_u64(g->vid, VDPA_MSG_SET_PROTOCOL_FEATURES, protocol_features), 0);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, features), 0);
}

void
fake_guest_connect(struct fake_guest *g, uint64_t protocol_features)
{
	connect_with(g, protocol_features, 0);
}

void
fake_guest_connect_logging(struct fake_guest *g, uint64_t protocol_features)
{
	connect_with(g, protocol_features, VFE_BIT(VFE_VHOST_F_LOG_ALL));
}

int
fake_guest_mem(struct fake_guest *g)
{
	struct vdpa_msg_memory mem = {
		.nr_regions = 1,
		.regions[0] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
	};

	return fake_send(
		g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8 + sizeof(mem.regions[0]), &g->mem_fd, 1);
}

void
fake_guest_ring(struct fake_guest *g, unsigned int q)
{
	uint64_t at = FAKE_MEM_UVA + (uint64_t)q * RING_STRIDE, index = q;
	struct vdpa_msg_addr addr = {
		.index = q,
		.desc = at,
		.avail = at + 0x1000,
		.used = at + 0x2000,
	};

	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, q, FAKE_RING_SIZE), 0);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_BASE, q, 0), 0);
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_KICK, &index, 8, &g->kick[q], 1), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_CALL, &index, 8, &g->call[q], 1), 0);
}

void
fake_guest_enable(struct fake_guest *g, unsigned int q, bool on)
{
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_ENABLE, q, on), 0);
}

void
fake_guest_driver_ok(struct fake_guest *g)
{
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0xf), 0);
}

void
fake_guest_start(struct fake_guest *g)
{
	unsigned int q;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	for (q = 0; q < 2; q++) {
		fake_guest_ring(g, q);
		fake_guest_enable(g, q, true);
	}
	fake_guest_driver_ok(g);
	fake_wait_state(g->vf, "running");
}

void
fake_guest_disconnect(struct fake_guest *g)
{
	struct connection *c = &connections[g->vid];
	unsigned int q;

	vfe_vdpa_vf_disconnect(g->vid);
	for (q = 0; q < VFE_ARRAY_SIZE(c->vrings); q++) {
		vfe_close(&c->vrings[q].kick);
		vfe_close(&c->vrings[q].call);
	}
}

void
fake_guest_set_used(struct fake_guest *g, unsigned int q, uint16_t idx)
{
	idx = htole16(idx);
	memcpy(g->mem + q * RING_STRIDE + 0x2000 + 2, &idx, sizeof(idx));
}

void
fake_guest_set_avail(struct fake_guest *g, unsigned int q, uint16_t pos, uint16_t head)
{
	uint8_t *avail = g->mem + q * RING_STRIDE + 0x1000;
	const uint16_t idx = htole16(pos + 1);

	head = htole16(head);
	memcpy(avail + 4 + 2 * (pos % FAKE_RING_SIZE), &head, sizeof(head));
	memcpy(avail + 2, &idx, sizeof(idx));
}

void
fake_guest_complete(struct fake_guest *g, unsigned int q, uint16_t pos, uint16_t head)
{
	const struct vfe_wire_vring_used_elem elem = {.id = htole32(head)};

	memcpy(g->mem + q * RING_STRIDE + 0x2000 + 4 + sizeof(elem) * (pos % FAKE_RING_SIZE), &elem,
		sizeof(elem));
	fake_guest_set_used(g, q, (uint16_t)(pos + 1));
}

void
fake_guest_slave(struct fake_guest *g)
{
	int pair[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_SLAVE_REQ_FD, NULL, 0, &pair[1], 1), 0);
	close(pair[1]);
	vfe_close(&g->slave);
	g->slave = pair[0];
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
	vdpa_globals.ms = (struct vdpa_times){.suspend = 1000,
		.grace = 20,
		.sibling = 20,
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
	if (the_admin != NULL)
		assert(eventfd_write(the_admin->fd, 1) == 0);
	pthread_mutex_unlock(&world.lock);
	vfe_vdpa_fini();
	assert_int_equal(world.open_devices, 0);
	assert_int_equal(world.domains, 0);
	assert_int_equal(world.mapped, 0);
	assert_int_equal(world.arenas, 0);
	assert_int_equal(world.registered, 0);
}
