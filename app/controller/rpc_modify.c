/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Method "modify": link, MTU or MAC address of a device, told to its driver by an interrupt.
 */

#include "rpc.h"

#include "config_json.h"

#include <errno.h>

struct request {
	struct rpc_selector sel;
	struct function_change change;
};

static int
parse_device(const json_t *device, struct function_change *change, struct vfe_error *err)
{
	static const struct json_key mac_key = {.name = "mac"};
	int64_t mtu = 0;
	const char *mac = NULL;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "link", .type = VFE_JSONRPC_BOOL, .ret = &change->link},
		{.name = "mtu", .type = VFE_JSONRPC_INT, .min = 68, .max = 9216, .ret = &mtu},
		{.name = "mac", .type = VFE_JSONRPC_STRING, .ret = &mac},
	};
	int rc;

	if (!json_is_object(device) || json_object_size(device) == 0)
		return vfe_error_set(
			err, -EINVAL, "device: expected an object with link, mtu or mac");
	rc = vfe_jsonrpc_params(device, schema, VFE_ARRAY_SIZE(schema), err);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "device");
	change->has_link = json_object_get(device, "link") != NULL;
	change->has_mtu = mtu != 0;
	change->mtu = (uint16_t)mtu;
	change->has_mac = mac != NULL;
	if (mac == NULL)
		return 0;
	return json_read_mac(
		&mac_key, json_object_get(device, "mac"), "device.mac", change->mac, err);
}

/* "device" is an object of its own; the rest are plain parameters. */
static int
parse(const json_t *params, json_t *plain, struct request *ret, struct vfe_error *err)
{
	const struct vfe_jsonrpc_param schema[] = {RPC_SELECTOR_PARAMS(ret->sel)};
	int rc;

	if (plain != NULL)
		(void)json_object_del(plain, "device");
	rc = vfe_jsonrpc_params(plain, schema, VFE_ARRAY_SIZE(schema), err);
	if (rc < 0)
		return rc;
	return parse_device(json_object_get(params, "device"), &ret->change, err);
}

void
rpc_modify(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct request request = {.sel = {.pf = -1, .vf = -1}};
	json_t *plain = json_copy((json_t *)(uintptr_t)params);
	struct vfe_error err;
	struct function *fn = NULL;

	if (parse(params, plain, &request, &err) == 0)
		fn = rpc_find(ctx, &request.sel, &err);
	if (fn == NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	} else if (fn->type->modify(fn, &request.change, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INTERNAL_ERROR, "%s: %s", fn->name, err.text);
	} else {
		log_info("%s: modified by an operator", fn->name);
		vfe_jsonrpc_reply(req, json_pack("{s:s}", "status", "success"));
	}
	json_decref(plain);
}
