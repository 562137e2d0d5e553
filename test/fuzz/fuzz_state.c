/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Fuzz the decoder of the state blob: no crash, and what it accepts survives a round trip.
 */

#undef NDEBUG

#include "vfe_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
round_trip(const struct vfe_state *state)
{
	size_t size = vfe_state_encoded_size(state);
	uint8_t *blob = malloc(size), *again = malloc(size);
	struct vfe_error err = {""};
	struct vfe_state copy;

	assert(blob != NULL && again != NULL);
	assert(vfe_state_encode(state, blob, size) == (ssize_t)size);
	assert(vfe_state_decode(&copy, state->type, blob, size, &err) == 0);
	assert(vfe_state_encoded_size(&copy) == size);
	assert(vfe_state_encode(&copy, again, size) == (ssize_t)size);
	assert(memcmp(blob, again, size) == 0);
	vfe_state_compatible(state, &copy, &err);
	vfe_state_fini(&copy);
	free(again);
	free(blob);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum vfe_state_type types[] = {VFE_STATE_TYPE_NET, VFE_STATE_TYPE_BLK};
	struct vfe_error err = {""};
	struct vfe_state state;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(types); i++) {
		if (vfe_state_decode(&state, types[i], data, size, &err) < 0) {
			assert(err.text[0] != '\0');
			continue;
		}
		assert(state.type == types[i]);
		round_trip(&state);
		vfe_state_fini(&state);
	}
	return 0;
}
