# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Python peers of the daemons, written from the specifications and shared by the tests."""

import os

# Everything that waits is allowed this much more under a sanitizer or on a slow machine.
SLOW = 3.0 if ('asan' in os.environ.get('VFE_BUILD_DIR', '') or os.environ.get('VFE_TEST_SLOW')) \
    else 1.0
