/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Strict reading of the parameters of a method by a schema.
 */

#include "vfe_jsonrpc.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const struct vfe_jsonrpc_param *
row_find(const struct vfe_jsonrpc_param *schema, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strcmp(schema[i].name, name) == 0)
			return &schema[i];
	return NULL;
}

/* A misspelled name must not be a silent default. */
static int
names_check(const json_t *params, const struct vfe_jsonrpc_param *schema, size_t n,
	struct vfe_error *err)
{
	/* jansson has no iterator for const objects; this one only reads */
	json_t *object = (json_t *)(uintptr_t)params;
	const char *name;
	json_t *value;

	json_object_foreach (object, name, value) {
		if (row_find(schema, n, name) == NULL)
			return vfe_error_set(err, -EINVAL, "unknown parameter \"%.64s\"", name);
	}
	return 0;
}

static int
type_error(const struct vfe_jsonrpc_param *row, const char *expected, struct vfe_error *err)
{
	return vfe_error_set(err, -EINVAL, "parameter \"%s\" must be %s", row->name, expected);
}

static int
value_get(const struct vfe_jsonrpc_param *row, const json_t *value, struct vfe_error *err)
{
	int64_t number;

	switch (row->type) {
	case VFE_JSONRPC_STRING:
		if (!json_is_string(value))
			return type_error(row, "a string", err);
		*(const char **)row->ret = json_string_value(value);
		return 0;
	case VFE_JSONRPC_BOOL:
		if (!json_is_boolean(value))
			return type_error(row, "true or false", err);
		*(bool *)row->ret = json_is_true(value);
		return 0;
	case VFE_JSONRPC_INT:
		if (!json_is_integer(value))
			return type_error(row, "an integer", err);
		number = json_integer_value(value);
		if (number < row->min || number > row->max)
			return vfe_error_set(err, -EINVAL,
				"parameter \"%s\" is %" PRId64 ", expected %" PRId64 " to %" PRId64,
				row->name, number, row->min, row->max);
		*(int64_t *)row->ret = number;
		return 0;
	}
	return -EINVAL;
}

int
vfe_jsonrpc_params(const json_t *params, const struct vfe_jsonrpc_param *schema, size_t n,
	struct vfe_error *err)
{
	const json_t *value;
	size_t i;
	int ret;

	if (params != NULL && !json_is_object(params))
		return vfe_error_set(err, -EINVAL, "the parameters must be an object");
	ret = names_check(params, schema, n, err);
	if (ret < 0)
		return ret;

	for (i = 0; i < n; i++) {
		value = json_object_get(params, schema[i].name);
		if (value != NULL && json_is_null(value) && schema[i].nullable)
			value = NULL;
		if (value == NULL && !schema[i].required)
			continue;
		if (value == NULL)
			return vfe_error_set(
				err, -EINVAL, "parameter \"%s\" is missing", schema[i].name);
		ret = value_get(&schema[i], value, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}
