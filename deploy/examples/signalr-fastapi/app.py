"""A whole SignalR application in Python: methods that clients call are functions here. Hubcast calls this by HTTP.

    pip install -r requirements.txt
    HUBCAST_ACCESS_KEY=... uvicorn app:app --port 8000
"""
import hashlib, hmac, logging, os

from fastapi import FastAPI, HTTPException, Request, Response

KEYS = [key.encode() for key in os.environ["HUBCAST_ACCESS_KEY"].split(",")]  # two while keys are rotated
log = logging.getLogger("uvicorn.error")
app = FastAPI()
methods = {}


class HubError(Exception):
    """An error whose text the client is told."""


def method(function):
    methods[function.__name__] = function
    return function


@method
def Add(user, a, b):
    return a + b


@method
def Greet(user, name):
    return f"Hello {name}, says {user or 'somebody'}"


@method
def Withdraw(user, amount):
    if amount > 100:
        raise HubError("you have 100")
    return 100 - amount


def check(connection: str, signatures: str):
    expected = ["sha256=" + hmac.new(key, connection.encode(), hashlib.sha256).hexdigest() for key in KEYS]
    given = signatures.lower().split(",")
    if not any(hmac.compare_digest(one, other) for one in expected for other in given):
        raise HTTPException(401)


def invoke(user, call):
    function = methods.get(call["target"])
    if function is None:
        return {"error": f"There is no method {call['target']}."}
    try:
        return {"result": function(user, *call["arguments"])}
    except HubError as error:
        return {"error": str(error)}
    except TypeError:
        return {"error": f"Those are no arguments of {call['target']}."}


@app.post("/upstream/{category}/{event}")
async def upstream(category: str, event: str, request: Request):
    header = request.headers.get
    check(header("x-asrs-connection-id", ""), header("x-asrs-signature", ""))
    user = header("x-asrs-user-id")
    call = await request.json()
    if category == "connections":
        log.info("%s %s", user, event)
    elif (outcome := invoke(user, call)) and "invocationId" in call:
        return {"type": 3, "invocationId": call["invocationId"], **outcome}
    return Response(status_code=204)
