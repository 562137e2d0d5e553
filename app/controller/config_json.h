/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Strict reading of a JSON object by a table of its keys: what is unknown or of the wrong type is
 * an error that names the key by its whole path, e.g. "software_dpu.pfs[0].mtu".
 */

#ifndef CONTROLLER_CONFIG_JSON_H
#define CONTROLLER_CONFIG_JSON_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "vfe_base.h"

enum { JSON_PATH_MAX = 160 };

struct json_key;

/*
 * Read @value, which @path names, into the member at @out. Returns 0, or -EINVAL with a text that
 * begins with the path and says what was expected.
 */
typedef int (*json_reader)(const struct json_key *key, const json_t *value, const char *path,
	void *out, struct vfe_error *err);

struct json_key {
	const char *name;
	json_reader read;
	size_t offset; /* of the member in the object that json_read_object() fills */
	uint64_t min;  /* of a number */
	uint64_t max;  /* of a number; size of the member of a string */
};

/*
 * Read the members of @object into @out. @path is "" for the document itself. Members that are
 * absent leave their place untouched. Errors as of json_reader.
 */
int json_read_object(const json_t *object, const char *path, const struct json_key *keys,
	size_t nr_keys, void *out, struct vfe_error *err);

/* Readers. */
int json_read_u32(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err); /* uint32_t, min..max */
int json_read_bool(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err); /* bool; 0 and 1 will do too */
int json_read_string(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err); /* char[max], not empty */
int json_read_features(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err); /* uint64_t from a number or "0x..." */
int json_read_mac(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err); /* uint8_t[6] from "0C:C4:7A:FF:22:90", unicast */
int json_read_bdf(const struct json_key *key, const json_t *value, const char *path, void *out,
	struct vfe_error *err); /* struct vfe_bdf */

#endif /* CONTROLLER_CONFIG_JSON_H */
