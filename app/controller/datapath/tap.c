/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A multi-queue TAP interface with virtio-net headers: the ioctls.
 */

#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfe_wire_net.h"

/* The kernel takes "%d" as a pattern and ':' as an old alias. */
static int
name_check(const char *name, struct vfe_error *err)
{
	if (name == NULL || name[0] == '\0' || strlen(name) >= IFNAMSIZ ||
		strpbrk(name, "%:/ \t\n") != NULL || strcmp(name, ".") == 0 ||
		strcmp(name, "..") == 0)
		return vfe_error_set(err, -EINVAL,
			"'%s' is no name for a network interface (1 to %d characters)",
			name != NULL ? name : "", IFNAMSIZ - 1);
	return 0;
}

static int
open_error(const char *name, int rc, struct vfe_error *err)
{
	switch (rc) {
	case -EPERM:
	case -EACCES:
		return vfe_error_set(err, rc,
			"no permission to create TAP %s: run as root or with CAP_NET_ADMIN", name);
	case -EBUSY:
		return vfe_error_set(err, rc, "TAP %s is in use by another program", name);
	case -EINVAL:
		return vfe_error_set(err, rc,
			"interface %s exists and is no multi-queue TAP: delete it (ip link del %s) "
			"or "
			"create it with 'ip tuntap add %s mode tap multi_queue vnet_hdr'",
			name, name, name);
	default:
		return vfe_error_set(err, rc, "cannot create TAP %s: %s", name, strerror(-rc));
	}
}

/* One more queue of interface @name. Returns its fd or -errno. */
static int
queue_open(const char *name, struct vfe_error *err)
{
	const int hdr_size = sizeof(struct vfe_wire_net_hdr), little_endian = 1;
	struct ifreq ifr = {0};
	int fd, rc;

	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return vfe_error_set(err, -errno, "cannot open /dev/net/tun: %s (modprobe tun?)",
			strerror(errno));

	vfe_str_copy(ifr.ifr_name, sizeof(ifr.ifr_name), name);
	ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		rc = open_error(name, -errno, err);
		goto err_close_fd;
	}
	if (ioctl(fd, TUNSETVNETHDRSZ, &hdr_size) < 0 ||
		ioctl(fd, TUNSETVNETLE, &little_endian) < 0) {
		rc = vfe_error_set(
			err, -errno, "TAP %s has no virtio-net headers: %s", name, strerror(errno));
		goto err_close_fd;
	}
	return fd;

err_close_fd:
	vfe_close(&fd);
	return rc;
}

/* An ioctl on the interface, which takes a socket. */
static int
if_ioctl(const struct dp_tap *tap, unsigned long cmd, struct ifreq *ifr)
{
	int fd, rc = 0;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	vfe_str_copy(ifr->ifr_name, sizeof(ifr->ifr_name), tap->name);
	if (ioctl(fd, cmd, ifr) < 0)
		rc = -errno;
	vfe_close(&fd);
	return rc;
}

static int
tap_bring_up(struct dp_tap *tap, struct vfe_error *err)
{
	struct ifreq ifr = {0};
	int rc;

	rc = if_ioctl(tap, SIOCGIFFLAGS, &ifr);
	if (rc == 0) {
		ifr.ifr_flags |= IFF_UP;
		rc = if_ioctl(tap, SIOCSIFFLAGS, &ifr);
	}
	if (rc < 0)
		vfe_error_set(err, rc, "cannot bring up TAP %s: %s", tap->name, strerror(-rc));
	return rc;
}

int
dp_tap_open(const char *name, uint16_t max_queues, struct dp_tap **ret, struct vfe_error *err)
{
	struct dp_tap *tap;
	bool existed;
	uint16_t i;
	int rc;

	rc = name_check(name, err);
	if (rc < 0)
		return rc;
	tap = calloc(1, sizeof(*tap) + max_queues * sizeof(tap->fds[0]));
	if (tap == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for TAP %s", name);
	for (i = 0; i < max_queues; i++)
		tap->fds[i] = -1;
	tap->max_queues = max_queues;
	vfe_str_copy(tap->name, sizeof(tap->name), name);

	existed = if_nametoindex(name) != 0;
	rc = dp_tap_set_queues(tap, 1, err);
	if (rc < 0)
		goto err_close;
	tap->ifindex = if_nametoindex(name);
	rc = dp_tap_set_offload(tap, 0, err);
	if (rc == 0 && !existed)
		rc = tap_bring_up(tap, err);
	if (rc < 0)
		goto err_close;
	*ret = tap;
	return 0;

err_close:
	dp_tap_close(tap);
	return rc;
}

void
dp_tap_close(struct dp_tap *tap)
{
	if (tap == NULL)
		return;
	vfe_close_all(tap->fds, tap->max_queues);
	free(tap);
}

static int
queue_attach(struct dp_tap *tap, uint16_t i, bool on, struct vfe_error *err)
{
	struct ifreq ifr = {0};

	if (on && tap->fds[i] < 0) {
		tap->fds[i] = queue_open(tap->name, err);
		return tap->fds[i] < 0 ? vfe_fd_take(&tap->fds[i]) : 0;
	}
	ifr.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
	if (ioctl(tap->fds[i], TUNSETQUEUE, &ifr) < 0)
		return vfe_error_set(err, -errno, "cannot %s queue %u of TAP %s: %s",
			on ? "attach" : "detach", i, tap->name, strerror(errno));
	return 0;
}

int
dp_tap_set_queues(struct dp_tap *tap, uint16_t n, struct vfe_error *err)
{
	int rc;

	while (tap->active < n) {
		rc = queue_attach(tap, tap->active, true, err);
		if (rc < 0)
			return rc;
		tap->active++;
	}
	while (tap->active > n) {
		rc = queue_attach(tap, (uint16_t)(tap->active - 1), false, err);
		if (rc < 0)
			return rc;
		tap->active--;
	}
	return 0;
}

int
dp_tap_set_offload(struct dp_tap *tap, unsigned int offload, struct vfe_error *err)
{
	if (ioctl(tap->fds[0], TUNSETOFFLOAD, (unsigned long)offload) < 0)
		return vfe_error_set(err, -errno, "cannot set offloads 0x%x of TAP %s: %s", offload,
			tap->name, strerror(errno));
	return 0;
}

int
dp_tap_set_mtu(struct dp_tap *tap, uint16_t mtu, struct vfe_error *err)
{
	struct ifreq ifr = {.ifr_mtu = mtu};
	int rc = if_ioctl(tap, SIOCSIFMTU, &ifr);

	if (rc < 0)
		vfe_error_set(
			err, rc, "cannot set MTU %u of TAP %s: %s", mtu, tap->name, strerror(-rc));
	return rc;
}
