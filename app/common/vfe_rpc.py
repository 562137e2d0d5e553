# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 The vfe authors
"""What the command lines vhostmgmt and virtnet share: the JSON-RPC client, options, output."""
import argparse
import json
import os
import re
import shlex
import socket
import sys
import time

VERSION = '0.1.0'

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2

DEFAULT_TIMEOUT = 125.0         # seconds: a busy device may be retried for two minutes
MAX_TIMEOUT = 86400.0
MAX_SOCKET_PATH = 107           # bytes, of struct sockaddr_un
MAX_REPLY = 64 << 20            # bytes


class RpcError(Exception):
    """No result: the text says why and what to do."""


class Client:
    """Calls to one server; the connection is made at the first call and kept."""

    def __init__(self, path, service, timeout):
        self._path = path
        self._service = service     # the program that should answer, for error texts
        self._timeout = timeout
        self._sock = None
        self._received = b''
        self._id = 0

    def close(self):
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self._received = b''

    def call(self, method, params):
        """The result of a method. RpcError when there is none."""
        self._id += 1
        deadline = time.monotonic() + self._timeout
        request = {'jsonrpc': '2.0', 'method': method, 'params': params, 'id': self._id}
        try:
            if self._sock is None:
                self._connect()
            self._send(json.dumps(request).encode() + b'\n', deadline)
            return self._result(self._receive_line(deadline))
        except BaseException:
            self.close()            # what comes later would be taken for the next reply
            raise

    def _connect(self):
        try:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sock.settimeout(self._timeout)
            self._sock.connect(self._path)
        except socket.timeout:
            raise self._late() from None
        except FileNotFoundError:
            raise RpcError('%s does not exist: is %s running? Start it, or give the path of its '
                           'socket with -s' % (self._path, self._service)) from None
        except (ConnectionRefusedError, BlockingIOError):
            raise RpcError('nobody answers on %s: %s has ended or is overloaded; look at its log '
                           'and start it again' % (self._path, self._service)) from None
        except PermissionError:
            raise RpcError('no permission for %s: run this as root or as a member of the group '
                           'that owns the socket' % self._path) from None
        except OSError as e:
            raise RpcError('cannot connect to %s: %s' % (self._path, e.strerror or e)) from None

    def _late(self):
        return RpcError('no answer from %s within %g s. The request may still be executed: look '
                        'at the state of the device and at the log of %s before you try again'
                        % (self._path, self._timeout, self._service))

    def _gone(self, detail):
        return RpcError('%s closed the connection %s: it may have ended, look at its log'
                        % (self._service, detail))

    def _set_deadline(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        self._sock.settimeout(left)

    def _send(self, data, deadline):
        try:
            self._set_deadline(deadline)
            self._sock.sendall(data)
        except socket.timeout:
            raise self._late() from None
        except OSError:
            pass                    # a server that hangs up says why before: read that

    def _receive_line(self, deadline):
        chunks = [self._received]
        size = len(self._received)
        while b'\n' not in chunks[-1]:
            try:
                self._set_deadline(deadline)
                data = self._sock.recv(1 << 16)
            except socket.timeout:
                raise self._late() from None
            except OSError:
                data = b''
            if not data:
                raise self._gone('in the middle of its answer' if size > 0
                                 else 'without an answer')
            chunks.append(data)
            size += len(data)
            if size > MAX_REPLY:
                raise RpcError('the answer of %s is longer than %d MiB'
                               % (self._service, MAX_REPLY >> 20))
        line, self._received = b''.join(chunks).split(b'\n', 1)
        return line

    def _result(self, line):
        try:
            reply = json.loads(line.decode())
        except (ValueError, RecursionError):
            raise RpcError('the answer on %s is not JSON (%s): is it the socket of %s?'
                           % (self._path, quote(line), self._service)) from None
        if not isinstance(reply, dict) or ('result' in reply) == ('error' in reply):
            raise RpcError('the answer on %s is not JSON-RPC (%s): is it the socket of %s?'
                           % (self._path, quote(line), self._service))
        error = reply.get('error')
        # an error about what the server could not even read has no id
        if reply.get('id') != self._id and not (error is not None and reply.get('id') is None):
            raise RpcError('the answer on %s belongs to another request (%s)'
                           % (self._path, quote(line)))
        if 'result' in reply:
            return reply['result']
        if not isinstance(error, dict) or not isinstance(error.get('message'), str):
            raise RpcError('the answer on %s is not JSON-RPC (%s)' % (self._path, quote(line)))
        raise RpcError('%s (error %s)' % (error['message'], error.get('code')))


def quote(data):
    """The beginning of some bytes, for an error text."""
    text = ascii(data[:60].decode(errors='replace'))
    return text if len(data) <= 60 else text + '...'


def printable(text):
    """A peer's text without what could steer a terminal."""
    return ''.join(c if c.isprintable() else '?' for c in text)


def print_json(value):
    """Print a result; always UTF-8, whatever the locale."""
    text = json.dumps(value, indent=4, ensure_ascii=False)
    if sys.stdout is None:
        return
    # lone surrogates cannot be encoded; \udXXX is how JSON writes them
    sys.stdout.buffer.write(text.encode(errors='backslashreplace') + b'\n')
    sys.stdout.buffer.flush()


def print_error(prog, text):
    data = '%s: error: %s\n' % (prog, printable(text))
    if sys.stderr is None:
        return
    sys.stderr.buffer.write(data.encode(errors='backslashreplace'))
    sys.stderr.buffer.flush()


def restore_dashes(argv):
    """Options pasted from a typeset document: its dashes back to hyphens."""
    restored = []
    for arg in argv:
        match = re.match('[\u2010-\u2015\u2212-]+', arg)
        if match and match.group(0).strip('-'):
            name = arg[match.end():]
            long_name = re.match(r'[A-Za-z][A-Za-z-]+(=|$)', name)
            arg = ('--' if long_name else '-') + name
        restored.append(arg)
    return restored


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations; in a batch its errors name the line.

    A command sets the defaults method and request (function: args to parameters), may set check
    (function: args to what is wrong with them, or None), subject (function: args to what the
    command is about, for error texts) and present (function: args and a good result to what is
    printed instead of the result, and a list of what is wrong with it).
    """
    where = ''

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)
        self.set_defaults(subparser=self)

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        check = getattr(parsed, 'check', None)
        wrong = check(parsed) if check else None
        if wrong:
            parsed.subparser.error(wrong)
        return parsed

    def error(self, message):
        if not Parser.where:
            self.print_usage(sys.stderr)
        print_error(self.prog, Parser.where + message)
        raise SystemExit(EXIT_USAGE)


def server_path(text):
    """Type of an option: the path of a UNIX socket to connect to."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError('the path is not UTF-8') from None
    if not text.isprintable():
        raise argparse.ArgumentTypeError('the path %r has control characters' % text)
    if not 0 < size <= MAX_SOCKET_PATH:
        raise argparse.ArgumentTypeError('the path has %d bytes, a UNIX socket allows 1 to %d'
                                         % (size, MAX_SOCKET_PATH))
    return text


def socket_path(text):
    """Type of an option: the path of a socket of somebody whose current folder we don't share."""
    if not text.startswith('/'):
        raise argparse.ArgumentTypeError('%r is not an absolute path' % text)
    return server_path(text)


def seconds(text):
    """Type of -t."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_TIMEOUT:
        raise argparse.ArgumentTypeError('%r is not a number of seconds above 0 and up to %d'
                                         % (text, MAX_TIMEOUT))
    return value


def add_server_options(parser, default_path, again=False):
    """-s and -t; @again: on a command, where they override those before it."""
    none = argparse.SUPPRESS
    parser.add_argument('-s', '--socket', metavar='PATH', type=server_path,
                        default=none if again else default_path,
                        help='socket of the service (default %s)' % default_path)
    parser.add_argument('-t', '--timeout', metavar='SECONDS', type=seconds,
                        default=none if again else DEFAULT_TIMEOUT,
                        help='how long to wait for an answer (default %g)' % DEFAULT_TIMEOUT)


class Commands:
    """Execution of parsed commands; connections are kept between the lines of a batch."""

    def __init__(self, parser, service, failure, show=print_json):
        self._parser = parser
        self._service = service
        self._failure = failure     # function: what is wrong with a result, or None
        self._show = show           # function: print a result
        self._clients = {}

    def run(self, args):
        """One command; returns the exit status."""
        key = (args.socket, args.timeout)
        if key not in self._clients:
            self._clients[key] = Client(args.socket, self._service, args.timeout)
        present = getattr(args, 'present', None)
        try:
            result = self._clients[key].call(args.method, args.request(args))
            wrong = self._failure(result)
            wrong = [] if wrong is None else [wrong]
            if not wrong and present:
                result, wrong = present(args, result)
        except RpcError as e:
            result, wrong = None, [str(e)]
        if result is not None:
            self._show(result)
        subject = getattr(args, 'subject', None)
        what = ' '.join([args.command] + ([subject(args)] if subject else []))
        for text in wrong:
            print_error(self._parser.prog, '%s%s: %s' % (Parser.where, what, text))
        return EXIT_ERROR if wrong else EXIT_OK

    def run_batch(self, stream, defaults):
        """One command per line of a byte stream; goes on after failures."""
        status = EXIT_OK
        for number, line in enumerate(stream, 1):
            Parser.where = 'line %d: ' % number
            try:
                argv = restore_dashes(shlex.split(line.decode(), comments=True))
                if not argv:
                    continue
                args = self._parser.parse_args(argv, argparse.Namespace(**vars(defaults)))
                if args.command is None:
                    self._parser.error('no command')
                done = self.run(args)
            except ValueError as e:
                print_error(self._parser.prog, '%s%s' % (Parser.where, e))
                done = EXIT_ERROR
            except SystemExit as e:     # of argparse
                done = e.code
            status = EXIT_ERROR if done else status
        Parser.where = ''
        return status

    def close(self):
        for client in self._clients.values():
            client.close()


def main(prog, function):
    """Run a program; ends the process."""
    try:
        status = function(restore_dashes(sys.argv[1:]))
    except KeyboardInterrupt:
        status = 130
    except OSError as e:
        if not isinstance(e, BrokenPipeError):
            print_error(prog, str(e))
        status = EXIT_ERROR
        if sys.stdout is not None:
            # nobody reads on: what is left must not fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
