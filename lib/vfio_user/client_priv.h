/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vfio-user client inside: one call, the exchange of messages, errors of the server.
 */

#ifndef VFU_CLIENT_PRIV_H
#define VFU_CLIENT_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "vfe_vfio_user_client.h"
#include "vfu_msg.h"

/* A command: @fixed is the struct of the body, @data what follows it. */
struct vfu_request {
	uint16_t command;
	const void *fixed;
	uint32_t fixed_len;
	const void *data;
	uint32_t data_len;
	const int *fds; /* stay the caller's */
	uint32_t nr_fds;
};

/* Its reply; released by vfu_reply_fini(). The size has the shape of the message table. */
struct vfu_reply {
	uint8_t *body;
	uint32_t size;
	int *fds;
	uint32_t nr_fds;
};

void vfu_reply_fini(struct vfu_reply *reply);

/* A command in flight; belongs to the thread that waits. */
struct vfe_vfu_call {
	LIST_ENTRY(vfe_vfu_call) link;
	struct vfe_deadline deadline;
	uint16_t id;
	uint16_t command;
	bool done;
	struct vfu_reply reply;
	uint32_t reply_error; /* flags say error: its errno */
	bool failed;
};

/*
 * Send a command and wait for its reply until the client's deadline. @reply may be NULL when none
 * of its content matters. Returns 0, the -errno of the server's error reply, or the error that
 * ended the client.
 */
int vfu_client_call(struct vfe_vfu_client *client, const struct vfu_request *req,
	struct vfu_reply *reply, struct vfe_error *err);

/*
 * The same in two halves, between which other commands can be sent. begin returns 0, or -EBUSY and
 * then there is no end; what else goes wrong is told by end. @call stays in its place meanwhile.
 */
int vfu_client_begin(struct vfe_vfu_client *client, const struct vfu_request *req,
	struct vfe_vfu_call *call, struct vfe_error *err);
int vfu_client_end(struct vfe_vfu_client *client, struct vfe_vfu_call *call,
	struct vfu_reply *reply, struct vfe_error *err);

/* Send a command that asks for no reply, without waiting. Returns 0, -EAGAIN, or -errno. */
int vfu_client_post(struct vfe_vfu_client *client, const struct vfu_request *req);

/* The server has lied: end the client with -EPROTO and the text; @err gets it too. */
int vfu_client_violation(struct vfe_vfu_client *client, struct vfe_error *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* What the server can take in one message: fds, bytes of data. */
uint32_t vfu_client_max_fds(const struct vfe_vfu_client *client);
uint32_t vfu_client_max_xfer(const struct vfe_vfu_client *client);

#endif /* VFU_CLIENT_PRIV_H */
