"""A back end beside Hubcast: logs users in, sends their clients to the gateway, and pushes to them over REST.

    pip install -r requirements.txt
    HUBCAST_ENDPOINT=http://localhost:8080 HUBCAST_ACCESS_KEY=... uvicorn app:app --port 8000

The gateway serves the hub with `hubs.names = ["chat"]` and has the same access key. SignalR clients connect to
http://localhost:8000/chat with the token of POST /login; negotiate sends them on.
"""
import os, secrets, time

import httpx
import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

ENDPOINT = os.environ["HUBCAST_ENDPOINT"].rstrip("/")
ACCESS_KEY = os.environ["HUBCAST_ACCESS_KEY"]
USERS = {"ann": "tea", "bob": "coffee"}  # yours are in a database, and hashed
ROLES = ["hubcast.join.room-*", "hubcast.send.room-*"]  # what users may do in the hub
sessions: dict[str, str] = {}
app = FastAPI()

class Login(BaseModel):
    user: str
    password: str

def user(bearer: HTTPAuthorizationCredentials = Depends(HTTPBearer())) -> str:
    if bearer.credentials not in sessions:
        raise HTTPException(401)
    return sessions[bearer.credentials]

def signed(audience: str, **claims) -> str:
    return jwt.encode({"aud": audience, "exp": int(time.time()) + 600, **claims}, ACCESS_KEY, "HS256")

@app.post("/login")
def login(given: Login):
    expected = USERS.get(given.user)
    if expected is None or not secrets.compare_digest(expected.encode(), given.password.encode()):
        raise HTTPException(401)
    sessions[token := secrets.token_urlsafe()] = given.user
    return {"token": token}

@app.post("/chat/negotiate")
def negotiate(name: str = Depends(user)):
    url = f"{ENDPOINT}/client/?hub=chat"
    return {"url": url, "accessToken": signed(url, nameid=name, role=ROLES)}

@app.post("/announce")
async def announce(text: str, name: str = Depends(user)):
    url = f"{ENDPOINT}/api/hubs/chat/:send?api-version=2022-06-01"
    headers = {"Authorization": f"Bearer {signed(url)}"}
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, json={"target": "Announced", "arguments": [name, text]}, headers=headers)
    answer.raise_for_status()
