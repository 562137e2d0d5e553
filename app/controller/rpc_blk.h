/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Methods for bdevs and block controllers, with the names of the user guide and of SPDK.
 */

#ifndef CONTROLLER_RPC_BLK_H
#define CONTROLLER_RPC_BLK_H

#include <jansson.h>

#include "vfe_jsonrpc.h"

typedef void rpc_handler(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);

/* rpc_bdev.c */
rpc_handler rpc_bdev_null_create, rpc_bdev_malloc_create, rpc_bdev_aio_create,
	rpc_bdev_uring_create, rpc_bdev_null_delete, rpc_bdev_malloc_delete, rpc_bdev_file_delete,
	rpc_bdev_null_resize, rpc_bdev_malloc_resize, rpc_bdev_rescan, rpc_bdev_get_bdevs,
	rpc_bdev_inject;

/* rpc_blk.c */
rpc_handler rpc_ctrl_create, rpc_ctrl_create_old, rpc_ctrl_destroy, rpc_ctrl_delete_old,
	rpc_controller_list, rpc_ctrl_list, rpc_emulation_function_list;

#define RPC_BLK_METHODS                                                                          \
	{"bdev_null_create", rpc_bdev_null_create}, {"bdev_null_delete", rpc_bdev_null_delete},  \
		{"bdev_null_resize", rpc_bdev_null_resize},                                      \
		{"bdev_malloc_create", rpc_bdev_malloc_create},                                  \
		{"bdev_malloc_delete", rpc_bdev_malloc_delete},                                  \
		{"bdev_malloc_resize", rpc_bdev_malloc_resize},                                  \
		{"bdev_aio_create", rpc_bdev_aio_create},                                        \
		{"bdev_aio_delete", rpc_bdev_file_delete}, {"bdev_aio_rescan", rpc_bdev_rescan}, \
		{"bdev_uring_create", rpc_bdev_uring_create},                                    \
		{"bdev_uring_delete", rpc_bdev_file_delete},                                     \
		{"bdev_uring_rescan", rpc_bdev_rescan}, {"bdev_get_bdevs", rpc_bdev_get_bdevs},  \
		{"bdev_inject", rpc_bdev_inject},                                                \
		{"virtio_blk_controller_create", rpc_ctrl_create},                               \
		{"controller_virtio_blk_create", rpc_ctrl_create_old},                           \
		{"virtio_blk_controller_destroy", rpc_ctrl_destroy},                             \
		{"controller_virtio_blk_delete", rpc_ctrl_delete_old},                           \
		{"controller_list", rpc_controller_list},                                        \
		{"virtio_blk_controller_list", rpc_ctrl_list},                                   \
	{                                                                                        \
		"emulation_function_list", rpc_emulation_function_list                           \
	}

#endif /* CONTROLLER_RPC_BLK_H */
