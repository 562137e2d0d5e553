/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The fds beside a vhost-user message.
 */

#include "vdpa_msg.h"

#include "vfe_base.h"

bool
vdpa_msg_has_fds(const struct vdpa_msg *msg)
{
	int i;

	if (msg->nr_fds < 0 || msg->nr_fds > VDPA_MSG_MAX_FDS)
		return false;
	for (i = 0; i < VDPA_MSG_MAX_FDS; i++) {
		if ((msg->fds[i] >= 0) != (i < msg->nr_fds))
			return false;
	}
	return true;
}

void
vdpa_msg_close_fds(struct vdpa_msg *msg)
{
	int i, fd;

	if (!vdpa_msg_has_fds(msg))
		return;
	for (i = 0; i < VDPA_MSG_MAX_FDS; i++) {
		fd = msg->fds[i];
		vfe_close(&fd);
		msg->fds[i] = -1;
	}
	msg->nr_fds = 0;
}
