"""Scores theme.html: builds the blog with it, has a browser look whether every word is there to be read, and asks Lighthouse.

score = 100 times the mean of performance and accessibility over the pages of PAGES. A theme that holds what it may not, or a page
that hides, moves or changes what the posts say, is refused. What Lighthouse finds fault with is printed for people and agents.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import reader
from generator import Page, build, load_posts
from theme import ThemeError, read

HERE = Path(__file__).parent
PAGES = ("index.html", "deep-field.html")
"""That are audited, and looked at on two screens; the others are looked at on a phone's."""
PHONE = {"width": 412, "height": 823, "scale": 1.75, "mobile": True}  # what Lighthouse emulates
DESK = {"width": 1350, "height": 940, "scale": 1, "mobile": False}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".jpg": "image/jpeg",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
POLICY = "default-src 'none'; img-src 'self'; font-src 'self'; style-src 'self' 'unsafe-inline'; base-uri 'none'"
Ask = Callable[..., dict[str, Any]]
FIGURES = ("fcp", "lcp", "speed_index", "tbt", "cls")


class Refused(Exception):
    pass


def serve(files: dict[str, bytes]) -> ThreadingHTTPServer:
    """Serves the files on a port of the loopback device, the same to whoever asks."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = files.get(self.path.lstrip("/"))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", TYPES.get(Path(self.path).suffix, "text/plain"))
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextmanager
def browser(node: str, chromium: str, data: str) -> Iterator[Ask]:
    """Gives what asks the browser: JSON in, JSON out."""
    command = [node, str(HERE / "browser.mjs"), data, chromium]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def ask(**request: Any) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the browser ended before it had answered; what it said is above")
        return json.loads(line)

    try:
        yield ask
        process.communicate(timeout=20)
    finally:
        process.kill()


def site(written: dict[str, str], data: Path) -> dict[str, bytes]:
    """All that is served."""
    files = {name: text.encode() for name, text in written.items()}
    files |= {f"assets/{path.name}": path.read_bytes() for path in (HERE / "assets").iterdir()}
    fonts = data / "node_modules" / "@fontsource" / "dejavu-serif" / "files"
    return files | {f"fonts/{path.name}": path.read_bytes() for path in fonts.iterdir()}


def score(audits: list[dict[str, Any]]) -> float:
    return round(100 * sum(audit[name] for audit in audits for name in ("performance", "accessibility")) / (2 * len(audits)), 6)


def details(audits: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the pages; kB and seconds."""
    mean = {name: sum(audit[name] or 0 for audit in audits) / len(audits) for name in (*FIGURES, "bytes")}
    found = {name: 100 * sum(audit[name] for audit in audits) / len(audits) for name in ("performance", "accessibility")}
    found |= {f"{name}_seconds": mean[name] / 1000 for name in FIGURES if name != "cls"}
    return {name: round(value, 3) for name, value in (found | {"cls": mean["cls"], "kilobytes": mean["bytes"] / 1000}).items()}


def check_audit(url: str, audit: dict[str, Any]) -> None:
    """Raises Refused where Lighthouse could not measure, or could not decide on colours that somebody has made undecidable."""
    if audit["error"] is not None or audit["performance"] is None or audit["accessibility"] is None:
        raise Refused(f"Lighthouse could not measure {url}: {audit['error']}")
    undecided = dict(audit["undecided"])
    if "color-contrast" in undecided:
        raise Refused(f"{url}: the contrast of some text cannot be told: {'; '.join(undecided['color-contrast'])[:300]}")


def explain(url: str, audit: dict[str, Any]) -> None:
    for failed in audit["failed"]:
        print(f"{url}: {failed['score']:.2f} {failed['id']}: {failed['title']} {failed['value']}", *failed["items"], sep="\n    ")


def measure(node: str, chromium: str, data: str) -> dict[str, Any]:
    written, expected = build(read(Path("theme.html").read_bytes()), load_posts(HERE / "posts"))
    server = serve(site(written, Path(data)))
    address = f"http://127.0.0.1:{server.server_port}"
    with browser(node, chromium, data) as ask:
        inspect(ask, address, expected)
        audits = [audit(ask, address, url) for url in PAGES]
    return {"score": score(audits), "details": details(audits)}


def inspect(ask: Ask, address: str, expected: dict[str, Page]) -> None:
    """Looks at every page. Raises Refused."""
    for url, page in expected.items():
        for screen in (PHONE, DESK) if url in PAGES else (PHONE,):
            try:
                reader.check(page, ask(look=f"{address}/{url}", **screen), screen["mobile"])
            except reader.ReaderError as error:
                raise Refused(f"{url} at {screen['width']} px: {error}") from error


def audit(ask: Ask, address: str, url: str) -> dict[str, Any]:
    """What Lighthouse says of a page. Raises Refused."""
    found = ask(audit=f"{address}/{url}")
    check_audit(url, found)
    explain(url, found)
    return found


def main() -> None:
    try:
        answer = measure(*sys.argv[1:])
    except (ThemeError, Refused) as error:
        answer = {"refused": str(error), "failure": "refused"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
