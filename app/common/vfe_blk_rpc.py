# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What spdk_rpc.py and snap_rpc.py share: types of arguments, output, the way to run."""
import argparse
import re
import sys

import vfe_rpc

SERVICE = 'virtio-net-controller'
DEFAULT_SOCKET = '/run/vfe/controller.sock'


def name(text):
    """Type of the name of a bdev or a controller."""
    if not re.fullmatch('[A-Za-z0-9._:-]{1,63}', text, re.ASCII):
        raise argparse.ArgumentTypeError(
            '%r is not a name of 1 to 63 letters, digits and . _ : -' % text)
    return text


def number(low, high):
    """Type of an integer from low to high."""
    def convert(text):
        if not re.fullmatch('[0-9]{1,18}', text, re.ASCII) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError('%r is not a number from %d to %d'
                                             % (text, low, high))
        return int(text)
    return convert


def show(result):
    """As SPDK has it: a name as it is, nothing for success, else JSON."""
    if isinstance(result, str):
        text = vfe_rpc.printable(result) + '\n'
        if sys.stdout is not None:
            sys.stdout.buffer.write(text.encode(errors='backslashreplace'))
            sys.stdout.buffer.flush()
    elif result is not True:
        vfe_rpc.print_json(result)


def failure(result):
    """Nothing is wrong with a result: failures are error objects."""
    return None if result is True or isinstance(result, (dict, list, str)) else \
        'the answer of the controller is neither an object nor a list nor a name'


class Command:
    """Adds one command to a parser; what its options are called is what the RPC calls them."""

    def __init__(self, commands, method, help_text, request=None, check=None):
        self.parser = commands.add_parser(method, help=help_text, description=help_text)
        self.keys = []
        self.parser.set_defaults(method=method, request=request or self.request, check=check)
        vfe_rpc.add_server_options(self.parser, DEFAULT_SOCKET, again=True)

    def add(self, *flags, **kwargs):
        """An option or argument of argparse; absent ones are not sent."""
        if flags[0].startswith('-'):
            kwargs.setdefault('default', argparse.SUPPRESS)
        self.keys.append(self.parser.add_argument(*flags, **kwargs).dest)
        return self

    def request(self, args):
        values = vars(args)
        return {key: values[key] for key in self.keys if values.get(key) is not None}


def run(prog, description, add_commands, argv):
    parser = vfe_rpc.Parser(
        prog=prog, description='%s %s.' % (description, vfe_rpc.VERSION),
        epilog='Exit status: 0 success, 1 error, 2 usage. Use -h after a command for its options.')
    parser.add_argument('-v', '--version', action='version',
                        version='%(prog)s ' + vfe_rpc.VERSION)
    vfe_rpc.add_server_options(parser, DEFAULT_SOCKET)
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    add_commands(commands)
    args = parser.parse_args(argv)
    server = vfe_rpc.Commands(parser, SERVICE, failure, show)
    try:
        return server.run(args)
    finally:
        server.close()
