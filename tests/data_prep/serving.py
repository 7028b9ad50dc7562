"""A web server of the tests' own, and what can be wrong with its answers."""

import http.server
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (name -> content) and counts; `faults` says what to do to a file's answers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.faults = {}  # name -> list of functions of the handler and the content, used up
        self.asked = []  # names, in order
        self.pauses = []  # seconds that the client meant to wait between tries
        self.released = threading.Event()  # ends what hangs
        self.url = f"http://127.0.0.1:{self.server_port}/subjects"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        name = self.path.removeprefix("/subjects/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        faults = self.server.faults.get(name)
        if faults:
            faults.pop(0)(self, content)
        elif content is None:
            self.send_error(404)
        else:
            answer(self, content, len(content))

    def log_message(self, *_):
        pass


def answer(handler, content, length):
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    try:
        handler.wfile.write(content)
    except (BrokenPipeError, ConnectionResetError):  # a client that has enough may hang up
        handler.close_connection = True


def cut_short(handler, content):
    answer(handler, content[: len(content) // 2], len(content))


def without_length(handler, content):
    answer(handler, content, None)


def instead(content):
    return lambda handler, _: answer(handler, content, len(content))


def status(code):
    return lambda handler, _: handler.send_error(code)


def hang(handler, _):
    handler.server.released.wait(20)
