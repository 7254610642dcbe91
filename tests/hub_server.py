"""A server that speaks the hub's protocol, well and badly, for test_hub.lua.

  python3 hub_server.py FOLDER

Serves on two ports of 127.0.0.1, and by TLS on a third where the openssl program
makes a certificate (FOLDER/cert.pem) for localhost; prints the ports. FOLDER
gets `requests`, one JSON object a request (port, path, method and the headers
that matter), and may hold tokenizer.json. What is asked for decides what happens: the names of
datasets and files are those of the functions below. Ends with its standard
input.
"""
import gzip
import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = sys.argv[1]
ROWS = 250
LOCK = threading.Lock()
SEEN = {}
SERVERS = []
COMMIT = hashlib.sha1(b"commit").hexdigest()


def count(key):
    """How often this was called with `key` before."""
    with LOCK:
        SEEN[key] = SEEN.get(key, 0) + 1
        return SEEN[key] - 1


def row(i):
    return {"id": i, "text": "Row %d tells of größe %d.\nIt has %d lines." %
            (i, i * i, 2), "body": "body %d" % i}


def page(offset, length, rows=ROWS):
    names = [{"feature_idx": k, "name": n, "type": {"dtype": "string"}}
             for k, n in enumerate(["id", "text", "body"])]
    entries = [{"row_idx": i, "row": row(i), "truncated_cells": []}
               for i in range(offset, min(offset + length, rows))]
    return {"features": names, "rows": entries, "num_rows_total": rows,
            "num_rows_per_page": 100, "partial": False}


def jsonl(rows):
    return "".join(json.dumps(row(i)) + "\n" for i in range(rows)).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self):
        keep = {k: self.headers[k] for k in
                ("Authorization", "Range", "If-Range", "Host", "User-Agent",
                 "Accept-Encoding") if k in self.headers}
        with LOCK, open(os.path.join(FOLDER, "requests"), "a") as f:
            f.write(json.dumps({"method": self.command, "path": self.path,
                                "port": self.server.server_port,
                                "headers": keep}) + "\n")

    def send(self, status, body=b"", headers=None, declared=None):
        """Answer; `declared`: the length to claim, and then hang up."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length",
                         str(len(body) if declared is None else declared))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if declared is not None and declared != len(body):
            self.wfile.flush()
            self.close_connection = True

    def do_CONNECT(self):
        self.note()
        self.send(502)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.note()
        url = urllib.parse.urlsplit(self.path)
        try:
            if url.path == "/rows":
                self.rows({k: v[0] for k, v in
                           urllib.parse.parse_qs(url.query).items()})
            elif url.path.startswith("/api/datasets/t/files/tree/main/shards"):
                self.tree(url.query)
            elif "/resolve/" in url.path:
                self.resolve(urllib.parse.unquote(url.path))
            elif url.path.startswith("/blob/"):
                self.file(jsonl(50), '"blob"')
            else:
                self.send(404, {"error": "no such page"})
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    # --- rows ---------------------------------------------------------------
    def rows(self, q):
        offset, length = int(q["offset"]), int(q["length"])
        key = (q["dataset"], offset)
        body, headers = page(offset, length), {"X-Revision": "rev1"}
        name = q["dataset"].split("/")[1]
        if q["split"] == "none":
            return self.send(404, {"error": "The split does not exist"})
        if name == "flaky" and count(key) == 0:
            return self.send(429 if offset else 503, {"error": "slow down"},
                             {"Retry-After": "0.1"} if offset else {})
        if name == "escape":
            return self.send(404, {"error": "\x1b[31mred\n\r"})
        if name == "down":
            return self.send(503, {"error": "down for repairs"})
        if name == "gated" and \
                self.headers.get("Authorization") != "Bearer hf_secret":
            return self.send(401, {"error": "The dataset is gated"})
        if name == "truncated":
            return self.send(200, json.dumps(body).encode()[:3000], headers)
        if name == "cut" and count(key) == 0:
            whole = json.dumps(body).encode()
            return self.send(200, whole[:2000], headers, len(whole))
        if name == "html":
            return self.send(200, b"<html>Please log in</html>",
                             {"Content-Type": "text/html"})
        if name == "gzip":
            assert "gzip" in self.headers.get("Accept-Encoding", "")
            return self.send(200, gzip.compress(json.dumps(body).encode()),
                             {"Content-Encoding": "gzip", **headers})
        if name == "badgzip":
            return self.send(200, b"no gzip at all",
                             {"Content-Encoding": "gzip", **headers})
        if name == "slow":
            time.sleep(3)
        if name == "moving" and (offset == 100 or count(key) > 0):
            headers["X-Revision"] = "rev2"
        if name == "restless":
            headers["X-Revision"] = "rev%d" % count("restless")
        if name == "cells" and offset == 0:
            body["rows"][3]["truncated_cells"] = ["text"]
            body["rows"][4]["row"]["text"] = None
            body["rows"][5]["truncated_cells"] = ["body"]
        if name == "numbers":
            body["rows"][1]["row"]["text"] = 7
        if name == "short" and offset == 100:
            body["rows"] = body["rows"][:40]
        self.send(200, body, headers)

    def tree(self, query):
        """A listing in two pages."""
        names = ["shards/part-%d.jsonl.gz" % i for i in range(4)]
        names = names[2:] if query else names[:2] + ["shards/notes.txt"]
        entries = [{"type": "file", "path": n, "size": 1} for n in names]
        entries.append({"type": "directory", "path": "shards/part-9.jsonl.gz"})
        link = "http://127.0.0.1:%d%s?cursor=2" % (
            self.server.server_port, self.path)
        self.send(200, entries, {} if query else
                  {"Link": '<%s>; rel="next"' % link})

    # --- files --------------------------------------------------------------
    def file(self, data, etag, headers=None):
        """A file, or the rest of it from where the client stands."""
        start, status = 0, 200
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, **(headers or {})}
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == etag:
            start, status = int(wanted[6:-1]), 206
            headers["Content-Range"] = "bytes %d-%d/%d" % (
                start, len(data) - 1, len(data))
        self.send(status, data[start:], headers)

    def half(self, data, etag):
        """The first half, then the connection ends."""
        self.send(200, data[:len(data) // 2],
                  {"ETag": etag, "X-Repo-Commit": COMMIT}, len(data))

    def resolve(self, path):
        name = path.split("/resolve/")[1].split("/", 1)[1]
        other = "http://127.0.0.1:%d/blob/x" % SERVERS[1].server_port
        data = jsonl(50)
        if name == "tokenizer.json":
            with open(os.path.join(FOLDER, name), "rb") as f:
                return self.file(f.read(), '"tokenizer"')
        if name.startswith("shards/part-"):
            return self.file(gzip.compress(data, mtime=0), '"shard"')
        if name == "data/good.jsonl.gz":
            return self.file(gzip.compress(data, mtime=0), '"good"')
        if name in ("cut.jsonl", "changed.jsonl"):
            first = count(name) == 0
            if first:
                return self.half(data, '"one"')
            return self.file(data if name[1] == "u" else jsonl(60),
                             '"one"' if name[1] == "u" else '"two"')
        if name == "weak.jsonl":
            if count(name) == 0:
                return self.half(data, 'W/"one"')
            return self.file(data, 'W/"one"')
        if name == "wrongpart.jsonl":
            if count(name) == 0:
                return self.half(data, '"one"')
            return self.send(206, data[7:], {
                "ETag": '"one"', "Content-Range": "bytes 7-9/10"})
        if name == "moved.jsonl":
            return self.send(302, b"moved", {
                "Location": other, "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": '"linked"'})
        if name == "renamed.jsonl":
            return self.send(307, b"", {
                "Location": path.replace("renamed", "same")})
        if name == "same.jsonl":
            return self.file(data, '"same"')
        if name == "loop.jsonl":
            return self.send(302, b"", {"Location": path})
        if name == "ftp.jsonl":
            return self.send(302, b"", {"Location": "ftp://127.0.0.1/x"})
        if name == "page.jsonl":
            return self.send(200, b"<html>Please log in</html>")
        if name == "wrong.jsonl.zst":
            return self.send(200, data)
        if name == "empty.jsonl":
            return self.send(200, b"")
        if name == "coded.jsonl":
            return self.send(200, gzip.compress(data),
                             {"Content-Encoding": "gzip", "ETag": '"coded"'})
        if name == "trickle.jsonl":
            self.send_response(200)
            self.send_header("ETag", '"slow"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:100])
            self.wfile.flush()
            time.sleep(20)
            return None
        return self.send(404, b"Entry not found",
                         {"X-Error-Message": "Entry not found"})


def certificate():
    """TLS with a certificate that nobody signed; None without openssl."""
    cert, key = (os.path.join(FOLDER, n) for n in ("cert.pem", "key.pem"))
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert,
             "-days", "2", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost,DNS:datasets-server.localhost"],
            check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def main():
    tls = certificate()
    for i in range(3 if tls else 2):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if i == 2:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        SERVERS.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(*[s.server_port for s in SERVERS], flush=True)
    sys.stdin.read()


main()
