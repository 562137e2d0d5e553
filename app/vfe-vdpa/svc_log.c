/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Log of the service: rte_log goes into the common log.
 */

#include "svc_log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "app_log.h"

RTE_LOG_REGISTER(svc_logtype, vfe.service, INFO)

static enum app_log_level
current_level(void)
{
	int level = rte_log_cur_msg_loglevel();

	if (level <= (int)RTE_LOG_ERR)
		return APP_LOG_ERR;
	if (level == (int)RTE_LOG_WARNING)
		return APP_LOG_WARN;
	return level == (int)RTE_LOG_DEBUG ? APP_LOG_DEBUG : APP_LOG_INFO;
}

void
svc_log(uint32_t level, const char *fmt, ...)
{
	char text[APP_LOG_MAX_LINE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rte_log(level, (uint32_t)svc_logtype, "%s\n", text);
}

int
svc_log_open(void)
{
	FILE *f = app_log_stream_open(current_level);

	if (f == NULL)
		return -ENOMEM;
	return rte_openlog_stream(f) < 0 ? -EIO : 0;
}
