/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * VERSION of vfio-user: the capabilities of both ends as JSON text.
 */

#include "vfu_msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

void
vfu_caps_own(struct vfu_caps *caps)
{
	*caps = (struct vfu_caps){
		.major = VFE_VFU_VERSION_MAJOR,
		.minor = VFE_VFU_VERSION_MINOR,
		.has_max_fds = true,
		.max_fds = VFU_MAX_FDS,
		.max_xfer = VFU_MAX_DATA_XFER,
		.max_dma_maps = VFE_VFU_DEFAULT_MAX_DMA_MAPS,
	};
}

/* Read the number @key of at least @min, cut to @max; *@ret stays when it is absent. */
static int
caps_number(json_t *caps, const char *key, json_int_t min, json_int_t max, uint32_t *ret,
	struct vfe_error *err)
{
	json_t *value = json_object_get(caps, key);
	json_int_t number;

	if (value == NULL)
		return 0;
	if (!json_is_integer(value))
		return vfe_error_set(err, -EINVAL, "capability %s is not an integer", key);
	number = json_integer_value(value);
	if (number < min)
		return vfe_error_set(err, -EINVAL, "capability %s is %lld, at least %lld is legal",
			key, (long long)number, (long long)min);
	*ret = (uint32_t)(number < max ? number : max);
	return 0;
}

static int
caps_parse_json(json_t *root, struct vfu_caps *ret, struct vfe_error *err)
{
	json_t *caps;
	int rc;

	if (!json_is_object(root))
		return vfe_error_set(err, -EINVAL, "version data is not a JSON object");
	caps = json_object_get(root, "capabilities");
	if (caps == NULL)
		return 0;
	if (!json_is_object(caps))
		return vfe_error_set(err, -EINVAL, "capabilities are not a JSON object");

	ret->has_max_fds = json_object_get(caps, "max_msg_fds") != NULL;
	rc = caps_number(caps, "max_msg_fds", 0, VFU_MAX_FDS, &ret->max_fds, err);
	if (rc == 0)
		rc = caps_number(
			caps, "max_data_xfer_size", 1, VFU_MAX_DATA_XFER, &ret->max_xfer, err);
	if (rc == 0)
		rc = caps_number(caps, "max_dma_maps", 1, VFE_VFU_DEFAULT_MAX_DMA_MAPS,
			&ret->max_dma_maps, err);
	return rc;
}

int
vfu_caps_parse(const uint8_t *body, uint32_t size, struct vfu_caps *ret, struct vfe_error *err)
{
	struct vfe_wire_vfu_version version;
	const char *text = (const char *)body + sizeof(version);
	json_error_t json_err;
	json_t *root;
	size_t len;
	int rc;

	if (size < sizeof(version))
		return vfe_error_set(err, -EINVAL, "VERSION of %u bytes is too short", size);
	memcpy(&version, body, sizeof(version));
	*ret = (struct vfu_caps){
		.major = version.major,
		.minor = version.minor,
		.max_fds = VFE_VFU_DEFAULT_MAX_MSG_FDS,
		.max_xfer = VFE_VFU_DEFAULT_MAX_DATA_XFER,
		.max_dma_maps = VFE_VFU_DEFAULT_MAX_DMA_MAPS,
	};
	if (size == sizeof(version))
		return 0;

	len = size - sizeof(version);
	if (strnlen(text, len) != len - 1)
		return vfe_error_set(err, -EINVAL, "version data does not end with its only NUL");
	root = json_loadb(text, len - 1, 0, &json_err);
	if (root == NULL)
		return vfe_error_set(err, -EINVAL, "version data is not JSON: %s", json_err.text);
	rc = caps_parse_json(root, ret, err);
	json_decref(root);
	return rc;
}

int
vfu_caps_format(const struct vfu_caps *caps, uint8_t **ret_body, uint32_t *ret_size)
{
	struct vfe_wire_vfu_version version = {caps->major, caps->minor};
	json_t *root;
	char *text;
	size_t len;

	root = json_pack("{s:{s:I, s:I, s:I, s:I}}", "capabilities", "max_msg_fds",
		(json_int_t)caps->max_fds, "max_data_xfer_size", (json_int_t)caps->max_xfer,
		"max_dma_maps", (json_int_t)caps->max_dma_maps, "pgsizes",
		(json_int_t)VFU_PAGE_SIZE);
	if (root == NULL)
		return -ENOMEM;
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	if (text == NULL)
		return -ENOMEM;

	len = strlen(text) + 1;
	*ret_body = malloc(sizeof(version) + len);
	if (*ret_body != NULL) {
		memcpy(*ret_body, &version, sizeof(version));
		memcpy(*ret_body + sizeof(version), text, len);
		*ret_size = (uint32_t)(sizeof(version) + len);
	}
	free(text);
	return *ret_body == NULL ? -ENOMEM : 0;
}
