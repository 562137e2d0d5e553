# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Python peers of the daemons, written from the specifications and shared by the tests."""
