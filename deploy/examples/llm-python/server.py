"""A chat with a language model: a call of Ask is answered at once, and the tokens follow while the model writes them.

    HUBCAST_ENDPOINT=http://localhost:8080 HUBCAST_ACCESS_KEY=... python server.py

Clients number their questions: `invoke("Ask", 1, "Why?")`, `on("Token", (question, index, text) => ...)`,
`on("Done", (question, tokens, error) => ...)`, and `invoke("Stop", 1)`. Python alone, without any package."""
import base64, hmac, json, os, secrets, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENDPOINT = os.environ["HUBCAST_ENDPOINT"].rstrip("/")
KEYS = [key.encode() for key in os.environ["HUBCAST_ACCESS_KEY"].split(",")]
running: dict[tuple[str, int], threading.Event] = {}  # each connection's questions, and how to stop them

def model(prompt: str):
    """Yields the tokens of an answer: put your model here."""
    for word in f"You ask: {prompt} Nobody knows, and this model is a fake.".split():
        time.sleep(0.01)
        yield word + " "

def push(connection: str, key: str, target: str, *arguments) -> None:
    url = f"{ENDPOINT}/api/hubs/chat/connections/{connection}/:send?api-version=2022-06-01"
    part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    signed = part(b'{"alg":"HS256"}') + b"." + part(json.dumps({"aud": url, "exp": time.time() + 300}).encode())
    token = signed + b"." + part(hmac.digest(KEYS[0], signed, "sha256"))
    headers = {"Authorization": b"Bearer " + token, "Content-Type": "application/json", "Idempotency-Key": key}
    request = urllib.request.Request(url, json.dumps({"target": target, "arguments": arguments}).encode(), headers)
    for pause in (0.1, 0.5, 2):  # a request that is repeated with its key sends nothing twice
        try:
            return urllib.request.urlopen(request, timeout=10).close()
        except OSError:
            time.sleep(pause)
    raise OSError("the gateway does not take the tokens")

def write(connection: str, question: int, prompt: str, stop: threading.Event) -> None:
    key, count, error = secrets.token_hex(8), 0, None
    try:
        for text in model(prompt):
            if stop.is_set():
                break
            push(connection, f"{key}-{count}", "Token", question, count, text)  # one after the other: in order
            count += 1
    except Exception as failure:
        error = "The model has failed."
        print(f"{connection}: {failure}", flush=True)
    del running[connection, question]
    push(connection, f"{key}-done", "Done", question, count, error)

def called(connection: str, event: str, arguments: list) -> dict:
    match event, arguments:
        case "Ask", [int(question), str(prompt)] if (connection, question) not in running and len(running) < 500:
            stop = running[connection, question] = threading.Event()
            threading.Thread(target=write, args=(connection, question, prompt, stop), daemon=True).start()
        case "Stop", [int(question)]:
            running.get((connection, question), threading.Event()).set()
        case _:
            return {"error": "There are Ask(number, prompt), each number once at a time and 500 in all, and Stop(number)."}
    return {"result": None}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        call, header = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.headers.get
        connection, status, body = header("X-ASRS-Connection-Id", ""), 200, b""
        expected = ["sha256=" + hmac.digest(key, connection.encode(), "sha256").hex() for key in KEYS]
        given = header("X-ASRS-Signature", "").encode().lower().split(b",")
        if not any(hmac.compare_digest(one.encode(), other) for one in expected for other in given):
            status = 401
        elif header("X-ASRS-Event") == "disconnected":  # nobody reads its answers any more
            [stop.set() for (of, _), stop in running.copy().items() if of == connection]
        elif "invocationId" in call:
            outcome = called(connection, header("X-ASRS-Event"), call["arguments"])
            body = json.dumps({"type": 3, "invocationId": call["invocationId"], **outcome}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("", int(os.environ.get("PORT", 8000))), Handler).serve_forever()
