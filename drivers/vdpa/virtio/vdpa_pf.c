/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Physical functions: bring-up with the admin queue, loss, return, removal.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "vdpa_priv.h"
#include "vfe_vdpa.h"

enum {
	ARENA_BASE = 0x10000000, /* iova; anything that is not 0 */
	ARENA_SIZE = 16 << 20,   /* rings, and state of all VFs in flight; pages come when used */
	PF_CONFIG_VECTOR = 0,
	PF_ADMIN_VECTOR = 1,
};

/* --- reactor --- */

void
vdpa_pf_rearm(struct vdpa_pf *pf)
{
	struct vfe_deadline at;

	if (pf->admin != NULL && vfe_admin_next_deadline(pf->admin, &at))
		vdpa_timer_set(&pf->timer, at);
	else
		vdpa_timer_cancel(&pf->timer);
}

static void
pf_post_vf(struct vdpa_vf *vf, const void *arg)
{
	if (vf->pf == arg)
		vdpa_vf_post(vf);
}

/* Take the PF off the reactor; commands in flight complete with -ECANCELED. */
static void
pf_detach(struct vdpa_pf *pf)
{
	struct vfe_admin *admin = pf->admin;

	vdpa_watch_remove(&pf->lost_watch);
	vdpa_watch_remove(&pf->admin_watch);
	vdpa_timer_cancel(&pf->timer);
	pf->admin = NULL;
	pf->old_retries = atomic_load(&pf->retries);
	vfe_admin_destroy(admin);
}

/*
 * Its VFs run on. Memory that the device could still write to stays until the PF is opened again
 * or removed.
 */
static void
pf_lost(struct vdpa_pf *pf, const char *why)
{
	if (atomic_exchange(&pf->lost, true))
		return;
	VDPA_LOG(ERR, dev, pf->name, "lost: %s", why);
	vfe_pci_abort(pf->pci);
	pf_detach(pf);
	vdpa_vf_for_each(pf_post_vf, pf);
	if (vdpa_globals.on_lost != NULL)
		vdpa_globals.on_lost(vdpa_globals.ctx, &pf->bdf, why);
}

static void
pf_process(struct vdpa_pf *pf)
{
	if (pf->admin == NULL)
		return;
	vfe_admin_process(pf->admin);
	atomic_store(&pf->retries, pf->old_retries + vfe_admin_retries(pf->admin));
	if (vfe_pci_error(pf->pci) != 0)
		pf_lost(pf, "the connection to the device has failed");
	else if (vfe_admin_error(pf->admin) != 0)
		pf_lost(pf, "the device has broken the protocol of its admin queue");
	else
		vdpa_pf_rearm(pf);
}

static void
pf_admin_ready(struct vdpa_watch *watch, uint32_t events)
{
	(void)events;
	pf_process(vfe_container_of(watch, struct vdpa_pf, admin_watch));
}

static void
pf_timer_expired(struct vdpa_timer *timer)
{
	pf_process(vfe_container_of(timer, struct vdpa_pf, timer));
}

static void
pf_hung_up(struct vdpa_watch *watch, uint32_t events)
{
	(void)events;
	pf_lost(vfe_container_of(watch, struct vdpa_pf, lost_watch), "the device has hung up");
}

static void
call_attach(void *arg)
{
	struct vdpa_pf *pf = arg;
	int fd = vfe_pci_lost_fd(pf->pci);

	pf->admin = pf->new_admin;
	pf->new_admin = NULL;
	pf->generation++;
	if (vdpa_watch_add(&pf->admin_watch, vfe_admin_fd(pf->admin), EPOLLIN) < 0 ||
		(fd >= 0 && vdpa_watch_add(&pf->lost_watch, fd, vfe_pci_lost_events(pf->pci)) < 0))
		pf_lost(pf, "cannot be watched");
}

static void
call_detach(void *arg)
{
	pf_detach(arg);
}

/* --- commands that the provisioning thread waits for --- */

struct pf_command {
	struct vdpa_pf *pf;
	int (*submit)(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx);
	void *arg;
	void *out;
	size_t out_size;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int status;
	struct vfe_error err;
};

static void
command_done(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err)
{
	struct pf_command *c = ctx;

	atomic_fetch_add(&c->pf->commands, 1);
	if (status < 0)
		atomic_fetch_add(&c->pf->errors, 1);
	pthread_mutex_lock(&c->lock);
	c->status = status;
	if (status < 0 && err != NULL)
		c->err = *err;
	if (status == 0 && out != NULL && out_len >= c->out_size && c->out_size > 0)
		memcpy(c->out, out, c->out_size);
	c->done = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

static void
call_command(void *arg)
{
	struct pf_command *c = arg;
	int ret = -ENODEV;

	if (c->pf->admin != NULL)
		ret = c->submit(c->pf, c->arg, command_done, c);
	if (ret < 0)
		command_done(c, ret, NULL, 0, NULL);
	else
		vdpa_pf_rearm(c->pf);
}

/* The admin queue completes every command in bounded time, so the wait needs no limit of its own.
 */
int
vdpa_pf_command(struct vdpa_pf *pf,
	int (*submit)(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx), void *arg,
	void *out, size_t out_size, struct vfe_error *err)
{
	struct pf_command c = {
		.pf = pf,
		.submit = submit,
		.arg = arg,
		.out = out,
		.out_size = out_size,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER,
	};

	vdpa_reactor_call(call_command, &c);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
	if (c.status < 0)
		return vfe_error_set(err, c.status, "%s: %s", pf->name,
			c.err.text[0] != '\0' ? c.err.text : strerror(-c.status));
	return 0;
}

static int
submit_identify(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx)
{
	(void)arg;
	return vfe_admin_identify(pf->admin, done, ctx);
}

/* --- bring-up; each stage has its error number --- */

static int
fail(struct vfe_vdpa_error *err, enum vfe_vdpa_code code, const struct vdpa_pf *pf, int ret)
{
	return vdpa_code(err, code, vfe_error_prefix(&err->err, ret, "%s", pf->name));
}

static int
pf_open(struct vdpa_pf *pf, struct vfe_vdpa_error *err)
{
	struct vfe_pci_open_cfg cfg = {
		.bdf = pf->bdf,
		.timeout_ms = vdpa_globals.transport_timeout_ms,
		.vf_token = vdpa_globals.vf_token,
	};
	const struct vdpa_type *type;
	char path[108];
	int ret;

	pthread_mutex_lock(&pf->map_lock);
	ret = vfe_pci_domain_create(&pf->domain, &err->err);
	pthread_mutex_unlock(&pf->map_lock);
	if (ret < 0)
		return fail(err, VFE_VDPA_PROBE_FAIL, pf, ret);
	cfg.domain = pf->domain;
	ret = vfe_pci_find(&pf->bdf, vdpa_globals.vfio_user_dir, path, sizeof(path), &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_NO_PF_DEVICE, pf, ret);
	cfg.vfio_user_path = path[0] != '\0' ? path : NULL;
	ret = vfe_pci_open(&cfg, &pf->pci, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_VFIO_DEV_FD, pf, ret);
	ret = vfe_virtio_init(&pf->vdev, pf->pci, &err->err);
	if (ret < 0)
		return fail(err, VFE_VDPA_PROBE_FAIL, pf, ret);
	type = vdpa_type_find(pf->vdev.pci_device_id);
	if (type == NULL || (pf->type != NULL && type != pf->type))
		return fail(err, VFE_VDPA_PF_DEVICE_ID, pf,
			vfe_error_set(&err->err, -ENOTSUP, "device id %#06x, expected %s",
				pf->vdev.pci_device_id,
				pf->type != NULL ? pf->type->name
						 : "0x1041 (net) or 0x1042 (blk)"));
	ret = vfe_pci_sriov_get(pf->pci, &pf->sriov, &err->err);
	return ret < 0 ? fail(err, VFE_VDPA_PROBE_FAIL, pf, ret) : 0;
}

static int
pf_negotiate(struct vdpa_pf *pf, struct vfe_vdpa_error *err)
{
	const uint8_t status = VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER;
	uint64_t wanted = vfe_admin_features_wanted(pf->vdev.device_features);
	int ret;

	ret = vfe_virtio_reset(
		&pf->vdev, vfe_deadline_in_ms(vdpa_globals.reset_timeout_ms), NULL, &err->err);
	if (ret < 0)
		return fail(err, ret == -ETIMEDOUT ? VFE_VDPA_RESET_TIMEOUT : VFE_VDPA_PROBE_FAIL,
			pf, ret);
	if (wanted == 0)
		return fail(err, VFE_VDPA_PF_FEATURES, pf,
			vfe_error_set(&err->err, -ENOTSUP,
				"features %#llx lack VERSION_1, ACCESS_PLATFORM or the admin queue "
				"for live migration",
				(unsigned long long)pf->vdev.device_features));
	ret = vfe_virtio_status_add(&pf->vdev, status, &err->err);
	if (ret == 0)
		ret = vfe_virtio_features_set(&pf->vdev, wanted, &err->err);
	return ret < 0 ? fail(err, VFE_VDPA_PF_FEATURES, pf, ret) : 0;
}

static int
pf_memory(struct vdpa_pf *pf, struct vfe_vdpa_error *err)
{
	int ret;

	ret = vfe_dma_arena_create(
		pf->domain, ARENA_BASE, ARENA_SIZE, false, &pf->arena, &err->err);
	if (ret == 0)
		ret = vfe_pci_set_master(pf->pci, true, &err->err);
	return ret < 0 ? fail(err, VFE_VDPA_PF_ADMIN_QUEUE, pf, ret) : 0;
}

static int
pf_admin(struct vdpa_pf *pf, struct vfe_vdpa_error *err)
{
	struct vfe_admin_cfg cfg = {
		.vdev = &pf->vdev,
		.arena = pf->arena,
		.msix_vector = VFE_VIRTIO_MSI_NO_VECTOR,
	};
	int ret;

	if (pf->vdev.num_vectors > PF_ADMIN_VECTOR)
		cfg.msix_vector = PF_ADMIN_VECTOR;
	ret = vfe_admin_queue_index(&pf->vdev, &cfg.queue_index, &err->err);
	if (ret == 0)
		ret = vfe_admin_create(&cfg, &pf->new_admin, &err->err);
	if (ret == 0)
		ret = vfe_virtio_status_add(&pf->vdev, VFE_VIRTIO_S_DRIVER_OK, &err->err);
	return ret < 0 ? fail(err, VFE_VDPA_PF_ADMIN_QUEUE, pf, ret) : 0;
}

/* Undo pf_bring_up(), as far as it came. The device is reset before its memory goes. */
static void
pf_take_down(struct vdpa_pf *pf)
{
	struct vfe_pci_domain *domain;

	if (pf->pci != NULL && pf->vdev.pci != NULL)
		vfe_virtio_reset(&pf->vdev, vfe_deadline_in_ms(VDPA_STOP_TIMEOUT_MS), NULL, NULL);
	/* also when it is detached already: the reactor may still be in pf_lost() */
	vdpa_reactor_call(call_detach, pf);
	vfe_admin_destroy(pf->new_admin);
	pf->new_admin = NULL;
	if (pf->pci != NULL)
		vfe_pci_set_master(pf->pci, false, NULL);
	vfe_dma_arena_destroy(pf->arena);
	pf->arena = NULL;
	pthread_mutex_lock(&pf->map_lock);
	vdpa_targets_clear_locked(pf);
	domain = pf->domain;
	pf->domain = NULL;
	pthread_mutex_unlock(&pf->map_lock);
	vfe_pci_close(pf->pci);
	pf->pci = NULL;
	memset(&pf->vdev, 0, sizeof(pf->vdev));
	if (domain != NULL)
		vfe_pci_domain_destroy(domain);
}

static int
pf_bring_up(struct vdpa_pf *pf, struct vfe_vdpa_error *err)
{
	int ret;

	ret = pf_open(pf, err);
	if (ret == 0)
		ret = pf_negotiate(pf, err);
	if (ret == 0)
		ret = pf_memory(pf, err);
	if (ret == 0)
		ret = pf_admin(pf, err);
	if (ret < 0)
		goto err_take_down;
	atomic_store(&pf->lost, false);
	vdpa_reactor_call(call_attach, pf);
	ret = vdpa_pf_command(pf, submit_identify, NULL, NULL, 0, &err->err);
	if (ret < 0) {
		vdpa_code(err, VFE_VDPA_PF_ADMIN_QUEUE, ret);
		goto err_take_down;
	}
	return 0;

err_take_down:
	pf_take_down(pf);
	return ret;
}

int
vfe_vdpa_pf_add(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	struct vdpa_pf *pf;
	int ret;

	memset(err, 0, sizeof(*err));
	pf = calloc(1, sizeof(*pf));
	if (pf == NULL)
		return vdpa_code(err, VFE_VDPA_PROBE_FAIL,
			vfe_error_set(&err->err, -ENOMEM, "out of memory"));
	pf->bdf = *bdf;
	vfe_bdf_format(bdf, pf->name);
	pf->admin_watch = (struct vdpa_watch){.fd = -1, .ready = pf_admin_ready};
	pf->lost_watch = (struct vdpa_watch){.fd = -1, .ready = pf_hung_up};
	pf->timer.expired = pf_timer_expired;
	pthread_mutex_init(&pf->map_lock, NULL);
	LIST_INIT(&pf->targets);
	ret = vdpa_pf_find(bdf) == NULL ? pf_bring_up(pf, err)
					: vdpa_code(err, VFE_VDPA_PF_ALREADY_ADDED,
						  vfe_error_set(&err->err, -EEXIST,
							  "%s is managed already", pf->name));
	if (ret < 0) {
		pthread_mutex_destroy(&pf->map_lock);
		free(pf);
		return ret;
	}
	pf->device_features = pf->vdev.device_features;
	pf->type = vdpa_type_find(pf->vdev.pci_device_id);
	vdpa_pf_register(pf);
	VDPA_LOG(INFO, dev, pf->name, "added: up to %u VFs, migration interface %u.%u",
		pf->sriov.num_vfs, vfe_admin_caps(pf->admin)->major,
		vfe_admin_caps(pf->admin)->minor);
	return 0;
}

int
vfe_vdpa_pf_add_vfs(const struct vfe_bdf *bdf, unsigned int num_vfs, struct vfe_vdpa_error *err)
{
	int created, ret;

	memset(err, 0, sizeof(*err));
	created = vfe_pci_vfs_create(bdf, num_vfs, &err->err);
	if (created < 0)
		return vdpa_code(err,
			created == -ERANGE ? VFE_VDPA_EXCEED_LIMIT : VFE_VDPA_PROBE_FAIL, created);
	ret = vfe_vdpa_pf_add(bdf, err);
	if (ret < 0 && created > 0)
		vfe_pci_vfs_destroy(bdf, NULL);
	return ret;
}

int
vfe_vdpa_pf_remove(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	struct vdpa_pf *pf = vdpa_pf_find(bdf);
	char name[VFE_BDF_STR_SIZE];

	memset(err, 0, sizeof(*err));
	if (pf == NULL)
		return vdpa_code(err, VFE_VDPA_NO_PF_DEVICE,
			vfe_error_set(&err->err, -ENODEV, "PF %s is not managed",
				vfe_bdf_format(bdf, name)));
	if (vdpa_vf_first(pf) != NULL)
		return vdpa_code(err, VFE_VDPA_PF_HAS_VFS,
			vfe_error_set(&err->err, -EBUSY, "%s has managed VFs: remove them first",
				pf->name));
	vdpa_pf_unregister(pf);
	pf_take_down(pf);
	VDPA_LOG(INFO, dev, pf->name, "removed");
	pthread_mutex_destroy(&pf->map_lock);
	free(pf);
	return 0;
}

/* Open it again; what it is must fit what its VFs know of it. */
int
vdpa_pf_reattach(struct vdpa_pf *pf, struct vfe_vdpa_error *err)
{
	struct vfe_pci_sriov sriov = pf->sriov;
	int ret;

	memset(err, 0, sizeof(*err));
	if (!atomic_load(&pf->lost))
		return 0;
	pf_take_down(pf);
	ret = pf_bring_up(pf, err);
	if (ret == 0 && memcmp(&sriov, &pf->sriov, sizeof(sriov)) != 0)
		VDPA_LOG(WARNING, dev, pf->name, "came back with other VFs than before");
	if (ret < 0) {
		pf->sriov = sriov;
		atomic_store(&pf->lost, true);
		return ret == -ENOENT || ret == -ECONNREFUSED ? -EAGAIN : ret;
	}
	pf->device_features = pf->vdev.device_features;
	VDPA_LOG(INFO, dev, pf->name, "is back");
	vdpa_vf_for_each(pf_post_vf, pf);
	return 0;
}
