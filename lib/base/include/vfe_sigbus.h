/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Survive a peer that shrinks the memory file which we have mapped.
 *
 * An access behind the end of a file raises SIGBUS. The handler looks the address up among the
 * guarded ranges, maps anonymous zero pages over the whole range that it hit, sets that range's
 * flag, and the access goes on. The owner sees the flag and fails that one device. An address
 * outside all guarded ranges gets the default action, as without us.
 */

#ifndef VFE_SIGBUS_H
#define VFE_SIGBUS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { VFE_SIGBUS_MAX_RANGES = 16384 };

/* Install the handler; once per process, from main(). Returns 0 or -errno. */
int vfe_sigbus_install(void);

/*
 * Guard [@va, @va + @len), both page aligned, until vfe_sigbus_unguard(). @tripped is set to true
 * by the handler and must outlive the guard. Any thread. Returns 0, -EINVAL or -ENOSPC.
 */
int vfe_sigbus_guard(void *va, size_t len, atomic_bool *tripped);

/* End the guard of the range that begins at @va; call before munmap(). Any thread. */
void vfe_sigbus_unguard(void *va);

#endif /* VFE_SIGBUS_H */
