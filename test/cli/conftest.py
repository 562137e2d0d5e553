# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""Fixtures of the tests of the command lines."""
import os
import shutil
import tempfile

import pytest

from cli_harness import VHOSTMGMT, VIRTNET, FakeServer, run


@pytest.fixture
def folder():
    path = tempfile.mkdtemp(prefix='vfe-cli-')
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(folder):
    server = FakeServer(os.path.join(folder, 'rpc.sock'))
    yield server
    server.close()


@pytest.fixture
def vhostmgmt(server):
    return lambda *argv, **kw: run(VHOSTMGMT, '-s', server.path, *argv, **kw)


@pytest.fixture
def virtnet(server):
    return lambda *argv, **kw: run(VIRTNET, '-s', server.path, *argv, **kw)
