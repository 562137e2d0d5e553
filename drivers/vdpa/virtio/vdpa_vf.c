/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Virtual functions: probing through the bus, return after a loss, removal.
 */

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_dev.h>
#include <vdpa_driver.h>

#include "vdpa_priv.h"
#include "vfe_vdpa.h"

enum {
	DOORBELL_PAGE = 4096,
	UUID_LEN = 36,
};

/* --- the device behind a VF --- */

/* What is opened anew when a device comes back. */
struct hardware {
	struct vfe_pci_dev *pci;
	struct vfe_virtio_dev vdev;
	struct vdpa_queue *queues;
	uint16_t nr_queues;
	union vdpa_config config;
};

static int
fail(struct vfe_vdpa_error *err, enum vfe_vdpa_code code, const struct vdpa_vf *vf, int ret)
{
	return vdpa_code(err, code, vfe_error_prefix(&err->err, ret, "%s", vf->name));
}

static int
hardware_open(struct vdpa_vf *vf, struct hardware *hw, struct vfe_vdpa_error *err)
{
	struct vfe_pci_open_cfg cfg = {
		.bdf = vf->bdf,
		.timeout_ms = vdpa_globals.transport_timeout_ms,
		.domain = vdpa_domain_pci(vf->domain),
		.vf_token = vdpa_globals.vf_token,
		.allow_no_iommu = vf->allow_no_iommu,
	};
	char path[108];
	int ret;

	ret = vfe_pci_find(&vf->bdf, vdpa_globals.vfio_user_dir, path, sizeof(path), &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_NO_VF_DEVICE, vf, ret);
	cfg.vfio_user_path = path[0] != '\0' ? path : NULL;
	ret = vfe_pci_open(&cfg, &hw->pci, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_VFIO_DEV_FD, vf, ret);
	ret = vfe_virtio_init(&hw->vdev, hw->pci, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_PROBE_FAIL, vf, ret);
	if (vf->type == NULL)
		vf->type = vdpa_type_find(hw->vdev.pci_device_id);
	if (vf->type == NULL)
		return fail(err, VFE_VDPA_PROBE_FAIL, vf,
			vfe_error_set(&err->err, -ENOTSUP,
				"device id %#06x is neither virtio-net's nor virtio-blk's",
				hw->vdev.pci_device_id));
	if (hw->vdev.pci_device_id != vf->type->pci_device_id)
		return fail(err, VFE_VDPA_PROBE_FAIL, vf,
			vfe_error_set(&err->err, -ENOTSUP, "device id %#06x, its PF has %#06x",
				hw->vdev.pci_device_id, vf->type->pci_device_id));
	return 0;
}

/* Stop whatever it did before, and go as far as a driver does before it sets features. */
static int
hardware_reset(struct vdpa_vf *vf, struct hardware *hw, struct vfe_vdpa_error *err)
{
	int ret;

	ret = vfe_virtio_reset(
		&hw->vdev, vfe_deadline_in_ms(vdpa_globals.reset_timeout_ms), NULL, &err->err);
	if (ret < 0)
		return fail(err, ret == -ETIMEDOUT ? VFE_VDPA_RESET_TIMEOUT : VFE_VDPA_PROBE_FAIL,
			vf, ret);
	ret = vfe_virtio_status_add(
		&hw->vdev, VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_PROBE_FAIL, vf, ret);
	if ((hw->vdev.device_features & VFE_BIT(VFE_VIRTIO_F_VERSION_1)) == 0)
		return fail(err, VFE_VDPA_VF_GET_FEATURES, vf,
			vfe_error_set(&err->err, -ENOTSUP, "the device has no VERSION_1"));
	if (vfe_pci_is_physical(hw->pci) &&
		(hw->vdev.device_features & VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC)) == 0)
		return fail(err, VFE_VDPA_VF_GET_FEATURES, vf,
			vfe_error_set(&err->err, -ENOTSUP,
				"the device has no RING_INDIRECT_DESC, which a function without an "
				"IOMMU needs"));
	return 0;
}

/*
 * A guest that gets the page rings queue @q with the same 16 bits as we do, at the page's start,
 * and must reach nothing but this queue's doorbell.
 */
static bool
page_is_mappable(const struct vdpa_queue *queues, uint16_t q, uint16_t n)
{
	const struct vfe_pci_doorbell *db = &queues[q].doorbell, *other;
	uint16_t i;

	if (db->map_fd < 0 || !vfe_is_aligned(db->off | db->map_offset, DOORBELL_PAGE) ||
		db->map_size < DOORBELL_PAGE || sysconf(_SC_PAGESIZE) != DOORBELL_PAGE)
		return false;
	for (i = 0; i < n; i++) {
		other = &queues[i].doorbell;
		if (i != q && other->bar == db->bar && other->off >= db->off &&
			other->off < db->off + DOORBELL_PAGE)
			return false;
	}
	return true;
}

static int
hardware_queue(struct hardware *hw, uint16_t qid, struct vfe_error *err)
{
	struct vdpa_queue *q = &hw->queues[qid];
	struct vfe_virtio_queue_info info;
	int ret;

	ret = vfe_virtio_queue_info(&hw->vdev, qid, &info, err);
	if (ret == 0 && qid < hw->nr_queues && !vfe_is_pow2(info.size))
		ret = vfe_error_set(err, -EPROTO, "queue %u has size %u", qid, info.size);
	if (ret < 0)
		return ret;
	q->max_size = info.size;
	q->notify_off = info.notify_off;
	q->notify_data = info.notify_data;
	if (qid >= hw->nr_queues)
		return 0;
	return vfe_virtio_doorbell_get(&hw->vdev, qid, info.notify_off, &q->doorbell, err);
}

static int
hardware_queues(struct vdpa_vf *vf, struct hardware *hw, struct vfe_vdpa_error *err)
{
	uint16_t qid;
	int ret;

	ret = vf->type->config_read(&hw->vdev, &hw->config, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_VF_BAR_COPY, vf, ret);
	ret = vf->type->nr_queues(&hw->vdev, &hw->config, &hw->nr_queues, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_VF_QUEUES, vf, ret);
	if (hw->vdev.num_vectors < hw->nr_queues + 1)
		return fail(err, VFE_VDPA_VF_NO_VECTOR, vf,
			vfe_error_set(&err->err, -ENOSPC, "%u vectors, %u queues need %u",
				hw->vdev.num_vectors, hw->nr_queues, hw->nr_queues + 1));
	hw->queues = calloc(hw->vdev.num_queues, sizeof(*hw->queues));
	if (hw->queues == NULL)
		return fail(err, VFE_VDPA_VF_ALLOC, vf,
			vfe_error_set(&err->err, -ENOMEM, "out of memory"));
	for (qid = 0; ret == 0 && qid < hw->vdev.num_queues; qid++)
		ret = hardware_queue(hw, qid, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_VF_QUEUES, vf, ret);
	for (qid = 0; qid < hw->nr_queues; qid++)
		hw->queues[qid].page_mappable = page_is_mappable(hw->queues, qid, hw->nr_queues);
	return 0;
}

static void
hardware_close(struct hardware *hw)
{
	if (hw->vdev.pci != NULL)
		vfe_virtio_reset(&hw->vdev, vfe_deadline_in_ms(VDPA_STOP_TIMEOUT_MS), NULL, NULL);
	vfe_pci_close(hw->pci);
	free(hw->queues);
	memset(hw, 0, sizeof(*hw));
}

static int
hardware_bring_up(struct vdpa_vf *vf, struct hardware *hw, struct vfe_vdpa_error *err)
{
	int ret;

	memset(hw, 0, sizeof(*hw));
	ret = hardware_open(vf, hw, err);
	if (ret == 0)
		ret = hardware_reset(vf, hw, err);
	if (ret == 0)
		ret = hardware_queues(vf, hw, err);
	if (ret == 0) {
		ret = vfe_pci_set_master(hw->pci, true, &err->err);
		if (ret < 0)
			fail(err, VFE_VDPA_PROBE_FAIL, vf, ret);
	}
	if (ret == 0) {
		ret = vfe_pci_irq_set(hw->pci, 0, 1, &vf->config_fd, &err->err);
		if (ret < 0)
			fail(err, VFE_VDPA_VF_IRQ_ENABLE, vf, ret);
	}
	if (ret < 0)
		hardware_close(hw);
	return ret;
}

/* Make @hw the VF's; @hw gets what the VF had. */
static void
hardware_swap(struct vdpa_vf *vf, struct hardware *hw)
{
	struct hardware old = {
		.pci = vf->pci,
		.vdev = vf->vdev,
		.queues = vf->queues,
		.nr_queues = vf->nr_queues,
		.config = vf->config,
	};

	pthread_mutex_lock(&vf->lock);
	vf->pci = hw->pci;
	vf->vdev = hw->vdev;
	vf->queues = hw->queues;
	vf->nr_queues = hw->nr_queues;
	vf->type->config_keep(vf, &hw->config);
	vf->config_changed = memcmp(&vf->config, &hw->config, sizeof(vf->config)) != 0;
	vf->config = hw->config;
	pthread_mutex_unlock(&vf->lock);
	*hw = old;
}

/* --- reactor --- */

static void
vf_hung_up(struct vdpa_watch *watch, uint32_t events)
{
	struct vdpa_vf *vf = vfe_container_of(watch, struct vdpa_vf, lost_watch);

	(void)events;
	vdpa_watch_remove(watch);
	vdpa_vf_lost(vf, "the device has hung up");
	vdpa_worker_post(&vf->note);
}

static void
note_run(struct vdpa_work *work)
{
	vdpa_inflight_note(vfe_container_of(work, struct vdpa_vf, note));
}

static void
config_interrupt(struct vdpa_watch *watch, uint32_t events)
{
	struct vdpa_vf *vf = vfe_container_of(watch, struct vdpa_vf, config_watch);
	uint64_t count;

	(void)events;
	if (read(vf->config_fd, &count, sizeof(count)) < 0)
		return;
	vdpa_vf_config_stale(vf);
}

static void
call_attach(void *arg)
{
	struct vdpa_vf *vf = arg;
	int fd = vfe_pci_lost_fd(vf->pci);

	vf->lost_watch.ready = vf_hung_up;
	vf->config_watch.ready = config_interrupt;
	pthread_mutex_lock(&vf->lock);
	vf->state = VDPA_S_IDLE;
	vf->lost = false;
	vf->guest_blob = false;
	vf->plain.fresh = true;
	vf->plain.no_ring_reset = false;
	vf->plain.drained_ms = 0;
	vf->ring_failed = false;
	vf->failed_seq = 0;
	vf->last_error[0] = '\0';
	vf->seq++;
	pthread_mutex_unlock(&vf->lock);
	if (vdpa_watch_add(&vf->config_watch, vf->config_fd, EPOLLIN) < 0 ||
		(fd >= 0 && vdpa_watch_add(&vf->lost_watch, fd, vfe_pci_lost_events(vf->pci)) < 0))
		vdpa_vf_lost(vf, "it cannot be watched");
}

static void
call_detach(void *arg)
{
	struct vdpa_vf *vf = arg;

	atomic_store(&vf->running, false);
	vdpa_vf_relay_sync(vf);
	vdpa_slave_close(vf);
	vdpa_watch_remove(&vf->lost_watch);
	vdpa_watch_remove(&vf->config_watch);
	vdpa_timer_cancel(&vf->suspend_timer);
	vdpa_timer_cancel(&vf->retry_timer);
	vdpa_timer_cancel(&vf->refresh_timer);
	vdpa_dirty_detach(vf);
}

/* --- probing --- */

/* What vfe_vdpa_vf_add() has to say to the driver's probe, which EAL calls; and the answer. */
static struct {
	const struct vfe_bdf *bdf;
	const char *uuid;
	const struct vdpa_drive_ops *drive;
	bool allow_no_iommu;
	struct vdpa_pf *pf;
	uint16_t vf_index;
	struct vfe_vdpa_error *err;
	struct vdpa_vf *vf;
} request;

static void
vf_free(struct vdpa_vf *vf)
{
	struct hardware hw = {.pci = vf->pci, .vdev = vf->vdev, .queues = vf->queues};
	uint16_t qid;

	hardware_close(&hw);
	vdpa_plain_fini(vf);
	if (vf->domain != NULL) {
		vdpa_domain_leave(vf->domain, &vf->member);
		vdpa_domain_put(vf->domain);
	}
	for (qid = 0; vf->rings != NULL && qid < vf->nr_queues; qid++) {
		vdpa_fd_put(vf->rings[qid].kick);
		vdpa_fd_put(vf->rings[qid].call);
	}
	for (qid = 0; vf->applied != NULL && qid < vf->nr_queues; qid++)
		vdpa_fd_put(vf->applied[qid].call);
	vdpa_table_put(vf->table);
	vdpa_dirty_fini(vf);
	vfe_close(&vf->config_fd);
	vfe_close(&vf->new_slave_fd);
	vfe_state_fini(&vf->blob_state);
	free(vf->blob);
	free(vf->rings);
	free(vf->applied);
	free(vf->bells);
	pthread_cond_destroy(&vf->changed);
	pthread_mutex_destroy(&vf->lock);
	free(vf);
}

/* What depends on the number of queues. */
static int
vf_alloc_queues(struct vdpa_vf *vf)
{
	uint16_t qid;

	vf->rings = calloc(vf->nr_queues, sizeof(*vf->rings));
	vf->applied = calloc(vf->nr_queues, sizeof(*vf->applied));
	vf->bells = calloc(vf->nr_queues, sizeof(*vf->bells));
	if (vf->rings == NULL || vf->applied == NULL || vf->bells == NULL ||
		vfe_state_init(&vf->blob_state, vf->type->state_type, vf->vdev.num_queues) < 0)
		return -ENOMEM;
	for (qid = 0; qid < vf->nr_queues; qid++) {
		vf->bells[qid].relay = -1;
		vf->bells[qid].irq_relay = -1;
	}
	vdpa_vf_blob_parked(vf); /* as large as any other blob of this device */
	vf->blob_size = vfe_state_encoded_size(&vf->blob_state);
	vf->blob = malloc(vf->blob_size);
	return vf->blob != NULL ? 0 : -ENOMEM;
}

static struct vdpa_vf *
vf_new(struct vfe_vdpa_error *err)
{
	struct vdpa_vf *vf = calloc(1, sizeof(*vf));
	int ret;

	if (vf == NULL) {
		vdpa_code(
			err, VFE_VDPA_VF_ALLOC, vfe_error_set(&err->err, -ENOMEM, "out of memory"));
		return NULL;
	}
	vdpa_vf_machine_init(vf);
	vdpa_slave_init(vf);
	vf->note.run = note_run;
	vf->bdf = *request.bdf;
	vfe_bdf_format(&vf->bdf, vf->name);
	vf->pf = request.pf;
	vf->type = vf->pf->type;
	vf->vf_index = request.vf_index;
	vf->drive = request.drive;
	vf->allow_no_iommu = request.allow_no_iommu;
	if (request.uuid != NULL)
		vfe_str_copy(vf->uuid, sizeof(vf->uuid), request.uuid);
	vf->config_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (vf->config_fd < 0) {
		fail(err, VFE_VDPA_VF_IRQ_ALLOC, vf,
			vfe_error_set(&err->err, -errno, "no eventfd: %s", strerror(errno)));
		goto err_free;
	}
	/*
	 * Another function of the VM, with an IOMMU, may have rings of the guest, which reach all
	 * that their domain maps: also tables of ours, in which a device without one believes.
	 */
	ret = vdpa_domain_get(vf->allow_no_iommu ? NULL : request.uuid, &vf->domain, &err->err);
	if (ret < 0) {
		fail(err, VFE_VDPA_VF_IOMMU_DOMAIN, vf, ret);
		goto err_free;
	}
	vdpa_domain_join(vf->domain, &vf->member);
	return vf;

err_free:
	vf_free(vf);
	return NULL;
}

int
vdpa_vf_probe(const struct vfe_bdf *bdf, struct rte_device *dev)
{
	struct vfe_vdpa_error *err = request.err;
	struct hardware hw;
	struct vdpa_vf *vf;
	int ret;

	/* a device of the command line: only the management interface knows what it is for */
	if (request.bdf == NULL || !vfe_bdf_equal(request.bdf, bdf))
		return 1;
	vf = vf_new(err);
	if (vf == NULL)
		return -ENOMEM;
	ret = hardware_bring_up(vf, &hw, err);
	if (ret < 0)
		goto err_free;
	hardware_swap(vf, &hw);
	vf->physical = vfe_pci_is_physical(vf->pci);
	ret = vf_alloc_queues(vf);
	if (ret < 0) {
		fail(err, VFE_VDPA_VF_ALLOC, vf, vfe_error_set(&err->err, ret, "out of memory"));
		goto err_free;
	}
	ret = vf->drive == &vdpa_drive_plain ? vdpa_plain_init(vf, &err->err) : 0;
	if (ret < 0) {
		fail(err, VFE_VDPA_VF_ALLOC, vf, ret);
		goto err_free;
	}
	vf->vdpa = rte_vdpa_register_device(dev, &vdpa_ops);
	if (vf->vdpa == NULL) {
		ret = fail(err, VFE_VDPA_VF_REGISTER, vf,
			vfe_error_set(&err->err, -EIO, "librte_vhost does not take the device"));
		goto err_free;
	}
	vdpa_vf_register(vf);
	vdpa_reactor_call(call_attach, vf);
	request.vf = vf;
	return 0;

err_free:
	vf_free(vf);
	return ret;
}

void
vdpa_vf_unprobe(const struct vfe_bdf *bdf)
{
	struct vdpa_vf *vf = vdpa_vf_find(bdf);

	vdpa_vf_unregister(vf);
	rte_vdpa_unregister_device(vf->vdpa);
	vdpa_reactor_call(call_detach, vf);
	/* nobody posts it any more */
	vdpa_work_cancel(&vf->step);
	vdpa_work_cancel(&vf->note);
	vdpa_work_cancel(&vf->job);
	vdpa_work_cancel(&vf->job_done);
	vf_free(vf);
}

/* 36 characters 8-4-4-4-12; all zero means none. *@ret is NULL then. */
static int
uuid_check(const char *uuid, const char **ret)
{
	bool zero = true;
	size_t i;

	*ret = NULL;
	if (uuid == NULL || uuid[0] == '\0')
		return 0;
	if (strlen(uuid) != UUID_LEN)
		return -EINVAL;
	for (i = 0; i < UUID_LEN; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (uuid[i] != '-')
				return -EINVAL;
			continue;
		}
		if (!isxdigit((unsigned char)uuid[i]))
			return -EINVAL;
		zero = zero && uuid[i] == '0';
	}
	*ret = zero ? NULL : uuid;
	return 0;
}

/*
 * Is the kernel's function one that no PF manages: no VF, or a VF whose PF belongs to a driver of
 * the kernel? One whose PF could be ours, but is not, waits for that.
 */
static bool
is_plain(const struct vfe_bdf *bdf)
{
	struct vfe_bdf pf;
	int index, ret;

	ret = vfe_pci_vf_parent(bdf, &pf, &index, NULL);
	if (ret == -ENODEV)
		return true;
	return ret == 0 && vdpa_pf_find(&pf) == NULL && vfe_pci_check_driver(&pf, NULL) == -EBUSY;
}

/* Find the PF that manages @bdf. */
static int
vf_add_find_pf(const struct vfe_bdf *bdf, const char *name, struct vfe_vdpa_error *err)
{
	int index;

	request.drive = &vdpa_drive_managed;
	if (vfe_vdpa_pf_list(NULL, 0) == 0)
		return vdpa_code(err, VFE_VDPA_NO_PF_DEVICE,
			vfe_error_set(&err->err, -ENODEV,
				"%s: no PF is managed: add its PF first (mgmtpf -a), or add it as "
				"a plain function (vf -a --plain)",
				name));
	request.pf = vdpa_pf_of_vf(bdf, &index);
	if (request.pf == NULL)
		return vdpa_code(err, VFE_VDPA_VF_NO_VFID,
			vfe_error_set(&err->err, -ENODEV,
				"%s is no VF of a managed PF: add its PF first (mgmtpf -a), or add "
				"it as a plain function (vf -a --plain)",
				name));
	request.vf_index = (uint16_t)index;
	if (atomic_load(&request.pf->lost))
		return vdpa_code(err, VFE_VDPA_NO_PF_DEVICE,
			vfe_error_set(&err->err, -ENODEV, "%s: its PF %s is lost at the moment",
				name, request.pf->name));
	return 0;
}

static int
vf_add_check(const struct vfe_bdf *bdf, const char *uuid, bool plain, const char *name,
	struct vfe_vdpa_error *err)
{
	int ret;

	if (vdpa_vf_find(bdf) != NULL)
		return vdpa_code(err, VFE_VDPA_VF_ALREADY_ADDED,
			vfe_error_set(&err->err, -EEXIST, "%s is managed already", name));
	if (uuid_check(uuid, &request.uuid) < 0)
		return vdpa_code(err, VFE_VDPA_DEVARGS_PARSE,
			vfe_error_set(&err->err, -EINVAL, "%s: \"%.64s\" is no UUID", name, uuid));
	if (plain || is_plain(bdf)) {
		request.drive = &vdpa_drive_plain;
		request.pf = &vdpa_no_pf;
	} else {
		ret = vf_add_find_pf(bdf, name, err);
		if (ret < 0)
			return ret;
	}
	/* EAL does not see functions without a driver, and would not tell */
	ret = vfe_pci_check_driver(bdf, &err->err);
	return ret < 0 ? vdpa_code(err, VFE_VDPA_VFIO_DEV_FD,
				 vfe_error_prefix(&err->err, ret, "%s", name))
		       : 0;
}

static int
vf_add(const struct vfe_bdf *bdf, const char *uuid, bool plain, bool allow_no_iommu,
	struct vfe_vdpa_error *err)
{
	char name[VFE_BDF_STR_SIZE];
	int ret;

	memset(err, 0, sizeof(*err));
	memset(&request, 0, sizeof(request));
	vfe_bdf_format(bdf, name);
	ret = vf_add_check(bdf, uuid, plain, name, err);
	if (ret < 0)
		return ret;
	request.bdf = bdf;
	request.allow_no_iommu = allow_no_iommu;
	request.err = err;
	ret = vdpa_bus_plug(bdf);
	request.bdf = NULL;
	if (ret == 0 && request.vf != NULL) {
		VDPA_LOG(INFO, dev, name, "added: %s, VF %u of PF %s, %u queues, UUID %s",
			request.drive->name, request.vf_index, request.pf->name,
			request.vf->nr_queues, request.uuid != NULL ? request.uuid : "none");
		return 0;
	}
	if (err->code == VFE_VDPA_OK)
		vdpa_code(err, VFE_VDPA_PROBE_FAIL,
			vfe_error_set(&err->err, -EIO, "%s: EAL does not probe it: error %d%s",
				name, ret, ret == -ENOTSUP ? ", it is no virtio function" : ""));
	return ret < 0 ? ret : -EIO;
}

int
vfe_vdpa_vf_add(const struct vfe_bdf *bdf, const char *uuid, struct vfe_vdpa_error *err)
{
	return vf_add(bdf, uuid, false, false, err);
}

int
vfe_vdpa_vf_add_plain(const struct vfe_bdf *bdf, const char *uuid, bool allow_no_iommu,
	struct vfe_vdpa_error *err)
{
	return vf_add(bdf, uuid, true, allow_no_iommu, err);
}

/* --- removal --- */

void
vdpa_vf_begin_removal(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	vf->removing = true;
	pthread_mutex_unlock(&vf->lock);
	vdpa_vf_post(vf);
}

static bool
is_parked_locked(const struct vdpa_vf *vf)
{
	if (vf->needs_clean || !vf->dirty.idle || vdpa_dirty_flush_due_locked(vf))
		return false;
	return vf->state == VDPA_S_IDLE || vf->state == VDPA_S_LOST ||
	       (vf->state == VDPA_S_FROZEN && !vf->guest_blob);
}

/* Parked, or given up: then its transport is cut, which ends what is in flight. */
static void
wait_parked(struct vdpa_vf *vf)
{
	const struct timespec at = vfe_deadline_timespec(vfe_deadline_in_ms(vdpa_globals.ms.park));
	bool parked;

	pthread_mutex_lock(&vf->lock);
	while (!is_parked_locked(vf)) {
		if (pthread_cond_timedwait(&vf->changed, &vf->lock, &at) == ETIMEDOUT)
			break;
	}
	parked = is_parked_locked(vf);
	pthread_mutex_unlock(&vf->lock);
	if (parked)
		return;
	VDPA_LOG(ERR, dev, vf->name, "did not park in %u ms", vdpa_globals.ms.park);
	vdpa_vf_lost(vf, "it did not park in time");
	/* commands end by their deadline, jobs by the cut of the transport */
	pthread_mutex_lock(&vf->lock);
	while (!is_parked_locked(vf))
		pthread_cond_wait(&vf->changed, &vf->lock);
	pthread_mutex_unlock(&vf->lock);
}

void
vdpa_vf_remove_now(struct vdpa_vf *vf)
{
	struct rte_device *dev = rte_vdpa_get_rte_device(vf->vdpa);
	int vid;

	pthread_mutex_lock(&vf->lock);
	vid = vf->vid;
	pthread_mutex_unlock(&vf->lock);
	vfe_vdpa_vf_disconnect(vid);
	vdpa_vf_begin_removal(vf);
	wait_parked(vf);
	vdpa_debug_fini(vf);
	VDPA_LOG(INFO, dev, vf->name, "removed");
	rte_dev_remove(dev);
}

int
vfe_vdpa_vf_remove(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	struct vdpa_vf *vf = vdpa_vf_find(bdf);
	char name[VFE_BDF_STR_SIZE];
	bool attached;

	memset(err, 0, sizeof(*err));
	if (vf == NULL)
		return vdpa_code(err, VFE_VDPA_NO_VF_DEVICE,
			vfe_error_set(&err->err, -ENODEV, "VF %s is not managed",
				vfe_bdf_format(bdf, name)));
	pthread_mutex_lock(&vf->lock);
	attached = vf->vid >= 0;
	pthread_mutex_unlock(&vf->lock);
	if (attached)
		return vdpa_code(err, VFE_VDPA_VF_ATTACH_VDPA,
			vfe_error_set(&err->err, -EBUSY, "%s: a front-end is connected", vf->name));
	vdpa_vf_remove_now(vf);
	return 0;
}

/* --- return --- */

/* A guest has seen these; it cannot be told of other ones. */
static int
hardware_compatible(const struct vdpa_vf *vf, const struct hardware *hw, struct vfe_error *err)
{
	uint16_t qid;

	if (vfe_pci_is_physical(hw->pci) != vf->physical)
		return vfe_error_set(err, -EXDEV, "it came back %s an IOMMU, was %s one",
			vf->physical ? "with" : "without", vf->physical ? "without" : "with");
	if (hw->nr_queues != vf->nr_queues || hw->vdev.num_queues != vf->vdev.num_queues)
		return vfe_error_set(err, -EXDEV,
			"it came back with %u data queues of %u, had %u of %u", hw->nr_queues,
			hw->vdev.num_queues, vf->nr_queues, vf->vdev.num_queues);
	if (hw->vdev.device_features != vf->vdev.device_features)
		return vfe_error_set(err, -EXDEV, "it came back with features %#llx, had %#llx",
			(unsigned long long)hw->vdev.device_features,
			(unsigned long long)vf->vdev.device_features);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (hw->queues[qid].max_size < vf->queues[qid].max_size)
			return vfe_error_set(err, -EXDEV, "queue %u came back with size %u, had %u",
				qid, hw->queues[qid].max_size, vf->queues[qid].max_size);
	}
	return vf->type->config_compatible(&vf->config, &hw->config, err);
}

int
vdpa_vf_reattach(struct vdpa_vf *vf, struct vfe_vdpa_error *err)
{
	struct hardware hw;
	bool lost;
	int ret;

	memset(err, 0, sizeof(*err));
	pthread_mutex_lock(&vf->lock);
	lost = vf->lost;
	ret = lost && (vf->state != VDPA_S_LOST || vf->needs_clean ||
			      vdpa_dirty_flush_due_locked(vf))
		      ? -EAGAIN
		      : 0;
	pthread_mutex_unlock(&vf->lock);
	if (!lost)
		return 0;
	if (ret < 0 || atomic_load(&vf->pf->lost))
		return vdpa_code(err, VFE_VDPA_PROBE_FAIL,
			vfe_error_set(&err->err, -EAGAIN, "%s: %s", vf->name,
				ret < 0 ? "the loss is being dealt with"
					: "its PF is not back yet"));
	/* rings in which a device had nothing may start again */
	vdpa_work_finish(&vf->note);
	/* the kernel gives a function only once */
	vfe_pci_domain_detach(vdpa_domain_pci(vf->domain), vf->pci);
	ret = hardware_bring_up(vf, &hw, err);
	if (ret < 0)
		return ret == -ENOENT || ret == -ECONNREFUSED ? -EAGAIN : ret;
	ret = hardware_compatible(vf, &hw, &err->err);
	if (ret < 0) {
		hardware_close(&hw);
		return fail(err, VFE_VDPA_PROBE_FAIL, vf, ret);
	}
	/* while the guest's memory is what it was */
	vdpa_shadow_stop(vf);
	hardware_swap(vf, &hw);
	hw.vdev.pci = NULL; /* the old one is gone: nothing to reset */
	hardware_close(&hw);
	vdpa_reactor_call(call_attach, vf);
	VDPA_LOG(INFO, dev, vf->name, "is back");
	vdpa_vf_post(vf);
	return 0;
}
