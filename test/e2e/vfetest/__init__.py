# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Harness of the end-to-end tests: daemons, QEMU guests and network namespaces."""
from .agent import AgentError, CommandFailed
from .controller import Controller
from .guest import Guest, Nic
from .lab import Lab
from .netns import Netns
from .pair import Pair
from .peer import VhostPeer
from .process import Process, ProcessError
from .service import Service, VhostmgmtError
from .stack import Stack

__all__ = ['AgentError', 'CommandFailed', 'Controller', 'Guest', 'Lab', 'Netns', 'Nic', 'Pair',
           'Process', 'ProcessError', 'Service', 'Stack', 'VhostPeer', 'VhostmgmtError']
