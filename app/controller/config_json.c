/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Strict reading of a JSON object by a table of its keys.
 */

#include "config_json.h"

#include "vfe_bdf.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *
type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_NULL:
		return "null";
	default:
		return "a boolean";
	}
}

int
json_read_object(const json_t *object, const char *path, const struct json_key *keys,
	size_t nr_keys, void *out, struct vfe_error *err)
{
	char member[JSON_PATH_MAX];
	const char *name;
	json_t *value;
	size_t i;
	int rc;

	if (!json_is_object(object))
		return vfe_error_set(err, -EINVAL, "%s: expected an object, got %s",
			path[0] != '\0' ? path : "the document", type_name(object));

	/* the iteration does not change the object; jansson has no const form of it */
	json_object_foreach ((json_t *)(uintptr_t)object, name, value) {
		snprintf(member, sizeof(member), "%s%s%s", path, path[0] != '\0' ? "." : "", name);
		for (i = 0; i < nr_keys && strcmp(keys[i].name, name) != 0; i++)
			;
		if (i == nr_keys)
			return vfe_error_set(err, -EINVAL, "%s: unknown key", member);
		rc = keys[i].read(&keys[i], value, member, (char *)out + keys[i].offset, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int
json_read_u32(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	json_int_t v = json_integer_value(value);

	if (!json_is_integer(value))
		return vfe_error_set(
			err, -EINVAL, "%s: expected an integer, got %s", path, type_name(value));
	if (v < (json_int_t)key->min || v > (json_int_t)key->max)
		return vfe_error_set(err, -EINVAL, "%s: expected %llu to %llu, got %lld", path,
			(unsigned long long)key->min, (unsigned long long)key->max, (long long)v);
	*(uint32_t *)out = (uint32_t)v;
	return 0;
}

int
json_read_bool(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	json_int_t v = json_integer_value(value);

	(void)key;
	if (json_is_boolean(value))
		*(bool *)out = json_is_true(value);
	else if (json_is_integer(value) && (v == 0 || v == 1))
		*(bool *)out = v == 1;
	else
		return vfe_error_set(err, -EINVAL, "%s: expected true, false, 0 or 1", path);
	return 0;
}

int
json_read_string(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	const char *text = json_string_value(value);

	if (text == NULL)
		return vfe_error_set(
			err, -EINVAL, "%s: expected a string, got %s", path, type_name(value));
	if (text[0] == '\0' || vfe_str_copy(out, key->max, text) < 0)
		return vfe_error_set(err, -EINVAL, "%s: expected 1 to %llu characters, got %zu",
			path, (unsigned long long)key->max - 1, strlen(text));
	return 0;
}

int
json_read_features(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	const char *text = json_string_value(value);
	char *end = NULL;
	uint64_t v = 0;

	(void)key;
	errno = 0;
	if (json_is_integer(value) && json_integer_value(value) >= 0) {
		v = (uint64_t)json_integer_value(value);
	} else if (text != NULL && strncmp(text, "0x", 2) == 0 && strchr(text, '-') == NULL) {
		v = strtoull(text + 2, &end, 16);
		if (errno != 0 || end == text + 2 || *end != '\0')
			text = NULL;
	} else {
		text = NULL;
	}
	if (text == NULL && !json_is_integer(value))
		return vfe_error_set(err, -EINVAL,
			"%s: expected feature bits as a number or as \"0x...\"", path);
	if (json_is_integer(value) && json_integer_value(value) < 0)
		return vfe_error_set(err, -EINVAL, "%s: negative feature bits", path);
	*(uint64_t *)out = v;
	return 0;
}

int
json_read_mac(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	const char *text = json_string_value(value);
	unsigned int b[6];
	uint8_t *mac = out;
	int i, n = 0;

	(void)key;
	if (text == NULL || strlen(text) != 17 ||
		sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
			&n) != 6 ||
		n != 17)
		return vfe_error_set(
			err, -EINVAL, "%s: expected a MAC address like 0C:C4:7A:FF:22:90", path);
	if ((b[0] & 1) != 0)
		return vfe_error_set(err, -EINVAL,
			"%s: %s is a multicast address, expected unicast", path, text);
	for (i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return 0;
}

int
json_read_bdf(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err)
{
	const char *text = json_string_value(value);

	(void)key;
	if (text == NULL || vfe_bdf_parse(text, out) < 0)
		return vfe_error_set(
			err, -EINVAL, "%s: expected a PCI address like 0000:af:00.2", path);
	return 0;
}
