/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Log of the service: rte_log, so that EAL's --log-level rules it; lines get time stamps.
 */

#ifndef SVC_LOG_H
#define SVC_LOG_H

#include <stdint.h>

#include <rte_log.h>

#define SVC_LOG(level, ...) svc_log(RTE_LOG_##level, __VA_ARGS__)

/* One line of level RTE_LOG_*, without newline. */
void svc_log(uint32_t level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Send all of rte_log to stderr, each line with a time stamp, one write(2) per line. Before
 * rte_eal_init(). Returns 0 or -errno.
 */
int svc_log_open(void);

#endif /* SVC_LOG_H */
