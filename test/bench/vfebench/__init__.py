# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What scripts/bench measures, one module per subject."""
import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, 'test', 'e2e'))
sys.path.insert(0, os.path.join(TOP, 'app', 'common'))
